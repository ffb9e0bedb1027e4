"""A response as HTML: what the model wrote, escaped, with its tags coloured."""

from __future__ import annotations

import re

from markupsafe import Markup

_TAG = re.compile(r"(</?(?:think|answer|rg|ins)>)")


def highlight(text: str) -> Markup:
    """Mark tags and what stands in them. Total: any text gives well-formed HTML, however its tags are nested.

    Each run of text gets the class of the tag that was opened last and not yet closed.
    """
    html: list[Markup] = []
    opened: list[str] = []
    for part in _TAG.split(text):
        if not part:
            continue
        if not _TAG.fullmatch(part):
            kind = opened[-1] if opened else "text"
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
        html.append(Markup('<span class="tag {}{}">{}</span>').format(name, end, part))
    return Markup("").join(html)
