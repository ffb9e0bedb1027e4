"""The metrics stage's library: complete or refused, right, and the same with any number of workers."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from report.world import MODELS, download, predict

from saliency_r1.evaluation.results import Settings, evaluate_folders
from saliency_r1.evaluation.split import (
    Evaluation,
    EvaluationError,
    bootstrap_mean,
    compare_rewards,
    evaluate,
)
from saliency_r1.metrics import s_measure
from saliency_r1.report.tables import markdown

IDENTITY = ["sample_id", "task", "dataset", "split"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    download(root, 3)
    predict(root)
    return root


@pytest.fixture(scope="module")
def evaluation(world: Path) -> Evaluation:
    return evaluate(world / "download", world / "masks", "test", list(MODELS))


def test_every_prediction_has_a_row_with_the_measures_of_its_task(evaluation: Evaluation) -> None:
    table = evaluation.table
    assert table.columns[:6] == [*IDENTITY, "model", "name"]
    assert len(table) == 3 * 2 * (3 + 3 + 9)
    assert table.unique(["model", "dataset", "name"]).height == len(table)
    sis = table.filter(task="sis")
    assert sis["Sm"].null_count() == len(sis)
    assert sis["instances"].to_list() == [2] * len(sis)
    assert table.filter(pl.col("task") != "sis")["Sm"].null_count() == 0


def test_values_are_means_over_images_and_finite(evaluation: Evaluation) -> None:
    rows = evaluation.table.filter(model="sft", dataset="scenes-cosod")
    values = evaluation.metrics["sft"]["scenes-cosod"]
    assert values["Sm"] == pytest.approx(rows["Sm"].mean(), abs=1e-6)
    assert values["samples"] == 3
    for datasets in evaluation.metrics.values():
        for measures in datasets.values():
            assert all(math.isfinite(value) and round(value, 6) == value for value in measures.values())


def test_a_row_is_the_measure_of_the_file(evaluation: Evaluation, world: Path) -> None:
    from PIL import Image

    row = evaluation.table.filter(model="cgpo", dataset="scenes-sod").row(0, named=True)
    map_ = np.array(Image.open(world / "masks/maps/cgpo/scenes-sod" / f"{row['name']}.png"))
    truth = np.array(Image.open(world / "download/datasets/scenes-sod/test/masks" / f"{row['name']}.png"))
    assert row["Sm"] == pytest.approx(s_measure(map_, truth))


def test_intervals_hold_their_values(evaluation: Evaluation) -> None:
    for model, datasets in evaluation.intervals.items():
        for dataset, intervals in datasets.items():
            assert {"reward", "AP50" if "sis" in dataset else "Sm"} <= set(intervals)
            for measure in ("reward", "AP50", "Sm"):
                if measure in intervals:
                    low, high = intervals[measure]
                    assert low <= evaluation.metrics[model][dataset][measure] <= high


def test_workers_change_nothing_and_files_are_the_same_every_time(world: Path, tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        evaluate(world / "download", world / "masks", "test", ["cgpo"], workers).write(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert {Path("metrics.json"), Path("intervals.json"), Path("comparison.json"), Path("curves.csv")} <= set(files)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_curves_have_256_thresholds_of_every_model_and_set_of_maps(evaluation: Evaluation) -> None:
    assert evaluation.curves.columns == ["model", "dataset", "threshold", "precision", "recall", "F"]
    assert len(evaluation.curves) == 256 * 3 * 4


def test_the_comparison_is_paired() -> None:
    rng = np.random.default_rng(0)
    ids = [f"scenes-sod/test/{number}" for number in range(50)]
    before = rng.random(50)
    rows = [
        {
            "sample_id": name,
            "unit": name,
            "task": "sod",
            "dataset": "scenes-sod",
            "model": model,
            "reward": float(value + gain),
        }
        for model, gain in (("sft", 0.0), ("cgpo", 0.01))
        for name, value in zip(ids, before)
    ]
    shuffled = pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=0)
    scopes = compare_rewards(shuffled, ["sft", "cgpo"])["cgpo_over_sft"]
    assert list(scopes) == ["overall", "sod", "scenes-sod"]
    assert scopes["overall"] == {
        "samples": 50,
        "before": round(float(before.mean()), 6),
        "after": round(float(before.mean()) + 0.01, 6),
        "difference": 0.01,
        "low": 0.01,
        "high": 0.01,
    }


def test_a_bootstrap_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = bootstrap_mean(values, [str(number) for number in range(400)])
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_what_rises_and_falls_together_is_drawn_together() -> None:
    """Eight parts of one group say hardly more than one of them: the interval is that of the 50 groups."""
    of_group = np.random.default_rng(1).normal(0.5, 0.1, 50)
    groups = [f"scenes-cosod/group{number}" for number in range(50)]
    whole = bootstrap_mean(of_group, groups)
    assert bootstrap_mean(np.repeat(of_group, 8), np.repeat(groups, 8)) == pytest.approx(whole)
    alone = bootstrap_mean(np.repeat(of_group, 8), [str(number) for number in range(400)])
    assert whole[1] - whole[0] > 2 * (alone[1] - alone[0])


def test_one_unit_has_no_interval() -> None:
    values = np.random.default_rng(1).random(6)
    assert bootstrap_mean(values, ["group"] * 6) is None
    rows = {"sample_id": ["a"], "unit": ["a"], "task": ["sod"], "dataset": ["one"], "reward": [0.5]}
    both = pl.concat([pl.DataFrame(rows | {"model": [model]}) for model in ("sft", "cgpo")])
    for gain in compare_rewards(both, ["sft", "cgpo"])["cgpo_over_sft"].values():
        assert set(gain) == {"samples", "before", "after", "difference"}
    assert "difference +0.000 (paired over 1 samples)" in markdown([], compare_rewards(both, ["sft", "cgpo"]))


def test_the_reward_of_a_group_counts_once(world: Path, tmp_path: Path) -> None:
    """Cut into two samples a group, the interval of the reward stays; over samples it would shrink."""
    samples = pl.read_parquet(world / "download/table.parquet")
    cosod = (pl.col("dataset") == "scenes-cosod") & (pl.col("split") == "test")
    halves = [
        samples.filter(cosod).with_columns(
            pl.format("{}-" + part, "sample_id").alias("sample_id"),
            *(pl.col(key).list.slice(*where) for key in ("images", "masks", "names", "height", "width")),
        )
        for part, where in (("01", (0, 2)), ("02", (2, 1)))
    ]
    shutil.copytree(world / "download/datasets", tmp_path / "download/datasets")
    pl.concat(halves).write_parquet(tmp_path / "download/table.parquet")
    masks = copy(world, tmp_path)
    answers = pl.read_parquet(masks / "table.parquet").filter(dataset="scenes-cosod")
    pl.concat(
        [answers.with_columns(pl.format("{}-" + part, "sample_id").alias("sample_id")) for part in ("01", "02")]
    ).write_parquet(masks / "table.parquet")
    whole = evaluate(world / "download", world / "masks", "test", ["sft"]).intervals["sft"]["scenes-cosod"]
    cut = evaluate(tmp_path / "download", masks, "test", ["sft"]).intervals["sft"]["scenes-cosod"]
    assert cut == whole


def test_the_stage_and_the_command_score_alike(evaluation: Evaluation, world: Path) -> None:
    """The same maps and instances through both: every number they share is equal."""
    for task in ("sod", "cosod", "sis"):
        dataset = f"scenes-{task}"
        pred = world / "masks" / ("instances/cgpo/scenes-sis.json" if task == "sis" else f"maps/cgpo/{dataset}")
        result = evaluate_folders(pred, world / f"download/datasets/{dataset}/test/masks", Settings(task))
        stage = evaluation.metrics["cgpo"][dataset]
        assert {key: round(value, 6) for key, value in result.measures.items()}.items() <= stage.items()
        intervals = evaluation.intervals["cgpo"][dataset]
        for key, interval in result.intervals.items():
            assert intervals[key] == [round(value, 6) for value in interval]


def test_a_data_set_without_any_instance_has_counts_and_no_average_precision(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "download", tmp_path / "download")
    masks = copy(world, tmp_path)
    truths = tmp_path / "download/datasets/scenes-sis/test/masks"
    for path in truths.glob("*.png"):
        Image.fromarray(np.zeros_like(np.array(Image.open(path)))).save(path)
    measures = evaluate(tmp_path / "download", masks, "test", ["cgpo"]).metrics["cgpo"]["scenes-sis"]
    assert measures["instances"] == 0
    assert measures["detections"] > 0
    assert not [key for key in measures if key.startswith("AP")]
    result = evaluate_folders(masks / "instances/cgpo/scenes-sis.json", truths, Settings("sis"))
    assert result.counts == {"instances": 0, "detections": measures["detections"]}
    assert result.intervals == {}
    assert all(math.isnan(value) for value in result.measures.values())
    assert len(result.rows) == result.images == 3


def copy(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world / "masks", tmp_path / "masks")
    return tmp_path / "masks"


def test_a_missing_row_is_an_error(world: Path, tmp_path: Path) -> None:
    masks = copy(world, tmp_path)
    table = pl.read_parquet(masks / "table.parquet")
    table.filter(~((pl.col("model") == "sft") & (pl.col("sample_id") == "scenes-sod/test/0001"))).write_parquet(
        masks / "table.parquet"
    )
    with pytest.raises(EvaluationError, match="sft: 1 missing predictions: scenes-sod/test/0001"):
        evaluate(world / "download", masks, "test", list(MODELS))


def test_a_double_row_is_an_error(world: Path, tmp_path: Path) -> None:
    masks = copy(world, tmp_path)
    table = pl.read_parquet(masks / "table.parquet")
    pl.concat([table, table.head(1)]).write_parquet(masks / "table.parquet")
    with pytest.raises(EvaluationError, match="base: 1 double predictions"):
        evaluate(world / "download", masks, "test", list(MODELS))


def test_a_missing_map_is_an_error(world: Path, tmp_path: Path) -> None:
    masks = copy(world, tmp_path)
    (masks / "maps/sft/scenes-cosod/group1/2.png").unlink()
    with pytest.raises(EvaluationError, match="sft has no map for group1/2 of scenes-cosod"):
        evaluate(world / "download", masks, "test", ["sft"])


def test_instances_of_an_unknown_image_are_an_error(world: Path, tmp_path: Path) -> None:
    masks = copy(world, tmp_path)
    path = masks / "instances/cgpo/scenes-sis.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, rows[0] | {"image_id": "elsewhere"}]))
    with pytest.raises(ValueError, match="elsewhere"):
        evaluate(world / "download", masks, "test", ["cgpo"])
