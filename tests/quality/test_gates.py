"""The gates: every suite passes on a sound world, and every kind of defect is named with its samples."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from gate_tables import tables, write

from saliency_r1.params import Params, parse_params
from saliency_r1.quality import SUITES, GateError, check
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[2]
FIRST = pl.col("sample_id") == pl.col("sample_id").first()


@pytest.fixture(scope="module")
def params() -> Params:
    content = load_yaml(ROOT / "params.yaml")
    content["download"]["datasets"] = ["scenes-sod", "scenes-sis/test", "scenes-cosod"]
    content["cgpo"] |= {"updates": 3, "batch_size": 2, "warmup": 1}
    return parse_params(content)


@pytest.mark.parametrize("stage", SUITES)
def test_a_sound_table_passes_and_the_report_is_deterministic(stage: str, params: Params, tmp_path: Path) -> None:
    write(tables(params), tmp_path)
    report = check(stage, params, tmp_path)
    assert report["stage"] == stage
    assert report["rows"] == tables(params)[stage].height
    assert all(entry["unexpected"] == 0 for entry in report["expectations"])
    assert json.dumps(check(stage, params, tmp_path)) == json.dumps(report)


@pytest.mark.parametrize(("side", "most"), [(8, 64 / 63), (2, 4 / 3), (1, 1.0), (96, 9216 / 9215)])
def test_a_perfect_map_passes_whatever_its_size(side: int, most: float, params: Params, tmp_path: Path) -> None:
    """The E-measure of a perfect map of N pixels is N / (N - 1); what is above is wrong."""
    world = tables(params)
    world["download"] = world["download"].with_columns(
        pl.col("images").list.eval(pl.lit(side, pl.Int64)).alias(name) for name in ("height", "width")
    )
    sod = pl.col("task") == "sod"
    world["metrics"] = world["metrics"].with_columns(with_value("maxEm", most, sod))
    write(world, tmp_path)
    check("metrics", params, tmp_path)
    write({"metrics": world["metrics"].with_columns(with_value("maxEm", most * 1.011 + (side == 1), sod))}, tmp_path)
    with pytest.raises(GateError, match="maxEm: expected in"):
        check("metrics", params, tmp_path)


def with_value(column: str, value: object, rows: pl.Expr = FIRST) -> "pl.Expr":
    return pl.when(rows).then(pl.lit(value)).otherwise(column).alias(column)


def without(column: str) -> pl.Expr:
    """A list that the first sample has not; `with_value` cannot make one."""
    return pl.when(~FIRST).then(column).alias(column)


def with_a_null(column: str) -> pl.Expr:
    """A list as long as it was, whose entries the first sample has not."""
    nulls = pl.col(column).list.eval(pl.when(False).then(pl.element()))
    return pl.when(FIRST).then(nulls).otherwise(column).alias(column)


DEFECTS = {
    "null": ("sft", with_value("response", None), "response: expected never null", "scenes-sod/val/0000"),
    "range": ("sft", with_value("reward", 1.5), "reward: expected in [0, 1]", "scenes-sod/val/0000"),
    "task": ("download", with_value("task", "sot"), "task: expected one of cosod, sis, sod", "scenes-sod/train/0000"),
    "split": ("download", with_value("split", "dev"), "split: expected one of", "scenes-sod/train/0000"),
    "dataset": ("download", with_value("dataset", "new", pl.col("task") == "sis"), "dataset: ", "missing scenes-sis"),
    "confidence": ("cgpo", with_value("confidence", 0.0), "confidence: expected in (0, 1]", "(rollout 0)"),
    "advantage": ("cgpo", with_value("advantage", float("nan")), "finite: expected the advantage", "(rollout 0)"),
    "component": ("cgpo", with_value("reward_format", -0.1), "reward_format: expected in [0, 1]", "(rollout 0)"),
    "parse": ("masks", with_value("parsed", False, pl.col("model") == "cgpo"), "final_parsed: expected the", "cgpo: "),
    "consistency": ("annotate", with_value("consistency", 0.1, pl.col("task") == "sod"), "kept_consistency", "sod"),
    "kept": ("annotate", with_value("kept", False, pl.col("task") == "sod"), "kept: expected", "sod"),
    "form": ("annotate", with_value("response", "no tags"), "well_formed: expected a kept response parses", "sod"),
    "silence": ("annotate", pl.lit([], pl.List(pl.String)).alias("expressions"), "stated: expected a kept", "sod"),
    "surplus": ("annotate", with_value("objects", 0, pl.col("task") == "sis"), "stated: expected a kept", "sis"),
    "size": ("masks", pl.lit([9]).alias("height"), "sized: expected as large as the ground truth", "base: "),
    "no score": ("metrics", with_value("Sm", float("nan")), "Sm: expected in [0, 1]", "base: scenes-sod/test/0000"),
    "no error": ("metrics", with_value("MAE", float("nan")), "MAE: expected in [0, 1]", "base: scenes-sod/test/0000"),
    "no images": ("download", without("images"), "images: expected in [1, 4]", "scenes-sod/train/0000"),
    "no names": ("download", without("names"), "matched: expected as many", "scenes-sod/train/0000"),
    "no height": ("download", without("height"), "smallest_side: expected in", "scenes-sod/train/0000"),
    "no agreement": (
        "annotate",
        with_value("consistency", None, pl.col("kept")),
        "kept_consistency: ",
        "sod/train/0000",
    ),
    "no expressions": ("annotate", without("expressions"), "stated: expected a kept", "scenes-sod/train/0000"),
    "no maps": ("masks", without("names"), "named: expected one map an image", "base: scenes-sod/test/0000"),
    "no size": ("masks", without("width"), "sized: expected as large as", "base: scenes-sod/test/0000"),
    "no F": ("metrics", with_value("wFm", None), "complete: expected the measures", "base: scenes-sod/test/0000"),
    "a null image": ("download", with_a_null("images"), "matched: expected as many", "scenes-sod/train/0000"),
    "a null mask": ("download", with_a_null("masks"), "matched: expected as many", "scenes-sod/train/0000"),
    "a null name": ("download", with_a_null("names"), "matched: expected as many", "scenes-sod/train/0000"),
    "a null width": ("download", with_a_null("width"), "matched: expected as many", "scenes-sod/train/0000"),
    "a null expression": ("annotate", with_a_null("expressions"), "stated: expected a kept", "scenes-sod/train/0000"),
    "no JSON": ("download", with_value("meta", "{objects: 3}"), "described: expected meta", "scenes-sod/train/0000"),
    "no meta": ("download", with_value("meta", None), "described: expected meta", "scenes-sod/train/0000"),
    "meta of another sample": (
        "download",
        with_value("meta", '{"objects": [[], []]}', pl.col("task") == "sis"),
        "described: expected meta",
        "scenes-sis/train/0000",
    ),
    "objects that are none": (
        "download",
        with_value("meta", '{"objects": [[1]]}'),
        "described: expected meta",
        "scenes-sod/train/0000",
    ),
    "no number": ("cgpo", with_value("rollout_id", None), "in_turn: expected the rollouts", "train/0000 (rollout ?)"),
    "a number too large": (
        "cgpo",
        with_value("rollout_id", 6),
        "in_turn: expected",
        "scenes-sod/train/0000 (rollout 6)",
    ),
    "another update's": ("cgpo", with_value("update", 2), "in_turn: expected", "scenes-sod/train/0000 (rollout 0)"),
    "a number twice": ("cgpo", with_value("rollout_id", 1), "occurrences: expected in [1, 1], 3", "? (rollout 0)"),
    "an answer to another sample": (
        "sft",
        with_value("sample_id", "scenes-sod/val/0007"),
        "occurrences: expected in",
        "scenes-sod/val/0000",
    ),
    "of another split": (
        "cgpo",
        pl.col("sample_id").str.replace("/train/", "/test/"),
        "known: expected a sample of the download",
        "scenes-sod/test/0000",
    ),
    "annotation of another split": (
        "annotate",
        with_value("split", "train", pl.col("sample_id").str.contains("/val/0000")),
        "occurrences: expected in [1, 1]",
        "scenes-sod/val/0000",
    ),
    "annotation of nothing": ("annotate", with_value("sample_id", None), "task: expected never null", "a row without"),
    "map of another data set": ("masks", with_value("dataset", "new"), "occurrences: expected in", "base: scenes-sod"),
    "score of another task": ("metrics", with_value("task", "sis"), "occurrences: expected in", "base: scenes-sod"),
    "of another task": ("sft", with_value("task", "sis"), "occurrences: expected in", "scenes-sod/val/0000"),
    "unsure": (
        "masks",
        with_value("token_probability", float("nan")),
        "token_probability: expected in (0, 1]",
        "base: ",
    ),
    "no part": ("cgpo", with_value("reward_format", float("nan")), "reward_format: expected in [0, 1]", "(rollout 0)"),
    "no match": ("annotate", with_value("consistency", float("nan")), "consistency: expected in [0, 1]", "sod"),
    "measure": ("metrics", with_value("Sm", None), "complete: expected the measures", "base: scenes-sod/test/0000"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_named_with_column_expectation_and_samples(defect: str, params: Params, tmp_path: Path) -> None:
    stage, change, *words = DEFECTS[defect]
    world = tables(params)
    world[stage] = world[stage].with_columns(change)
    write(world, tmp_path)
    with pytest.raises(GateError) as raised:
        check(stage, params, tmp_path)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("stage", SUITES)
def test_a_table_without_rows_is_refused(stage: str, params: Params, tmp_path: Path) -> None:
    world = tables(params)
    write(world | {stage: world[stage].clear()}, tmp_path)
    with pytest.raises(GateError, match=f"the table of {stage} has no row"):
        check(stage, params, tmp_path)


def test_a_gate_of_annotations_says_what_helps(params: Params, tmp_path: Path) -> None:
    world = tables(params)
    world["annotate"] = world["annotate"].with_columns(pl.lit(False).alias("kept"))
    write(world, tmp_path)
    helps = {}
    for annotator in ("offline", "openai"):
        options = params.annotate.model_copy(update={"annotator": annotator})
        with pytest.raises(GateError) as raised:
            check("annotate", params.model_copy(update={"annotate": options}), tmp_path)
        helps[annotator] = str(raised.value)
    for words in ("annotate.threshold (0.7)", "checks.kept_share (0.85)", "annotate.attempts (3)", "saliency-r1 annot"):
        assert all(words in told for told in helps.values())
    assert "annotate.annotator: openai (a server) or local" in helps["offline"]
    assert f"annotate.vagueness: 0 ({params.annotate.vagueness:g} now)" in helps["offline"]
    assert "a better model than annotate.model = Qwen/Qwen2.5-VL-72B-Instruct" in helps["openai"]
    assert "vagueness" not in helps["openai"]
    world["annotate"] = tables(params)["annotate"].with_columns(pl.lit("no tags").alias("response"))
    write(world, tmp_path)
    with pytest.raises(GateError, match="well_formed") as raised:
        check("annotate", params, tmp_path)
    assert "What helps" not in str(raised.value), "a defect of another kind"


@pytest.mark.parametrize("stage", ["annotate", "sft", "cgpo", "masks", "metrics"])
@pytest.mark.parametrize("change", ["missing", "double"])
def test_every_expected_row_stands_once(stage: str, change: str, params: Params, tmp_path: Path) -> None:
    world = tables(params)
    whole = world[stage]
    world[stage] = whole[1:] if change == "missing" else pl.concat([whole, whole[:1]])
    write(world, tmp_path)
    with pytest.raises(GateError, match="occurrences: expected in") as raised:
        check(stage, params, tmp_path)
    number = f"{whole['sample_id'][0] if change == 'double' else '?'} (rollout 0)"
    assert (number if stage == "cgpo" else whole["sample_id"][0]) in str(raised.value)


def test_at_most_ten_samples_are_named(params: Params, tmp_path: Path) -> None:
    world = tables(params)
    world["download"] = world["download"].with_columns(task=pl.lit("sot"))
    write(world, tmp_path)
    with pytest.raises(GateError) as raised:
        check("download", params, tmp_path)
    (line,) = (line for line in str(raised.value).splitlines() if "task: expected" in line)
    assert line.count("scenes-") == 10
    assert line.endswith("and 8 more")


def test_a_missing_column_is_named(params: Params, tmp_path: Path) -> None:
    world = tables(params)
    write(world | {"sft": world["sft"].drop("reward")}, tmp_path)
    with pytest.raises(GateError, match="the table of sft has no column reward"):
        check("sft", params, tmp_path)


@pytest.mark.parametrize(
    ("stage", "change", "words"),
    [
        ("annotate", pl.col("kept").cast(pl.Int64), "kept holds Int64, expected Boolean"),
        ("download", pl.col("names").list.join(","), "names holds String, expected List(String)"),
        ("download", pl.col("height").cast(pl.List(pl.String)), "height holds List(String), expected List(Int64)"),
        ("cgpo", pl.col("reward").cast(pl.String), "reward holds String, expected Float64"),
        ("masks", pl.col("sample_id").cast(pl.Categorical), "sample_id holds Categorical, expected String"),
    ],
)
def test_a_column_of_another_type_is_named(
    stage: str, change: pl.Expr, words: str, params: Params, tmp_path: Path
) -> None:
    world = tables(params)
    world[stage] = world[stage].with_columns(change)
    write(world, tmp_path)
    with pytest.raises(GateError, match=rf"the table of {stage} has columns of another type") as raised:
        check(stage, params, tmp_path)
    assert words in str(raised.value)


def test_whole_numbers_and_columns_of_nulls_are_of_every_fitting_type(params: Params, tmp_path: Path) -> None:
    world = tables(params)
    world["sft"] = world["sft"].with_columns(reward=pl.lit(1))
    world["metrics"] = world["metrics"].with_columns(pl.col("instances").cast(pl.UInt32))
    write(world, tmp_path)
    for stage in ("sft", "metrics"):
        check(stage, params, tmp_path)
    write({"annotate": world["annotate"].with_columns(expressions=None)}, tmp_path)
    with pytest.raises(GateError, match="stated: expected a kept response"):
        check("annotate", params, tmp_path)


def test_the_stage_writes_its_report_only_if_the_gate_is_met(params: Params, tmp_path: Path) -> None:
    world = tables(params)
    write(world, tmp_path / "artifacts")
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    command = [sys.executable, str(ROOT / "stages" / "check.py"), "sft"]
    report = tmp_path / "artifacts" / "checks" / "sft.json"

    subprocess.run(command, cwd=tmp_path, check=True)
    assert json.loads(report.read_text())["rows"] == world["sft"].height

    report.unlink()
    write({"sft": world["sft"].with_columns(reward=pl.lit(7.0))}, tmp_path / "artifacts")
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1
    assert not report.exists()
    assert "reward: expected in [0, 1], 6 of 6 rows fail: " in failed.stderr
    assert "scenes-sod/val/0000" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_importing_the_package_imports_no_great_expectations() -> None:
    code = "import sys, saliency_r1.quality; sys.exit('great_expectations' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
