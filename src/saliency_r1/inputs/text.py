"""Texts, lists and JSON as editors and spreadsheets save them."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import Any

from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import require_file, shown

# Half of a pair: no text in UTF-8 has one, and JSON can say one.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# UTF-32 before UTF-16, whose mark is the beginning of its own.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Asked in this order about a text that is not UTF-8: the ones that refuse most first.
_OTHERS = ("shift_jis", "euc_kr", "gb18030", "cp1252", "latin-1")


def read_text(path: Path) -> str:
    """A text in UTF-8, or in UTF-8, UTF-16 or UTF-32 with a byte order mark, which is taken off.

    Raises `InputError` for anything else, naming the encodings that it may be in; `OSError` as the system gives it.
    """
    require_file(path)
    return decode(path.read_bytes(), shown(path))


def decode(data: bytes, name: str) -> str:
    """`read_text` for bytes that came from the file `name`."""
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise InputError(f"{name}: begins as {encoding.upper()} and is not ({error}); save it as UTF-8") from None
        raise InputError(_remedy(data, name, error)) from None
    if "\0" in text:
        raise InputError(f"{name}: not a text in UTF-8 (it has NUL bytes; UTF-16 without its mark?); save it as UTF-8")
    return text


def read_json(path: Path, nan: bool = False) -> Any:
    """The value in a JSON file; its encoding as in `read_text`.

    Raises `InputError` for what is no JSON, for NaN and infinities (unless `nan` lets them pass, for a caller who can
    say where they stand), for a key that stands twice in one object, and for brackets nested beyond reason.
    """
    name = shown(path)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(items)
        if len(content) < len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"{name}: the key {twice!r} stands twice in one object; keep one")
        return content

    def constant(value: str) -> float:
        if nan:
            return float(value)
        raise InputError(f"{name}: {value} is no number that JSON knows; correct the entry")

    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{name}: not usable JSON, its brackets are nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{name}: not valid JSON ({error})") from None


def _remedy(data: bytes, name: str, error: UnicodeDecodeError) -> str:
    fitting = [encoding for encoding in _OTHERS if _fits(data, encoding)]
    names = " or ".join(encoding.replace("gb18030", "gbk").upper() for encoding in fitting)
    place = data.count(b"\n", 0, error.start) + 1
    return (
        f"{name}: not UTF-8 (line {place}); its encoding may be {names}: save it as UTF-8, "
        f"or `iconv -f {fitting[0].replace('gb18030', 'gbk').upper()} -t UTF-8`"
    )


def _fits(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
