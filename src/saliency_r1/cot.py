"""The textual interface of the policy: render and parse `<think>`, `<answer>`, `<rg>` and `<ins>`.

    <think>reasoning</think><answer><rg>the red car at the left</rg></answer>

Regions (`rg`) answer SOD and CoSOD, instances (`ins`) answer SIS. Where nothing stands out the answer of SOD and SIS is
empty, `<answer></answer>`; an image of a CoSOD group without the shared object has an empty tag, `<rg></rg>`. Source:
arXiv 2511.00396 for the tags; the grammar around them is this project's. Some models do not write `<think>` as text
when they are told to, but do write `<thinking>`: it is read as the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = {"sod": "rg", "sis": "ins", "cosod": "rg"}
REASONING = ("think", "thinking")
TAGS = (REASONING[0], "answer", *dict.fromkeys(KINDS.values()))  # those that are asked for
_OPENING = re.compile(rf"<({'|'.join(REASONING)})>")
_CLOSING = "</answer>"
_TURN = {tag: re.compile(rf"</{tag}>\s*<answer>") for tag in REASONING}
_EXPRESSION = re.compile(r"\s*<(?P<kind>rg|ins)>(?P<text>[^<>]*)</(?P=kind)>\s*")
_STRUCTURE = re.compile(rf"</?({'|'.join(REASONING)}|answer)>")


@dataclass(frozen=True)
class Expression:
    """A tagged referring expression: its kind, the index of the image it speaks of, and its text."""

    kind: str
    image: int
    text: str


@dataclass(frozen=True)
class Parsed:
    """What a response says: one expression each for what it names, none where it says that nothing stands out.

    `expressions` is empty as well when there are `errors`; such a response scores 0.
    """

    reasoning: str
    expressions: tuple[Expression, ...]
    errors: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the response follows the grammar."""
        return not self.errors


def render(reasoning: str, expressions: Sequence[Expression]) -> str:
    """The response that says `expressions` after `reasoning`; the inverse of `parse` for well-formed content.

    An expression without text is an empty tag, the place of a CoSOD image in which the shared object is not.
    """
    answer = "".join(f"<{item.kind}>{item.text}</{item.kind}>" for item in expressions)
    return f"<think>{reasoning}</think><answer>{answer}</answer>"


def parse(text: str, task: str, images: int = 1) -> Parsed:
    """Read a response to a prompt of `task` with `images` images. Total: it never raises, it lists the errors.

    SOD and SIS take any number of expressions, all about image 0; CoSOD wants exactly one tag for each image, in order,
    and those with text in them are its expressions. The time grows with the length of the text, whatever is in it.
    """
    halves = _halves(text)
    if halves is None:
        return Parsed("", (), ("expected <think>...</think><answer>...</answer> and nothing else",))
    reasoning, answer = halves
    errors = []
    if not reasoning:
        errors.append("no reasoning between <think> and </think>")
    elif _STRUCTURE.search(reasoning):
        errors.append("nested <think> or <answer>")
    found = []
    position = 0
    while match := _EXPRESSION.match(answer, position):
        found.append((match["kind"], " ".join(match["text"].split())))
        position = match.end()
    if position != len(answer) and answer[position:].strip():
        errors.append(f"expected tagged expressions only, found {answer[position : position + 40]!r}")
    kind, grouped = KINDS[task], task == "cosod"
    if not grouped and any(not content for _, content in found):
        errors.append("an empty expression")
    if wrong := sorted({used for used, _ in found if used != kind}):
        errors.append(f"expected <{kind}>, found <{wrong[0]}>")
    if grouped and len(found) != images:
        errors.append(f"expected one expression for each of {images} images, found {len(found)}")
    if errors:
        return Parsed(reasoning, (), tuple(errors))
    said = (Expression(kind, index if grouped else 0, content) for index, (_, content) in enumerate(found) if content)
    return Parsed(reasoning, tuple(said), ())


def _halves(text: str) -> tuple[str, str] | None:
    """Reasoning and answer, or None without the frame around them.

    The reasoning ends at the first place where an answer follows it, the answer at the end of the text: two searches,
    where one pattern for the whole would try every end of the one with every end of the other.
    """
    body = text.strip()
    opening = _OPENING.match(body)
    if opening is None or not body.endswith(_CLOSING):
        return None
    turn = _TURN[opening[1]].search(body, opening.end(), len(body) - len(_CLOSING))
    if turn is None:
        return None
    return body[opening.end() : turn.start()].strip(), body[turn.end() : -len(_CLOSING)]


def answer_start(text: str) -> int:
    """Offset in `text` at which the answer begins (its length if there is none): reasoning before, answer after."""
    position = text.find("<answer>")
    return len(text) if position < 0 else position
