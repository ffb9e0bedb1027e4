import json

import numpy as np
import polars as pl
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from saliency_r1 import names
from saliency_r1.cli.evaluate import evaluate
from saliency_r1.evaluation import published

app = typer.Typer()
app.command()(evaluate)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def folders(tmp_path):
    """Two methods on four masks in two groups; the second method is worse."""
    rng = np.random.default_rng(0)
    for name in ("x/a", "x/b", "y/a", "y/b"):
        mask = np.zeros((20, 30), np.uint8)
        mask[4:12, rng.integers(2, 8) : 20] = 255
        for folder, values in (("gt", mask), ("good", mask), ("bad", np.roll(mask, 6, 1))):
            path = tmp_path / folder / "set" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return tmp_path


def test_a_data_set_of_another_task_is_refused(folders):
    pred, gt = (folders / name / "set" for name in ("good", "gt"))
    result = run("--pred", pred, "--gt", gt, "--dataset", "CoCA")
    assert result.exit_code == 1
    assert "CoCA is a cosod data set: --task cosod" in result.output
    result = run("--pred", pred, "--gt", gt, "--dataset", "PASCAL-S", "--task", "sis")
    assert "PASCAL-S is a sod data set: --task sod" in result.output
    result = run("--pred", pred, "--gt", gt, "--dataset", "SOC", "--task", "sis")
    assert "holds 4 images, the data set has 600" in " ".join(result.output.split())


def test_everything_at_once(folders):
    pred, compare, gt = (folders / name / "set" for name in ("good", "bad", "gt"))
    files = {kind: folders / f"out.{kind}" for kind in ("json", "html", "parquet")}
    options = [part for kind, path in files.items() for part in (f"--{kind}", path)]
    plot = folders / "curves.png"
    result = run(
        "--pred", pred, "--gt", gt, "--task", "cosod", "--compare", compare, *options, "--plot", plot, "--bootstrap", 50
    )
    assert result.exit_code == 0, result.output
    assert "good: 4 images, protocol pysodmetrics" in result.output
    assert "by group" in result.output

    content = json.loads(files["json"].read_text())
    good, bad = content["results"]
    assert good["measures"]["Sm"] == pytest.approx(1)
    assert content["comparison"]["Sm"]["value"] == pytest.approx(bad["measures"]["Sm"] - good["measures"]["Sm"])
    assert set(good["groups"]) == {"x", "y"}
    assert len(good["curves"]["precision"]) == 256
    rows = pl.read_parquet(files["parquet"])
    assert rows["result"].to_list() == ["good"] * 4 + ["bad"] * 4
    assert set(rows["name"]) == {"x/a", "x/b", "y/a", "y/b"}
    page = files["html"].read_text()
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")
    assert Image.open(plot).size[0] > 500


def test_problems_end_as_one_message(folders):
    (folders / "good/set/x/a.png").unlink()
    arguments = ("--pred", folders / "good/set", "--gt", folders / "gt/set", "--task", "cosod", "--bootstrap", 0)
    result = run(*arguments)
    assert result.exit_code == 1
    assert "1 missing: x/a" in result.output
    assert "Traceback" not in result.output
    result = run(*arguments, "--missing", "zero")
    assert result.exit_code == 0
    assert "1 predictions scored as empty maps" in result.output
    result = run(*arguments, "--missing", "zero", "--dataset", "CoCA")
    assert "holds 4 ground truths, the data set has 1295" in result.output


def test_instances_from_folders(folders):
    for mask in folders.rglob("*.png"):
        Image.fromarray((np.asarray(Image.open(mask)) > 0).astype(np.uint8)).save(mask)
    pred, gt = folders / "good/set", folders / "gt/set"
    result = run(
        "--pred", pred, "--gt", gt, "--task", "sis", "--score-source", "constant", "--compare", folders / "bad/set"
    )
    assert result.exit_code == 0, result.output
    assert "scores from constant" in result.output
    assert "AP70_constant" in result.output


