"""The columns of the stages' tables, as docs/architecture.md lists them."""

import re
from collections.abc import Iterable
from pathlib import Path

import polars as pl

PAGE = Path(__file__).parents[1] / "docs/architecture.md"
TYPES = {"str": pl.String, "i64": pl.Int64, "f64": pl.Float64, "bool": pl.Boolean, "list[str]": pl.List(pl.String),
         "list[int]": pl.List(pl.Int64)}  # fmt: skip
COMPONENT = "reward_<component>"


def listed(stage: str) -> dict[str, str]:
    """The type of every column by its name; "" where the page names none."""
    (head,) = re.findall(r"^\| stage \| columns beside `(.*)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    (row,) = re.findall(rf"^\| {stage} \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    code = ",".join([head, *re.findall(r"`([^`]*)`", re.sub(r"\([^()]*\)", "", row))])
    parts = (part.strip().partition(": ") for part in code.split(",") if part.strip())
    return {name: kind for name, _, kind in parts}


def assert_columns(stage: str, names: Iterable[str]) -> None:
    """A table has all the columns that the page lists for its stage, and no other."""
    expected = set(listed(stage))
    found = set(names)
    if COMPONENT in expected:
        components = {name for name in found if name.startswith("reward_")}
        assert components
        found = found - components | {COMPONENT}
    assert found == expected


def assert_table(stage: str, table: pl.DataFrame) -> None:
    """So it has, and of the types that stand there; a column of nothing but nulls, or empty lists, has none."""
    assert_columns(stage, table.columns)
    typed = {name: TYPES[kind] for name, kind in listed(stage).items() if kind}
    nothing = (pl.Null, pl.List(pl.Null))
    wrong = {name: table.schema[name] for name, kind in typed.items() if table.schema[name] not in (kind, *nothing)}
    assert not wrong
