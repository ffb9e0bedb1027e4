"""The one YAML loader of the project, for files that people write: parameters and catalogues.

YAML 1.1 as PyYAML's safe loader reads it, with these differences: `1e-05` is a float; a key given twice, a key that is
no text, nesting and aliases without measure, a value that is not what its tag or its form says, and numbers of another
base (`010`, `1:30`) are errors that name the place.
"""

from __future__ import annotations

import re
import stat
from collections import Counter
from pathlib import Path
from typing import IO, Any

import yaml

DEEPEST = 50  # mappings and sequences inside of one another
LARGEST = 100_000  # values of a document, those that aliases repeat counted every time


# 010 is eight and 1:30 is ninety in YAML 1.1, ten and a text in YAML 1.2, which DVC reads.
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+$|[\d_]+:)")


class YamlError(ValueError):
    """A YAML file that cannot be used; the message names the file, the place and what to do."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with a measure on what it takes."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise YamlError(f"more than {DEEPEST} mappings or lists inside of one another{_place(self.peek_event())}")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Before merging, which lets a key of the mapping itself come before one that is merged into it.
        keys = [str(key.value) for key, _ in node.value if not key.tag.endswith(":merge")]
        if twice := sorted(key for key, count in Counter(keys).items() if count > 1):
            raise YamlError(f"the key {', '.join(twice)[:100]} stands twice in one mapping{_place(node)}")
        mapping = super().construct_mapping(node, deep)
        for key in mapping:
            if not isinstance(key, str):
                kind = type(key).__name__
                raise YamlError(f"the key {key!r:.60} is read as {kind}, keys are text: put it in quotes{_place(node)}")
        return mapping

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if (
            isinstance(node, yaml.ScalarNode)
            and node.tag.endswith((":int", ":float"))
            and _OTHER_BASE.match(node.value)
        ):
            base = "60" if ":" in node.value else "8"
            raise YamlError(f"{node.value[:60]} is a number of base {base} in YAML 1.1{_place(node)}; write it plainly")
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            if isinstance(error, YamlError):
                raise
            kind = node.tag.rpartition(":")[2]
            raise YamlError(f"{str(node.value)[:60]!r} is no {kind}{_place(node)}; text stands in quotes") from None


# PyYAML takes a number in exponent form for text when it has no point or no sign in the exponent, and `dvc exp run -S
# cgpo.lr=1e-5` writes exactly that.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_yaml(source: Path | str | IO[str]) -> Any:
    """Read one YAML document from a path or an open file.

    Raises `YamlError`, with the name of the file, for everything that is wrong with its content, and `OSError` as the
    file system gives it.
    """
    name = source if isinstance(source, (str, Path)) else getattr(source, "name", "the document")
    try:
        text = _bytes(Path(source)).decode("utf-8-sig") if isinstance(source, (str, Path)) else source.read()
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()  # type: ignore[no-untyped-call]
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise YamlError(
            f"{name} is not UTF-8 (byte 0x{byte:02x} at {error.start}); save it with that encoding"
        ) from None
    except YamlError as error:
        raise YamlError(f"{name}: {error}") from None
    except yaml.YAMLError as error:
        raise YamlError(f"{name} is not valid YAML: {error}") from None


def _bytes(path: Path) -> bytes:
    """The content of a file; a folder, a pipe or a device is refused and never opened: it may have no end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise YamlError("a folder, a pipe or a device, expected a file")
    return path.read_bytes()


def _measure(node: yaml.Node) -> None:
    """Refuse a document whose aliases repeat more than anybody writes, or contain themselves."""
    sizes: dict[int, int] = {}

    def size(one: yaml.Node) -> int:
        if id(one) in sizes:
            return sizes[id(one)]
        sizes[id(one)] = LARGEST + 1  # met again before it is known: it contains itself
        parts = [part for pair in one.value for part in pair] if isinstance(one, yaml.MappingNode) else one.value
        total = 1 + (sum(map(size, parts)) if isinstance(one, yaml.CollectionNode) else 0)
        sizes[id(one)] = total
        if total > LARGEST:
            raise YamlError(f"more than {LARGEST:,} values, counting what aliases repeat{_place(one)}")
        return total

    size(node)


def _place(what: Any) -> str:
    mark = getattr(what, "start_mark", None)
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
