"""The annotator that asks a server: anything that speaks the OpenAI chat protocol, such as vLLM or a commercial model.

Nothing is paid for twice: every answer is stored under the hash of prompt, images, model and parameters as soon as it
has come, and a run that was killed or repeated reads it from there. The key comes from the environment variable
OPENAI_API_KEY and is never written anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from saliency_r1.annotation import prompting
from saliency_r1.annotation.interface import AnnotationError, Proposal, Try
from saliency_r1.params import Endpoint
from saliency_r1.runtime.files import write_json

KEY = "OPENAI_API_KEY"
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # what may go away by itself
_LONGEST_WAIT = 60.0  # seconds


class EndpointAnnotator:
    """Asks an endpoint, several samples at a time, at a given pace, within a budget of requests and of tokens."""

    def __init__(self, model: str, answer_tokens: int, options: Endpoint, cache: Path) -> None:
        self.model = model
        self.answer_tokens = answer_tokens
        self.options = options
        self.cache = cache
        self.requests = 0
        self.tokens = 0
        self._lock = threading.Lock()
        self._free_at = 0.0  # when the next request may start, in seconds of the monotonic clock
        key = os.environ.get(KEY)
        self._client = httpx.Client(
            base_url=options.url.rstrip("/") + "/",
            timeout=options.timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    def write(self, tries: Sequence[Try]) -> list[Proposal]:
        """Proposals in order; an answer that is no annotation is a fault, a server that gives none is an error."""
        with ThreadPoolExecutor(self.options.concurrency) as pool:
            answers = [pool.submit(self._answer, one) for one in tries]
            try:
                return [prompting.read(answer.result(), one.subject) for answer, one in zip(answers, tries)]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _answer(self, one: Try) -> str:
        """The text of the answer to a try, from the cache or from the server."""
        body = self._body(one)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        path = self.cache / digest[:2] / f"{digest}.json"
        if path.exists():
            return str(json.loads(path.read_text(encoding="utf-8"))["content"])
        reply = self._post(body, one.subject.sample_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, reply)
        return str(reply["content"])

    def _body(self, one: Try) -> dict[str, Any]:
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _data_url(image)}} for image in prompting.outlined(one.subject)
        ]
        content.append({"type": "text", "text": prompting.prompt(one)})
        form = {"name": "annotation", "strict": True, "schema": prompting.schema(one.subject)}
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.answer_tokens,
            "temperature": self.options.temperature,
            "seed": one.seed[0] + one.number,
            "response_format": {"type": "json_schema", "json_schema": form},
        }

    def _post(self, body: dict[str, Any], sample_id: str) -> dict[str, Any]:
        """Ask until there is an answer, wait longer each time; what cannot go away by itself ends the stage."""
        for attempt in range(self.options.retries + 1):
            self._spend()
            self._keep_pace()
            try:
                response = self._client.post("chat/completions", json=body)
                if response.status_code == httpx.codes.OK:
                    return self._reply(response)
                fault = f"status {response.status_code}"
                if response.status_code not in _PASSING:
                    raise AnnotationError(f"{self.options.url} refused {sample_id}: {fault}: {_excerpt(response.text)}")
                wait = _retry_after(response)
            except (httpx.TransportError, _Unreadable) as error:
                fault, wait = f"{type(error).__name__}: {error}", None
            if attempt < self.options.retries:
                time.sleep(min(_LONGEST_WAIT, self.options.backoff * 2**attempt if wait is None else wait))
        raise AnnotationError(
            f"{self.options.url} gave no answer for {sample_id} in {self.options.retries + 1} requests; the last one: "
            f"{fault}. Answers so far are kept; run again when the server is well"
        )

    def _spend(self) -> None:
        """Count a request, or stop when the budget is spent."""
        with self._lock:
            for name, spent, limit in (
                ("max_requests", self.requests, self.options.max_requests),
                ("max_tokens", self.tokens, self.options.max_tokens),
            ):
                if limit is not None and spent >= limit:
                    raise AnnotationError(
                        f"annotate.endpoint.{name} = {limit} is spent ({self.requests} requests, {self.tokens} "
                        "tokens); answers so far are kept: raise it and run again to go on"
                    )
            self.requests += 1

    def _keep_pace(self) -> None:
        """Wait for this request's turn; turns are `60 / requests_per_minute` seconds apart, so none come in a burst."""
        if self.options.requests_per_minute is None:
            return
        with self._lock:
            turn = max(self._free_at, time.monotonic())
            self._free_at = turn + 60 / self.options.requests_per_minute
        time.sleep(max(0.0, turn - time.monotonic()))

    def _reply(self, response: httpx.Response) -> dict[str, Any]:
        try:
            content = response.json()
            usage = content.get("usage") or {}
            reply = {"content": str(content["choices"][0]["message"]["content"] or ""), "usage": usage}
            with self._lock:
                self.tokens += int(usage.get("total_tokens") or 0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise _Unreadable(f"not a chat completion ({_excerpt(response.text)})") from error
        return reply


class _Unreadable(Exception):
    """A reply with status 200 that is no chat completion."""


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds that a server asks to wait for, if it does so in seconds."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _excerpt(text: str) -> str:
    """The beginning of a reply on one line, without the key, should a server echo it."""
    line = " ".join(text.split())[:200]
    key = os.environ.get(KEY)
    return line.replace(key, "***") if key else line
