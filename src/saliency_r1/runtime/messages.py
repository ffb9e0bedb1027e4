"""What a person reads: text that cannot disturb a terminal or a table, and what an error was about."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterator

# Controls (line ends and escape codes among them), halves of a pair, line and paragraph separators.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Characters that turn the direction of the text after them, and the byte order mark.
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def printable(text: object, keep: str = "") -> str:
    """The text with every character that is not to be seen written as its escape, `\\n` or `\\x1b`, but those to keep.

    A file's name or a model's answer then stays on one line, and neither clears a screen nor ends a table.
    """
    return "".join(
        repr(character)[1:-1] if character not in keep and _hidden(character) else character for character in str(text)
    )


def _hidden(character: str) -> bool:
    return character in _TURNS or unicodedata.category(character) in _CONTROLS


@contextlib.contextmanager
def about(what: object) -> Iterator[None]:
    """Note on an error inside the block what it was about, for those who report it: a file, a sample."""
    try:
        yield
    except Exception as error:
        error.add_note(printable(what))
        raise
