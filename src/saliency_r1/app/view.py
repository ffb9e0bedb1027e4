"""An answer as HTML: reasoning, coloured expressions, and their masks on the pictures; all words are escaped."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from saliency_r1.app.turns import MOST_EXPRESSIONS, Turn
from saliency_r1.report.pictures import jpeg_uri, outline

# Told apart on photographs, and dark enough for white letters.
COLOURS = ("#d9480f", "#1971c2", "#2b8a3e", "#9c36b5", "#c2255c", "#0b7285", "#5f3dc4", "#846358")
_SIDE = 1024  # longer sides are shown smaller


def style() -> str:
    """The style sheet of the answers: `answer.css`, and one rule an expression that shows its mask alone."""
    css = Path(__file__).with_name("answer.css").read_text(encoding="utf-8")
    pointed = (
        f".sr1:has(.e{n}:hover, .e{n}:focus) .mask:not(.m{n}) {{ opacity: 0; }}\n"
        f".sr1:has(.e{n}:hover, .e{n}:focus) .m{n} .shade {{ opacity: 1; }}\n"
        f".sr1:has(.m{n}:hover) .e{n} {{ outline: 2px solid var(--c); outline-offset: 2px; }}"
        for n in range(MOST_EXPRESSIONS)
    )
    return css + "\n".join(pointed)


def show(turn: Turn) -> str:
    """The answer: every word of the model in escaped text, every mask as a path over its picture."""
    grouped = turn.task == "cosod"
    said = Markup("").join(
        Markup('<span class="said e{}" tabindex="0" style="--c: {}">{}{}</span>').format(
            index,
            _colour(index),
            Markup("<small>{}</small> ").format(turn.uploads[item.image].name) * grouped,
            item.text,
        )
        for index, item in enumerate(turn.answer.expressions)
    )
    if turn.answer.errors:
        words = Markup('<p class="wrong">The response does not parse: {}</p><pre>{}</pre>').format(
            "; ".join(turn.answer.errors), turn.answer.text
        )
    else:
        words = Markup('<p class="think">{}</p><p class="answer">{}</p>').format(
            turn.answer.reasoning, said or "Nothing stands out."
        )
    scenes = Markup("").join(_scene(turn, index) for index in range(len(turn.uploads)))
    how = " · worded by hand" if turn.edited else ""
    if turn.answer.attempts > 1:
        how = f" · asked {turn.answer.attempts} times, for an answer that parses"
    head = Markup('<p class="who"><b>{}</b>{}</p>').format(turn.model, how)
    return str(Markup('<div class="sr1">{}{}<div class="scenes">{}</div></div>').format(head, words, scenes))


def hint() -> str:
    """What stands where an answer will be."""
    return '<div class="sr1"><p class="who">The answer will stand here, and its masks on the picture.</p></div>'


def complain(message: str) -> str:
    """An error as HTML, escaped."""
    return str(Markup('<div class="sr1"><p class="wrong">{}</p></div>').format(message))


def _scene(turn: Turn, image: int) -> Markup:
    """One picture with the masks of what is said of it."""
    name, picture = turn.uploads[image]
    width, height = picture.size
    frame = f"M0 0H{width}V{height}H0Z"
    masks = []
    for index, (item, segment) in enumerate(zip(turn.answer.expressions, turn.segments, strict=True)):
        if item.image == image:
            path = outline(segment.mask)
            masks.append(
                Markup(
                    '<g class="mask m{}" style="--c: {}"><title>{}</title><path class="shade" d="{}{}"/>'
                    '<path class="fill" d="{}"/></g>'
                ).format(index, _colour(index), f"{item.text} ({segment.score:.2f})", frame, path, path)
            )
    return Markup(
        '<figure><svg viewBox="0 0 {} {}" preserveAspectRatio="xMinYMin" role="img" aria-label="{}">'
        '<image width="{}" height="{}" href="{}"/>{}</svg><figcaption>{}</figcaption></figure>'
    ).format(width, height, name, width, height, jpeg_uri(picture, _SIDE), Markup("").join(masks), name)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
