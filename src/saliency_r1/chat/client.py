"""A client of the OpenAI chat protocol that keeps to a pace and a budget, tries again, and pays nothing twice.

    client = ChatClient(
        "Qwen/Qwen2.5-VL-72B-Instruct", 512, endpoint, Path("runs/annotate/answers"), "annotate.endpoint"
    )  # 512: tokens of an answer at most
    for reply in client.ask_all(questions):
        reply.text, reply.fault

Every answer is stored under the hash of its question as soon as it has come, and a run that was killed or repeated
reads it from there. An answer that is empty, cut off or a refusal is never stored. The key comes from the environment
variable OPENAI_API_KEY and is never written anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from PIL import Image

from saliency_r1.chat import connection, dialect
from saliency_r1.chat.errors import BudgetError, ChatError
from saliency_r1.params import Endpoint
from saliency_r1.runtime.files import write_json
from saliency_r1.runtime.replies import retry_after

Item = TypeVar("Item")
Result = TypeVar("Result")
_PASSING = frozenset({408, 409, 425, 429})  # what may go away by itself, as all but one from 500 on may
_MOVED = frozenset({307, 308})  # the same request elsewhere; the other redirects would drop its content
_LONGEST_WAIT = 60.0  # seconds
_LONGEST_LOOK = 15.0  # seconds until a server must have said that it is there
# Seconds between two looks whether somebody interrupts. Ctrl-C does not end a wait without end once polars is imported,
# whose handler has the system go on waiting.
_GLANCE = 0.5
_ASLEEP = frozenset({502, 503, 504})  # of a proxy or a server whose model is not there yet
_NOT_THERE = ". Does the address end as the server's own does, in /v1 with most, and has the server this model?"
_TOO_MUCH = ". Its images are more than the server takes: raise the server's limit, or make the images smaller"
_HELP = {404: _NOT_THERE, 405: _NOT_THERE, 413: _TOO_MUCH}


@dataclass(frozen=True)
class Question:
    """What is asked: text after images; `name` is how messages call it, `schema` the JSON that is wanted, if any.

    `thinking`: what the model thinks aloud before it answers is a part of the answer.
    """

    name: str
    text: str
    images: Sequence[Image.Image] = ()
    schema: dict[str, Any] | None = None
    seed: int = 0
    thinking: bool = False


@dataclass(frozen=True)
class Reply:
    """An answer. `fault` says why there is none to use: "empty", "cut off" or "refused"; else it is "".

    `model` is what the server calls itself, `reasoning` what it thought where the server tells this apart.
    """

    text: str
    fault: str = ""
    model: str = ""
    reasoning: str = ""
    usage: dict[str, Any] = field(default_factory=dict)


class ChatClient:
    """Asks an endpoint, several questions at a time, at a given pace, within a budget of requests, tokens and money.

    `section` is where the endpoint stands in the parameters; messages name its keys. Raises `ChatError` for a key, a
    proxy or an address that cannot be used.
    """

    def __init__(self, model: str, answer_tokens: int, options: Endpoint, cache: Path, section: str) -> None:
        self.model = model
        self.answer_tokens = answer_tokens
        self.options = options
        self.cache = cache
        self.section = section
        self.requests = 0
        self.tokens = 0
        self.cost = 0.0  # in the currency of `options.prices`
        self.dialect = dialect.Dialect()
        self._lock = threading.Lock()
        self._ended = threading.Event()  # nothing more is to be sent
        self._free_at = 0.0  # when the next request may start, in seconds of the monotonic clock
        self._counted = True  # whether the server has said what every answer took
        self._client = connection.connect(options.url, options.timeout, section)
        self._where = connection.where(options.url)

    def check(self) -> None:
        """Raise `ChatError` unless the server answers and takes the key: one small request, which costs nothing.

        Asked is the list of models. A server without one is there all the same, and many serve names that they do not
        list, so what the list holds is not judged.
        """
        where = f"{self._where} ({self.section}.url)"
        try:
            response = self._client.get("models", timeout=min(_LONGEST_LOOK, self.options.timeout))
        except httpx.HTTPError as error:
            unknown = "CERTIFICATE_VERIFY_FAILED" in str(error)
            advice = "SSL_CERT_FILE names certificates to believe" if unknown else "Start it, or name another"
            raise ChatError(f"no server answers at {where}: {error or type(error).__name__}. {advice}") from None
        if trouble := connection.key_trouble(response):
            raise ChatError(f"{where} {trouble}")
        if response.status_code in _ASLEEP:
            raise ChatError(f"{where} is not ready: status {response.status_code}. Run again when the server is well")

    def ask_all(self, questions: Sequence[Question]) -> list[Reply]:
        """Replies in order. Raises `ChatError` when the server gives none; what was answered is kept."""
        return self.at_once(self.ask, questions)

    def at_once(self, ask: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """What `ask`, which asks this client, returns for each item, in order; `concurrency` of them at a time.

        When one raises, or somebody interrupts, nothing more is sent and no pause is waited for. Questions on
        their way are paid for: their answers are waited for and kept.
        """
        pool = futures.ThreadPoolExecutor(self.options.concurrency)
        try:
            asked = [pool.submit(ask, item) for item in items]
            waiting = set(asked)
            while waiting:
                done, waiting = futures.wait(waiting, _GLANCE, futures.FIRST_EXCEPTION)
                for one in done:
                    one.result()  # raises what it has raised
            return [one.result() for one in asked]
        except BaseException as error:
            self._ended.set()
            if not isinstance(error, Exception):
                print("nothing more is asked; waiting for the answers that are on their way", file=sys.stderr)
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            self._ended.clear()

    def ask(self, question: Question) -> Reply:
        """The reply to a question, from the cache or from the server."""
        body = self._body(question)
        path = self._place(body)
        if reply := _kept(path):
            return reply
        reply = self._post(body, question)
        if not reply.fault:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = {"content": reply.text, "model": reply.model, "usage": reply.usage}
            write_json(path, content | ({"reasoning": reply.reasoning} if reply.reasoning else {}))
        return reply

    def known(self, question: Question) -> Reply | None:
        """The reply to a question that was asked before, if it was kept; nothing is sent."""
        return _kept(self._place(self._body(question)))

    def _place(self, body: dict[str, Any]) -> Path:
        asked = [str(self._client.base_url), body]  # many servers call whatever they serve by one name
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self.cache / digest[:2] / f"{digest}.json"

    def _body(self, question: Question) -> dict[str, Any]:
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _data_url(image)}} for image in question.images
        ]
        content.append({"type": "text", "text": question.text})
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.answer_tokens,
            "temperature": self.options.temperature,
            "seed": question.seed,
        }
        if question.schema is not None:
            form = {"name": "answer", "strict": True, "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body

    def _post(self, body: dict[str, Any], question: Question) -> Reply:
        """Ask until there is an answer, wait longer each time; what cannot go away by itself is an error."""
        address = "chat/completions"
        unusable: Reply | None = None
        attempt = 0
        while attempt <= self.options.retries:
            self._spend()
            self._keep_pace()
            wait = 0.0
            sent = self.dialect.spoken(body)
            try:
                response = self._client.post(address, json=sent)
                if response.status_code == httpx.codes.OK:
                    unusable = self._read(response, question.thinking)
                    if not self._may_differ(unusable.fault):
                        return unusable
                    fault = f"an answer that is {unusable.fault}"
                elif response.has_redirect_location:
                    address = self._moved(response)
                    fault = f"redirected to {address}"
                elif dialect.filtered(response.status_code, response.text):
                    return Reply("", "refused")
                elif self.dialect.learn(response.status_code, response.text, sent):
                    continue  # asked again without what the server does not know; that is no failure of its own
                elif not _may_pass(response.status_code):
                    advice = _TOO_MUCH if dialect.oversized(response.text) else _HELP.get(response.status_code, "")
                    raise ChatError(f"{self._where} refused {question.name}: {connection.status(response)}{advice}")
                else:
                    unusable, fault, wait = None, connection.status(response), retry_after(response) or 0.0
            except _Unreadable as error:
                unusable, fault = None, str(error)
            except httpx.HTTPError as error:
                unusable, fault = None, f"{type(error).__name__}: {error}"
            if attempt < self.options.retries and not fault.startswith("redirected"):
                self._pause(min(_LONGEST_WAIT, max(self.options.backoff * 2**attempt, wait)))
            attempt += 1
        if unusable is not None:
            return unusable
        raise ChatError(
            f"{self._where} gave no answer for {question.name} in {self.options.retries + 1} requests; the last "
            f"one: {fault}. Answers so far are kept; run again when the server is well"
        )

    def _may_differ(self, fault: str) -> bool:
        """Whether to ask again may bring another answer: a greedy one is cut off at the same place every time."""
        return fault == "empty" or (fault == "cut off" and self.options.temperature > 0)

    def _moved(self, response: httpx.Response) -> str:
        """Where the same request is wanted; `ChatError` where that is another server, or is no place for a request."""
        target = response.next_request.url if response.next_request else None
        here = response.request.url
        same = target and (target.scheme, target.host, target.port) == (here.scheme, here.host, here.port)
        if not same or response.status_code not in _MOVED:
            place = connection.shown(str(target)).removesuffix("/chat/completions") if target else "nowhere"
            raise ChatError(
                f"{self._where} redirects to {place} (status {response.status_code}); set {self.section}.url to the "
                "address that is meant to see your pictures"
            )
        return str(target)

    def _spend(self) -> None:
        """Count a request, or stop when the budget is spent."""
        with self._lock:
            if not self._counted:
                raise BudgetError(
                    f"{self.section}.max_tokens and max_cost cannot be kept: {self._where} does not say how many "
                    "tokens an answer took. Answers so far are kept; leave both out, and set max_requests instead"
                )
            for name, spent, limit in (
                ("max_requests", self.requests, self.options.max_requests),
                ("max_tokens", self.tokens, self.options.max_tokens),
                ("max_cost", self.cost, self.options.max_cost),
            ):
                if limit is not None and spent >= limit:
                    money = f", {self.cost:.4g} in money" if self.options.prices else ""
                    raise BudgetError(
                        f"{self.section}.{name} = {limit} is spent ({self.requests} requests, {self.tokens} "
                        f"tokens{money}); answers so far are kept: raise it and run again to go on"
                    )
            self.requests += 1

    def _keep_pace(self) -> None:
        """Wait for this request's turn; turns are `60 / requests_per_minute` seconds apart, so none come in a burst."""
        turn = now = time.monotonic()
        if self.options.requests_per_minute is not None:
            with self._lock:
                turn = max(self._free_at, now)
                self._free_at = turn + 60 / self.options.requests_per_minute
        self._pause(turn - now)

    def _pause(self, seconds: float) -> None:
        """Wait, unless the run ends: then this request is never sent, and `ChatError` says so to nobody."""
        if self._ended.wait(seconds):
            raise ChatError("not asked, because the run has ended")

    def _read(self, response: httpx.Response, thinking: bool) -> Reply:
        try:
            content = response.json()
            usage = dialect.counted(content.get("usage"))
            reply = dialect.read(content, thinking)
            self._count(usage)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise _Unreadable(f"not a chat completion ({connection.excerpt(response.text)})") from error
        return Reply(*reply, usage=usage)

    def _count(self, usage: dict[str, int]) -> None:
        """Add what an answer took to what is spent; without its tokens no budget of them can be kept."""
        parts = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
        tokens = usage.get("total_tokens") or parts
        with self._lock:
            self.tokens += tokens
            self.cost += cost(usage, self.options.prices)
            if (self.options.max_tokens and not tokens) or (self.options.max_cost and not parts):
                self._counted = False


def _may_pass(status: int) -> bool:
    """Whether a refusal may go away by itself; what stands before a server has numbers of its own, such as 524."""
    return status in _PASSING or (status >= 500 and status != httpx.codes.NOT_IMPLEMENTED)


def cost(usage: dict[str, Any], prices: tuple[float, ...] | None) -> float:
    """What a request cost, in the currency of `prices`: of a million tokens of the prompt, and of the answer."""
    if not prices:
        return 0.0
    counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    return sum(count * price for count, price in zip(counts, prices, strict=True)) / 1e6


def _kept(path: Path) -> Reply | None:
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Reply(kept["content"], "", kept.get("model", ""), kept.get("reasoning", ""), kept.get("usage", {}))
    except (ValueError, KeyError, TypeError):  # what a machine that went out has left: it is asked for again
        return None


class _Unreadable(Exception):
    """A reply with status 200 that is no chat completion."""


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
