"""What an answer means that does not keep to the form: read with good will, and counted apart.

The strict score takes an answer by the letter of the contract (`cot.parse`). The lenient one forgives what says nothing
about saliency: `<thinking>`, code fences, prose around the tags, reasoning that is missing, an answer that is not
closed, the tag of the other task. It never guesses: without a tag there is no expression.
"""

from __future__ import annotations

import re

from saliency_r1 import cot

_FENCE = re.compile(r"```[\w-]*")
_TAG = re.compile(r"<(?P<kind>rg|ins)>(?P<text>[^<>]*)</(?P=kind)>", re.IGNORECASE)
_ANY_TAG = re.compile(r"</?\w*>")
_THINKING = re.compile(r"<(/?)thinking>", re.IGNORECASE)
_NOTHING = re.compile(r"<answer>\s*</answer>", re.IGNORECASE)
_DECLINED = re.compile(
    r"\W*(i['’]?m (really )?(sorry|unable)|i am (sorry|unable)|sorry|i (can['’]?t|cannot|can not|won['’]?t))\b", re.I
)


def lenient(text: str, task: str, images: int) -> str:
    """The answer in the strict form where its meaning can be read, else as it is."""
    if cot.parse(text, task, images).ok:
        return text
    body = _THINKING.sub(r"<\1think>", _FENCE.sub("", text))
    thought, closed, said = body.rpartition("</think>")
    if not closed:
        said = body
    before, opened, inside = said.rpartition("<answer>")
    answer = inside.partition("</answer>")[0] if opened else said
    found = [" ".join(match["text"].split()) for match in _TAG.finditer(answer)]
    if task == "cosod":
        readable = len(found) == images
    else:
        found = [phrase for phrase in found if phrase]
        readable = bool(found) or bool(_NOTHING.search(said))
    if not readable:
        return text
    why = " ".join(_ANY_TAG.sub(" ", thought or before).split()) or "No reason is given."
    kind, grouped = cot.KINDS[task], task == "cosod"
    expressions = [cot.Expression(kind, place if grouped else 0, phrase) for place, phrase in enumerate(found)]
    return cot.render(why, expressions)


def declines(text: str) -> bool:
    """Whether an answer without a tag begins as refusals do."""
    return not _TAG.search(text) and bool(_DECLINED.match(text.rpartition("</think>")[2].strip()))
