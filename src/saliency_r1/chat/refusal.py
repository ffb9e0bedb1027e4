"""What a server says of a request that it refuses: its own words and the fields that it names, never the request.

Many servers send the request back within their refusal. It holds the name of every field and the whole question, so
only the places are read where servers say what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

_REFUSING = frozenset({400, 422, 501})
_PLACES = ("error", "errors", "detail", "message", "msg", "innererror", "metadata", "raw")  # of words, at any depth
_CODES = ("code", "type", "status")
# Where a text goes on with the request, as pydantic's errors do once they are text: vLLM sends them so.
_ECHO = re.compile(r"""['"]input['"]\s*:|input_value=""")
# Of one question that is too long, not of a field: what it names are the numbers that do not fit.
_OF_SIZE = ("too large", "too long", "maximum context", "context length", "context window", "input tokens")
_OF_CONTEXT = _OF_SIZE[2:]
# Of one question, by what is in it: Azure's and OpenAI's words, and Alibaba's.
_OF_CONTENT = ("content_filter", "content_policy", "responsibleaipolicy", "data_inspection", "datainspection")
_LIMITS = ("max_tokens", "max_completion_tokens")
_DEEPEST = 8  # errors within errors


@dataclass
class Refusal:
    """A refusal with its `status`, `words`, `codes`, and the `places` in the request that it names, outermost first."""

    status: int
    words: str = ""
    codes: list[str] = field(default_factory=list)
    places: list[list[str]] = field(default_factory=list)

    @property
    def of_field(self) -> bool:
        """Whether it may be about a field, which can be said in another way."""
        return self.status in _REFUSING and not self.oversized

    @property
    def oversized(self) -> bool:
        """Whether it is about how much a question holds, or its answer may hold."""
        return any(words in self.words.lower() for words in _OF_SIZE)

    @property
    def of_answer(self) -> bool:
        """Whether it is about how long the answer may become, whatever the question holds."""
        fits = not any(words in self.words.lower() for words in _OF_CONTEXT)
        return self.oversized and fits and any(self.names(limit, _LIMITS) for limit in _LIMITS)

    @property
    def filtered(self) -> bool:
        """Whether it is about what is in the question: another question may be answered."""
        said = " ".join([self.words, *self.codes]).lower()
        return self.status in _REFUSING and any(words in said for words in _OF_CONTENT)

    def names(self, name: str, sent: Collection[str], words: Collection[str] = ()) -> bool:
        """Whether a field is refused, of those that were `sent`; `words` are further ones for it.

        The server's words count only where it does not name a field apart.
        """
        named = {next((part for part in place if part in sent), None) for place in self.places} - {None}
        return name in named if named else any(word in self.words for word in (name, *words))


def read_refusal(status: int, text: str) -> Refusal:
    """The refusal in a reply: of JSON the places where servers say what is wrong, else the whole text."""
    refusal = Refusal(status)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = text
    _gather(content, refusal, _DEEPEST)
    return refusal


def _gather(content: Any, refusal: Refusal, depth: int) -> None:
    if isinstance(content, str):
        refusal.words = f"{refusal.words} {_ECHO.split(content, maxsplit=1)[0]}".strip()
    elif isinstance(content, list) and depth:
        for entry in content:
            _gather(entry, refusal, depth - 1)
    elif isinstance(content, dict) and depth:
        refusal.codes += [content[key] for key in _CODES if isinstance(content.get(key), str)]
        param, loc = content.get("param"), content.get("loc")
        if isinstance(param, str):
            refusal.places.append(re.split(r"[.\[]", param))
        if isinstance(loc, list):
            refusal.places.append([str(part) for part in loc])
        for key in _PLACES:
            _gather(content.get(key), refusal, depth - 1)
