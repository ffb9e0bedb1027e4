"""Differences between servers of one protocol: fields they refuse, and the shapes in which an answer comes.

From then on a refused field is left out or written in another way, and a message says so once. The prompt and the
images, which decide the answer, are never changed.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from saliency_r1.inputs.text import LONE_SURROGATE

_REFUSING = frozenset({400, 422, 501})
# A refusal because one question is too long, and not of a field: the values it names are only those that do not fit.
_OF_SIZE = ("too large", "too long", "maximum context", "context length", "context window", "input tokens")
# A refusal of one question for its content, in the words of Azure and OpenAI, and of Alibaba.
_OF_CONTENT = ("content_filter", "content_policy", "responsibleaipolicy", "data_inspection", "datainspection")
_MOST = 2**53  # whole numbers beyond are none in JSON, and no count of tokens


class Dialect:
    """The form of requests that a server takes, learnt from what it has refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._renamed: dict[str, str] = {}
        self._dropped: set[str] = set()
        self._plain_json = False

    def spoken(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body as this server takes it."""
        with self._lock:
            said = {self._renamed.get(key, key): value for key, value in body.items() if key not in self._dropped}
            if self._plain_json and "response_format" in said:
                said["response_format"] = {"type": "json_object"}
            return said

    def learn(self, status: int, text: str, sent: dict[str, Any]) -> bool:
        """Whether a refusal names something that can be said in another way; `sent` is what was refused.

        Each change is made once, so that asking again comes to an end. True as well where another request has
        learnt it since `sent` went out.
        """
        if status not in _REFUSING or oversized(text):
            return False
        with self._lock:
            change = self._change(text, sent)
        if change:
            print(f"the server does not take {change} from now on", file=sys.stderr, flush=True)
            return True
        return change is not None

    def _change(self, text: str, sent: dict[str, Any]) -> str | None:
        """What is changed, in words; "" where it is changed already, None where nothing can be."""
        if "max_tokens" in sent and "max_tokens" in text:  # said otherwise, never left out: it is a limit of costs
            return self._rename("max_tokens", "max_completion_tokens")
        for name in ("temperature", "seed"):
            if name in sent and name in text:
                return self._drop(name)
        form = sent.get("response_format", {})
        words = ("response_format", "json_schema", "schema", "json_object")
        if form and any(word in text for word in words):
            if form["type"] == "json_schema":
                if self._plain_json:
                    return ""
                self._plain_json = True
                return "response_format json_schema: json_object"
            return self._drop("response_format")
        return None

    def _rename(self, name: str, other: str) -> str:
        if name in self._renamed:
            return ""
        self._renamed[name] = other
        return f"{name}: {other}"

    def _drop(self, name: str) -> str:
        if name in self._dropped:
            return ""
        self._dropped.add(name)
        return f"{name}: left out"


def oversized(text: str) -> bool:
    """Whether a refusal is about how much a question holds."""
    return any(words in text.lower() for words in _OF_SIZE)


def filtered(status: int, text: str) -> bool:
    """Whether a refusal is about what is in the question: another question may be answered."""
    return status in _REFUSING and any(words in text.lower() for words in _OF_CONTENT)


def without_thinking(text: str) -> str:
    """What a model says after it has thought aloud; empty where it never came to an end of thinking."""
    text = text.strip().lstrip("\ufeff").strip()
    if not text.startswith("<think>"):
        return text
    return text.rpartition("</think>")[2].strip() if "</think>" in text else ""


def read(content: dict[str, Any], thinking: bool = False) -> tuple[str, str, str, str]:
    """Text, fault, the server's name of the model and its reasoning where that is told apart, of a chat completion.

    The text may come as parts, behind a byte order mark, or after a `<think>` block, which is left out unless
    `thinking` is wanted. Raises `KeyError`, `TypeError` and the like for what is no chat completion.
    """
    choice = content["choices"][0]
    message = choice["message"]
    said = message.get("content")
    if isinstance(said, list):
        said = "".join(str(part.get("text") or "") for part in said if part.get("type") in ("text", "output_text"))
    said = _writable(said)
    text = said.strip().lstrip("\ufeff").strip() if thinking else without_thinking(said)
    model = _writable(content.get("model"))
    reasoning = _writable(message.get("reasoning_content") or message.get("reasoning")).strip()
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return text, "refused", model, reasoning
    if choice.get("finish_reason") == "length":
        return text, "cut off", model, reasoning
    return text, "" if text else "empty", model, reasoning


def counted(usage: Any) -> dict[str, int]:
    """The whole numbers of what a server says an answer took; some say "n/a", Infinity or tables of details."""
    said = usage.items() if isinstance(usage, dict) else ()
    numbers = {name: number for name, number in said if type(number) in (int, float) and 0 <= number < _MOST}
    return {name: int(number) for name, number in numbers.items() if number == int(number)}


def _writable(text: Any) -> str:
    """What a server says as text that files can hold: without half pairs of surrogates, where an answer was cut off."""
    return LONE_SURROGATE.sub("\ufffd", str(text or ""))
