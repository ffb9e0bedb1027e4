"""The textual interface of the policy: render and parse `<think>`, `<answer>`, `<rg>` and `<ins>`.

    <think>reasoning</think><answer><rg>the red car at the left</rg></answer>

Regions (`rg`) answer SOD and CoSOD, instances (`ins`) answer SIS. Source: arXiv 2511.00396 for the tags; the grammar
around them is this project's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = {"sod": "rg", "sis": "ins", "cosod": "rg"}
_RESPONSE = re.compile(r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL)
_EXPRESSION = re.compile(r"\s*<(?P<kind>rg|ins)>(?P<text>[^<>]*)</(?P=kind)>\s*")
_STRUCTURE = re.compile(r"</?(think|answer)>")


@dataclass(frozen=True)
class Expression:
    """A tagged referring expression: its kind, the index of the image it speaks of, and its text."""

    kind: str
    image: int
    text: str


@dataclass(frozen=True)
class Parsed:
    """What a response says. `expressions` is empty when there are `errors`; such a response scores 0."""

    reasoning: str
    expressions: tuple[Expression, ...]
    errors: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the response follows the grammar."""
        return not self.errors


def render(reasoning: str, expressions: Sequence[Expression]) -> str:
    """The response that says `expressions` after `reasoning`; the inverse of `parse` for well-formed content."""
    answer = "".join(f"<{item.kind}>{item.text}</{item.kind}>" for item in expressions)
    return f"<think>{reasoning}</think><answer>{answer}</answer>"


def parse(text: str, task: str, images: int = 1) -> Parsed:
    """Read a response to a prompt of `task` with `images` images. Total: it never raises, it lists the errors.

    SOD and SIS want one expression or more, all about image 0; CoSOD wants exactly one for each image, in order.
    """
    match = _RESPONSE.fullmatch(text)
    if match is None:
        return Parsed("", (), ("expected <think>...</think><answer>...</answer> and nothing else",))
    reasoning, answer = match["think"].strip(), match["answer"]
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
    kind = KINDS[task]
    if not found:
        errors.append("no expression in the answer")
    if any(not content for _, content in found):
        errors.append("an empty expression")
    if wrong := sorted({used for used, _ in found if used != kind}):
        errors.append(f"expected <{kind}>, found <{wrong[0]}>")
    if task == "cosod" and found and len(found) != images:
        errors.append(f"expected one expression for each of {images} images, found {len(found)}")
    if errors:
        return Parsed(reasoning, (), tuple(errors))
    expressions = (Expression(kind, index if task == "cosod" else 0, said) for index, (_, said) in enumerate(found))
    return Parsed(reasoning, tuple(expressions), ())


def answer_start(text: str) -> int:
    """Offset in `text` at which the answer begins (its length if there is none): reasoning before, answer after."""
    position = text.find("<answer>")
    return len(text) if position < 0 else position
