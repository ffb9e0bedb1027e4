"""The metrics stage's library: complete or refused, right, and the same with any number of workers."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from report.world import MODELS, download, predict

from saliency_r1.evaluation.split import (
    Evaluation,
    EvaluationError,
    bootstrap_mean,
    compare_rewards,
    evaluate,
)
from saliency_r1.metrics import s_measure

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
    assert Path("curves/scenes-sod/cgpo.csv") in files
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
        {"sample_id": name, "task": "sod", "dataset": "scenes-sod", "model": model, "reward": float(value + gain)}
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
    low, high = bootstrap_mean(values)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


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
