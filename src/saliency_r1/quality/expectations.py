"""The vocabulary of the suites: expectations about columns, as plain values that import nothing heavy."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Expectation:
    """One expectation: whom it concerns, in words, and the Great Expectations class with its arguments."""

    column: str
    text: str
    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A flat table (no lists, one column `id` that names a row to a person) and what is expected of it."""

    rows: pl.DataFrame
    expectations: list[Expectation]


def not_null(*columns: str) -> list[Expectation]:
    """Every row has a value."""
    return [Expectation(column, "never null", "ExpectColumnValuesToNotBeNull") for column in columns]


def unique(column: str) -> Expectation:
    """No value stands in two rows."""
    return Expectation(column, "unique", "ExpectColumnValuesToBeUnique")


def one_of(column: str, values: Iterable[str], share: float = 1.0) -> Expectation:
    """Only words of a vocabulary, in at least a share of the rows."""
    words = sorted(values)
    return Expectation(column, f"one of {', '.join(words)}{_in(share)}", "ExpectColumnValuesToBeInSet",
                       {"value_set": words, "mostly": share})  # fmt: skip


def true(column: str, text: str, share: float = 1.0) -> Expectation:
    """A yes-or-no column (nulls do not count) is yes, in at least a share of the rows."""
    return Expectation(column, f"{text}{_in(share)}", "ExpectColumnValuesToBeInSet",
                       {"value_set": [True], "mostly": share})  # fmt: skip


def between(
    low: float | None, high: float | None, *columns: str, above: bool = False, share: float = 1.0
) -> list[Expectation]:
    """Numbers (nulls do not count) between two bounds, the lower one excluded if `above`."""
    opening = "(" if above else "["
    text = f"in {opening}{'-inf' if low is None else f'{low:g}'}, {'inf' if high is None else f'{high:g}'}]{_in(share)}"
    arguments = {"min_value": low, "max_value": high, "strict_min": above, "mostly": share}
    return [Expectation(column, text, "ExpectColumnValuesToBeBetween", arguments) for column in columns]


def covers(column: str, values: Collection[str]) -> Expectation:
    """Every one of the values stands somewhere in the column."""
    words = sorted(values)
    return Expectation(column, f"has {', '.join(words)}", "ExpectColumnDistinctValuesToContainSet",
                       {"value_set": words})  # fmt: skip


def _in(share: float) -> str:
    return "" if share == 1 else f" in at least {share:.1%} of the rows"
