"""The blocks of commands and code in the documentation, and what stands about each of them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1] / "docs"
_COMMAND = re.compile(
    r"(saliency-r1|dvc|python3?|pip|make|prefect|git|export|cp|vllm|docker|kubectl|torchrun|accelerate|mkdocs|gto) "
)
_CODE = re.compile(r"(from [\w.]+ import |import \w)")
_MARK = re.compile(r"\s*<!-- (run|not run: \S.*) -->$")
_FENCE = re.compile(r"(\s*)```(\w*)$")


class Block(NamedTuple):
    """A block: where it stands, its language (sh, python, yaml or none of them), its text and its mark."""

    page: str
    line: int
    language: str
    text: str
    mark: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """All blocks of a page, fenced and indented."""
    lines = page.read_text(encoding="utf-8").splitlines()
    name, number = page.relative_to(DOCS).as_posix(), 0
    while number < len(lines):
        start = number
        if fence := _FENCE.match(lines[number]):
            end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == "```")
            text = textwrap.dedent("\n".join(lines[start + 1 : end]))
            language = "sh" if fence[2] in ("sh", "bash", "console") else fence[2]
            yield Block(name, start + 1, language, text, _mark(lines, start))
            number = end + 1
        elif lines[number].startswith("    ") and (not start or not lines[start - 1].strip()):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                if _FENCE.match(lines[number]):
                    break
                number += 1
            text = textwrap.dedent("\n".join(lines[start:number])).strip("\n")
            yield Block(name, start + 1, _language(text), text, _mark(lines, start))
            number += number == start
        else:
            number += 1


def _mark(lines: list[str], start: int) -> str | None:
    """What the nearest line above a block that is not empty says of it, if it says something."""
    above = next((lines[n] for n in range(start - 1, -1, -1) if lines[n].strip()), "")
    found = _MARK.match(above)
    return found[1] if found else None


def _language(text: str) -> str:
    """What an indented block is, by its lines."""
    if any(_COMMAND.match(line) for line in text.splitlines()):
        return "sh"
    return "python" if any(_CODE.match(line) for line in text.splitlines()) else ""


def every_block() -> list[Block]:
    """All blocks of all pages."""
    return [block for page in sorted(DOCS.rglob("*.md")) for block in blocks(page)]
