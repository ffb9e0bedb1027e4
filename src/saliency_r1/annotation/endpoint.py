"""The annotator that asks a server that speaks the OpenAI chat protocol, such as vLLM or a commercial model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saliency_r1.annotation import prompting
from saliency_r1.annotation.interface import AnnotationError, Proposal, Try
from saliency_r1.chat import ChatClient, ChatError, Question, Reply
from saliency_r1.params import Endpoint

FAULTS = {
    "empty": "It was empty.",
    "cut off": "It was cut off; be shorter.",
    "refused": "It was a refusal.",
}


class EndpointAnnotator:
    """Asks an endpoint for annotations; how, and what is kept, is `ChatClient`'s."""

    def __init__(self, model: str, answer_tokens: int, options: Endpoint, cache: Path) -> None:
        try:
            self.client = ChatClient(model, answer_tokens, options, cache, "annotate.endpoint")
        except ChatError as error:
            raise AnnotationError(str(error)) from None

    def check(self) -> None:
        """Raise `AnnotationError` unless the server answers, before any work is done for it."""
        try:
            self.client.check()
        except ChatError as error:
            raise AnnotationError(f"{error}. Without a server: annotate.annotator = local or offline") from None

    def write(self, tries: Sequence[Try]) -> list[Proposal]:
        """Proposals in order; an answer that is no annotation is a fault, a server that gives none is an error."""
        try:
            replies = self.client.ask_all([_question(one) for one in tries])
        except ChatError as error:
            raise AnnotationError(str(error)) from None
        return [_read(reply, one) for reply, one in zip(replies, tries)]


def _question(one: Try) -> Question:
    return Question(
        one.subject.sample_id,
        prompting.prompt(one),
        prompting.outlined(one.subject),
        prompting.schema(one.subject),
        one.seed[0] + one.number,
    )


def _read(reply: Reply, one: Try) -> Proposal:
    return Proposal(fault=FAULTS[reply.fault]) if reply.fault else prompting.read(reply.text, one.subject)
