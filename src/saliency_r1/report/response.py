"""A response as HTML: what the model wrote, escaped, with its tags coloured."""

from __future__ import annotations

import re

from markupsafe import Markup

from saliency_r1.cot import REASONING, TAGS

_TAG = re.compile(rf"(</?(?:{'|'.join(dict.fromkeys((*REASONING, *TAGS)))})>)")
_KIND = dict.fromkeys(REASONING, REASONING[0])  # the class of a tag, where that is not its name


def highlight(text: str) -> Markup:
    """Mark tags and what stands in them. Total: any text gives well-formed HTML, however its tags are nested.

    Each run of text gets the class of the tag that was opened last and not yet closed; `<thinking>` has that of
    `<think>`.
    """
    html: list[Markup] = []
    opened: list[str] = []
    for part in _TAG.split(text):
        if not part:
            continue
        if not _TAG.fullmatch(part):
            kind = _kind(opened[-1]) if opened else "text"
            html.append(Markup('<span class="said {}">{}</span>').format(kind, part))
            continue
        name = part.strip("</>")
        closing = part.startswith("</")
        if closing and name in opened:
            while opened.pop() != name:
                pass
        elif not closing:
            opened.append(name)
        end = " end" if closing else ""
        html.append(Markup('<span class="tag {}{}">{}</span>').format(_kind(name), end, part))
    return Markup("").join(html)


def _kind(tag: str) -> str:
    return _KIND.get(tag, tag)
