"""Who answers: a policy in this process, or a model behind a server; the two are asked the same.

Four things can keep an answer from being one, and are never mixed up. *Transport*: there is no answer, the run is not
complete and nothing is scored. *Refused* and *truncated*: there is one, and it is of no use; its maps are empty.
*Unparsed*: it does not keep to the form; its maps are empty as well.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from saliency_r1.benchmark.lenient import declines
from saliency_r1.benchmark.prompts import Prompts, Row
from saliency_r1.chat import BudgetError, ChatClient, ChatError, Question, Reply
from saliency_r1.runtime.files import write_json

if TYPE_CHECKING:  # what a run would cost is said without torch
    from saliency_r1.policy import Policy
    from saliency_r1.rollout.environment import Environment

Fault = Literal["", "refused", "truncated"]
_FAULTS: dict[str, Fault] = {"refused": "refused", "cut off": "truncated"}
PATIENCE = 10  # questions in a row without an answer, after which no further one is asked


@dataclass(frozen=True)
class Said:
    """An answer: its words, what is wrong with it if anything, and what else is known of how it came about.

    `model` is the name that the server gave itself; `token_probability` is known in process alone.
    """

    text: str
    fault: Fault = ""
    model: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    token_probability: float | None = None

    @property
    def scored(self) -> str:
        """The words that are scored: none of an answer that is refused or truncated."""
        return "" if self.fault else self.text


Keep = Callable[[Row, Said], None]


class Speaker(Protocol):
    """Answers the prompts of samples."""

    def answer(self, rows: Sequence[Row], keep: Keep) -> list[str]:
        """Hand every answer to `keep` as soon as it is there; return why answers are missing, empty if none is."""


class InProcess:
    """A policy in this process, greedy; `probabilities`: how sure it was is measured too."""

    def __init__(self, policy: Policy, prompts: Prompts, environment: Environment, probabilities: bool = False) -> None:
        self.policy = policy
        self.prompts = prompts
        self.environment = environment
        self.probabilities = probabilities

    def answer(self, rows: Sequence[Row], keep: Keep) -> list[str]:
        """See `Speaker`; a failure of the model raises."""
        from saliency_r1.rollout.confidence import token_probabilities

        size = self.environment.batch_size
        for first in range(0, len(rows), size):
            part = rows[first : first + size]
            prompts = [self.policy.prompt(self.prompts.images(row), self.prompts.text(row)) for row in part]
            responses = self.environment.respond(self.policy, prompts)
            sure: list[float | None] = [None] * len(part)
            if self.probabilities:
                sure = list(token_probabilities(self.policy, prompts, responses, size))
            for row, response, probability in zip(part, responses, sure, strict=True):
                # As it comes from a server: without the white space around it.
                text = response.text.strip()
                keep(row, _judged(text, "" if response.ended else "truncated", token_probability=probability))
        return []


class Served:
    """A model behind a server that speaks the chat protocol."""

    def __init__(self, client: ChatClient, prompts: Prompts) -> None:
        self.client = client
        self.prompts = prompts

    def question(self, row: Row) -> Question:
        """What is asked about a sample."""
        return Question(row["sample_id"], self.prompts.text(row), self.prompts.images(row), thinking=True)

    def answer(self, rows: Sequence[Row], keep: Keep) -> list[str]:
        """See `Speaker`. Raises `BudgetError` where the budget is spent; what was answered until then is kept."""
        lost: list[str] = []
        silent = 0
        lock = threading.Lock()

        def ask(row: Row) -> None:
            nonlocal silent
            with lock:
                if silent >= PATIENCE:
                    lost.append(f"{row['sample_id']} was not asked, {PATIENCE} in a row had no answer")
                    return
            try:
                reply = self.client.ask(self.question(row))
            except BudgetError:
                raise
            except ChatError as error:
                with lock:
                    silent += 1
                    lost.append(str(error))
                return
            keep(row, said(reply))
            with lock:
                silent = 0

        self.client.at_once(ask, rows)
        return lost


def said(reply: Reply) -> Said:
    """A server's reply as an answer; an empty one is an answer that does not parse.

    Servers take the reasoning out of an answer and tell it beside it. It is put back where the model wrote it; so is
    the tag that a template has opened the reasoning with.
    """
    text = reply.text
    if "</think>" in text and "<think" not in text:
        text = f"<think>{text}"
    if text and reply.reasoning and "<think" not in text:
        text = f"<think>{reply.reasoning}</think>{text}"
    return _judged(text, _FAULTS.get(reply.fault, ""), reply.model, reply.usage)


def _judged(text: str, fault: Fault, *more: Any, **named: Any) -> Said:
    return Said(text, fault or ("refused" if declines(text) else ""), *more, **named)


class Journal:
    """The answers of a run that is not complete, one file each: what was paid for is not asked again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, row: Row, answer: Said) -> None:
        """Write an answer down, whole or not at all."""
        write_json(self._path(row), asdict(answer))

    def find(self, row: Row) -> Said | None:
        """The answer to a sample, if there is one."""
        path = self._path(row)
        return Said(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def forget_faults(self, rows: Sequence[Row]) -> None:
        """Take out what is of no use, once a run is complete: the next one asks again."""
        for row in rows:
            if (answer := self.find(row)) and (answer.fault or not answer.text):
                self._path(row).unlink()

    def _path(self, row: Row) -> Path:
        return self.folder / f"{hashlib.sha256(row['sample_id'].encode()).hexdigest()[:24]}.json"
