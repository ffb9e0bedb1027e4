"""Run a suite with Great Expectations and turn its result into a small deterministic report, or into an error."""

import gc
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import polars.selectors as cs

from saliency_r1.params import Params
from saliency_r1.quality.expectations import Expectation, Suite
from saliency_r1.quality.suites import COLUMNS, SUITES, remedy

SHOWN_IDS = 10


class GateError(ValueError):
    """A table that does not meet its suite; the message names column, expectation and sample ids.

    `report` is what `check` would have returned, each expectation with its `complaint`, empty where it is met;
    None where the table could not be asked.
    """

    def __init__(self, message: str, report: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.report = report


def check(stage: str, params: Params, artifacts: Path = Path("artifacts")) -> dict[str, Any]:
    """Check the table of a stage and return the report; raise `GateError` if an expectation fails.

    The report has no times and no paths, so equal tables give equal bytes:
    `{"stage", "rows", "expectations": [{"column", "expectation", "rows", "unexpected"}]}`.
    """
    table, samples = (_read(name, artifacts) for name in (stage, "download"))
    if table.is_empty():
        raise GateError(f"the table of {stage} has no row; its stage was to do something: what it printed says what")
    suite = SUITES[stage](table, samples, params)
    results = run(suite)
    failures = [complaint for _, complaint in results if complaint]
    if failures:
        lines = "\n".join(f"  {failure}" for failure in failures)
        help_ = remedy(stage, [entry["column"] for entry, complaint in results if complaint], params)
        raise GateError(
            f"{len(failures)} of {len(results)} expectations about the table of {stage} failed\n{lines}"
            f"{chr(10) if help_ else ''}{help_}",
            {
                "stage": stage,
                "rows": table.height,
                "expectations": [{**entry, "complaint": complaint} for entry, complaint in results],
            },
        )
    return {"stage": stage, "rows": table.height, "expectations": [entry for entry, _ in results]}


def _read(stage: str, artifacts: Path) -> pl.DataFrame:
    """The table of a stage with columns of the types that its suite asks; `GateError` where they are others."""
    table, wanted = pl.read_parquet(artifacts / stage / "table.parquet"), COLUMNS[stage]
    if missing := [column for column in wanted if column not in table.columns]:
        raise GateError(f"the table of {stage} has no column {', '.join(missing)}")
    there = table.schema
    if wrong := [column for column, kind in wanted.items() if not _fits(there[column], kind)]:
        said = (f"{column} holds {there[column]}, expected {wanted[column]}" for column in wrong)
        raise GateError(f"the table of {stage} has columns of another type: {'; '.join(said)}")
    return table.with_columns(pl.col(column).cast(kind) for column, kind in wanted.items())


def _fits(found: Any, kind: Any) -> bool:
    """Whether a column of one type stands for one of another: a whole number is a number, nulls have no type."""
    if isinstance(found, pl.List) and isinstance(kind, pl.List):
        return _fits(found.inner, kind.inner)
    number = found.is_integer() if kind.is_integer() else kind.is_float() and found.is_numeric()
    return found in (pl.Null, kind) or number


def run(suite: Suite) -> list[tuple[dict[str, Any], str]]:
    """Validate a suite: for each expectation its entry in the report and a complaint, empty if it is met."""
    gx = _great_expectations()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    # It takes NaN for a missing value, which no bounds complain about. Infinity is outside of all of them.
    rows = suite.rows.with_columns(cs.float().fill_nan(float("inf")), pl.col("id").fill_null("a row without a name"))
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": rows.to_pandas()})
    known = gx.ExpectationSuite(name="suite")
    for number, expectation in enumerate(suite.expectations):
        build = getattr(gx.expectations, expectation.kind)
        known.add_expectation(
            build(column=expectation.column, **expectation.arguments, meta={"number": number}, severity="critical")
        )
    validated = batch.validate(
        known, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]}
    )
    # Results come grouped by column; the report keeps the order in which the suite is written.
    results: dict[int, Any] = {}
    for result in validated.results:
        assert result.expectation_config is not None
        results[result.expectation_config.meta["number"]] = result
    return [_judge(expectation, results[number]) for number, expectation in enumerate(suite.expectations)]


def _great_expectations() -> ModuleType:
    """Great Expectations: three seconds, for which only a process that checks pays.

    It would be longer by a tenth if the collector searched what the import makes, which all stays, for garbage.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    gc.disable()
    try:
        import great_expectations
    finally:
        gc.enable()
    return great_expectations


def _judge(expectation: Expectation, result: Any) -> tuple[dict[str, Any], str]:
    """The report entry of one expectation and, if it failed, the complaint about it."""
    found = result.result
    unexpected = found.get("unexpected_count", 0)
    entry = {
        "column": expectation.column,
        "expectation": expectation.text,
        "rows": found.get("element_count", 0),
        "unexpected": unexpected,
    }
    if result.success:
        return entry, ""
    complaint = f"{expectation.column}: expected {expectation.text}"
    if raised := result.exception_info.get("exception_message"):
        return entry, f"{complaint}, which could not be checked: {raised}"
    if not unexpected:
        return entry, f"{complaint}, missing {', '.join(sorted(map(str, found.get('partial_missing_list') or '?')))}"
    ids = list(dict.fromkeys(str(row["id"]) for row in found.get("unexpected_index_list") or ()))
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return entry, f"{complaint}, {unexpected} of {entry['rows']} rows fail: {', '.join(ids[:SHOWN_IDS])}{more}"
