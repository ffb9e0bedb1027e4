"""What the site takes from the code: a line `<!-- commands -->` or `<!-- parameters -->` becomes its reference."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with its marks replaced; MkDocs calls this for every page."""
    for mark, lines in (("commands", commands), ("parameters", parameters)):
        if f"<!-- {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- {mark} -->", "\n".join(lines()))
    return markdown


def commands() -> Iterator[str]:
    """Every command of `saliency-r1` with its arguments and options."""
    import typer.main

    from saliency_r1.cli.app import app

    yield from _command(typer.main.get_command(app), ["saliency-r1"])


def _command(command: Any, path: list[str]) -> Iterator[str]:
    if below := getattr(command, "commands", None):
        for name, inner in below.items():
            yield from _command(inner, [*path, name])
        return
    yield f"## {' '.join(path)}\n\n{command.help or ''}\n"
    yield "| argument or option | meaning | default |\n|---|---|---|"
    for option in command.params:
        if option.name == "help":
            continue
        name = ", ".join(option.opts) if option.param_type_name == "option" else str(option.name).upper()
        default = "" if option.default is None or option.default is False or option.required else str(option.default)
        yield f"| `{name}` | {_cell(getattr(option, 'help', '') or '')} | {f'`{default}`' if default else ''} |"
    yield ""


def parameters() -> Iterator[str]:
    """Every key of params.yaml: its type, the embedded default, and the comment that stands beside it."""
    from saliency_r1.params import describe_params, load_params

    settings, notes = load_params(ROOT / "params.yaml").model_dump(), comments(ROOT / "params.yaml")
    section = ""
    for key, kind in describe_params().items():
        first = key.partition(".")[0] if "." in key else "shared"
        if first != section:
            section = first
            yield f"\n## {section}\n\n| key | type | embedded default | |\n|---|---|---|---|"
        shown = f"`{_cell(_value(settings, key))}`"
        yield f"| `{key}` | {_cell(kind)} | {shown} | {_cell(notes.get(key, ''))} |"


def comments(path: Path) -> dict[str, str]:
    """The comment beside each key of a params file, by the key's full name."""
    found, parents = {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"( *)(\w+):(.*)$", line):
            depth = len(match[1]) // 2
            parents[depth:] = [match[2]]
            _, mark, note = match[3].partition(" #")
            if mark:
                found[".".join(parents)] = note.strip()
    return found


def _value(settings: Any, key: str) -> str:
    for part in key.split("."):
        if settings is None:
            return "null"
        settings = settings[part]
    if settings is None:
        return "null"
    if isinstance(settings, tuple):
        return ", ".join(map(str, settings)) or "[]"
    return str(settings)


def _cell(text: str) -> str:
    """Text that does not end a cell of a table, nor begin a tag."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;")