def test_masks_without_any_instance_are_no_error(folders):
    for mask in folders.rglob("*.png"):
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(mask)
    arguments = ("--gt", folders / "gt/set", "--task", "sis", "--json", folders / "out.json")
    result = run("--pred", folders / "good/set", "--compare", folders / "bad/set", *arguments)
    assert result.exit_code == 0, result.output
    (measures, _) = [entry["measures"] for entry in json.loads((folders / "out.json").read_text())["results"]]
    assert measures["AP"] is None


def test_the_source_of_scores_is_one_of_those_that_a_run_can_name(folders):
    from typing import get_args

    from saliency_r1.params import Masks

    assert get_args(Masks.model_fields["score"].annotation) == names.SCORE_SOURCES
    result = run("--pred", folders / "good/set", "--gt", folders / "gt/set", "--task", "sis", "--score-source", "luck")
    assert result.exit_code == 2
    assert all(source in result.output for source in names.SCORE_SOURCES)


def test_own_row_among_published_ones():
    rows = published.table("CoCA", {"mine": {"Sm": 0.75}}, "pysodmetrics stretch=False")
    scores = [row.scores["Sm"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    (mine,) = [row for row in rows if row.own]
    assert mine.comparable == "no"
    by_name = {row.method: row for row in rows}
    assert by_name["DMT"].comparable == "yes"
    assert by_name["GCoNet+"].comparable == "no"
    assert by_name["TF-SSD"].comparable == "unknown"
    assert by_name["GCoNet+"].training == "DUTS_class + COCO-SEG"
    assert published.table("ILSO-1K", {"mine": {"AP": 0.9}}, "COCO")[0].comparable == "yes"
    with pytest.raises(ValueError, match="unknown data set"):
        published.table("Nowhere")


def test_published_numbers_are_plausible():
    """A misprint or a shifted column would show as a score outside of what the field has."""
    for name in published.datasets():
        for row in published.table(name):
            assert row.source
            for key, value in row.scores.items():
                assert (0 < value < 0.15) if key == "MAE" else (0.4 < value < 1), (name, row)


def test_no_output_stands_over_or_between_the_inputs(folders):
    """Refused before any work, whatever the path to the input is."""
    pred, gt = folders / "good/set", folders / "gt/set"
    link = folders / "link"
    link.symlink_to(pred)
    (folders / "same.json").symlink_to(pred / "x/a.png")
    (folders / "coco.json").write_text("[]")
    before = {path: path.read_bytes() for path in folders.rglob("*.png")}
    cases = [
        (("--plot", pred / "x/a.png"), pred), (("--plot", gt / "new.png"), pred),
        (("--plot", link / "y/new.PNG"), pred),
        (("--plot", pred / "y/a.png"), link), (("--json", folders / "coco.json"), folders / "coco.json"),
        (("--json", folders / "n.json", "--html", folders / "gt/../n.json"), pred),
        (("--json", folders), pred), (("--json", folders / "nowhere/n.json"), pred),
        (("--plot", folders / "p.xyz"), pred),
        (("--json", folders / "same.json"), pred / "x/a.png"),
    ]  # fmt: skip
    for options, given in cases:
        result = run("--pred", given, "--gt", gt, "--task", "cosod", *options)
        assert result.exit_code == 1, options
        assert len(result.output.splitlines()) == 1, result.output
        assert {path: path.read_bytes() for path in folders.rglob("*.png")} == before
    result = run("--pred", pred, "--gt", gt, "--task", "cosod", "--bootstrap", 0, "--json", folders / "same.json")
    assert result.exit_code == 0, result.output
    assert not (folders / "same.json").is_symlink(), "the link is replaced, not what it leads to"
    assert {path: path.read_bytes() for path in folders.rglob("*.png")} == before


@pytest.fixture
def instances(tmp_path):
    """Two id maps, found as they are; the names of the predictions end in _ids."""
    for name in ("a", "b"):
        for folder, end in (("gt", ""), ("pred", "_ids")):
            (tmp_path / folder).mkdir(exist_ok=True)
            ids = np.zeros((20, 30), np.uint8)
            ids[4:12, 2:9], ids[4:12, 15:20] = 1, 2
            Image.fromarray(ids).save(tmp_path / folder / f"{name}{end}.png")
    return tmp_path


def test_names_of_id_maps_have_affixes_too(instances):
    (instances / "gt/._a.json").write_bytes(b"what macOS leaves")
    (instances / "pred/._a.json").write_bytes(b"what macOS leaves")
    arguments = ("--pred", instances / "pred", "--gt", instances / "gt", "--task", "sis", "--bootstrap", 0)
    result = run(*arguments, "--suffix", "_ids", "--json", instances / "n.json")
    assert result.exit_code == 0, result.output
    assert json.loads((instances / "n.json").read_text())["results"][0]["measures"]["AP"] == 1
    assert run(*arguments).exit_code == 1


@pytest.mark.parametrize("spoilt", ["unreadable", "size"])
def test_an_id_map_that_cannot_be_used_is_one_without_an_instance(instances, spoilt):
    if spoilt == "size":
        Image.fromarray(np.ones((20, 31), np.uint8)).save(instances / "pred/a_ids.png")
    else:
        (instances / "pred/a_ids.png").write_bytes(b"no image")
    Image.fromarray(np.ones((20, 30), np.uint8)).save(instances / "pred/surplus_ids.png")
    arguments = ("--pred", instances / "pred", "--gt", instances / "gt", "--task", "sis", "--suffix", "_ids")
    assert run(*arguments).exit_code == 1
    result = run(*arguments, "--missing", "zero", "--html", instances / "page.html", "--json", instances / "n.json")
    assert result.exit_code == 0, result.output
    assert "1 predictions scored as empty maps" in result.output
    (found,) = json.loads((instances / "n.json").read_text())["results"]
    assert found["counts"] == {"instances": 4, "detections": 2}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--task", "sis", "--resize"), "--resize is for maps"),
        (("--task", "sis", "--plot", "nowhere/curves.png"), "--plot is for maps"),
        (("--compare", "bad", "--bootstrap", 0), "--compare takes its differences from replicates"),
    ],
)
def test_options_that_would_do_nothing_are_refused(folders, options, said):
    result = run("--pred", folders / "good/set", "--gt", folders / "gt/set", *options)
    assert result.exit_code == 2
    assert said in result.output


def test_without_an_instance_there_is_no_average_precision(instances):
    for path in (instances / "gt").glob("*.png"):
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    page = instances / "page.html"
    arguments = ("--pred", instances / "pred", "--gt", instances / "gt", "--task", "sis", "--suffix", "_ids")
    result = run(*arguments, "--html", page)
    assert result.exit_code == 0, result.output
    assert "0 instances" in result.output
    assert "0 instances" in page.read_text()
    assert "nan" not in result.output + page.read_text().partition("<h2>")[0]


def test_two_results_of_instances_fit_into_eighty_columns(instances):
    """The longest name of a measure, and a change between two negative numbers."""
    for folder, found in (("half", 1), ("none", 0)):
        (instances / folder).mkdir()
        for path in (instances / "gt").glob("*.png"):
            ids = np.asarray(Image.open(path))
            Image.fromarray(np.where(ids <= found, ids, 0).astype(np.uint8)).save(instances / folder / path.name)
    folders = ("--pred", instances / "half", "--gt", instances / "gt", "--compare", instances / "none")
    arguments = [str(argument) for argument in (*folders, "--task", "sis")]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "-.505–-.505" in result.output
    assert "AP50_constant" in result.output


def test_one_image_of_instances_has_no_interval(instances):
    for path in (instances / "gt/b.png", instances / "pred/b_ids.png"):
        path.unlink()
    arguments = ("--pred", instances / "pred", "--gt", instances / "gt", "--task", "sis", "--suffix", "_ids")
    result = run(*arguments, "--compare", instances / "pred", "--json", instances / "n.json")
    assert result.exit_code == 0, result.output
    content = json.loads((instances / "n.json").read_text())
    assert (content["results"][0]["intervals"], content["comparison"]) == ({}, {})
