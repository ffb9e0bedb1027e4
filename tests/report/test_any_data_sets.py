"""The page and the plots of a project whose data sets are none of this repository's."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from saliency_r1.evaluation.split import evaluate
from saliency_r1.params import Params
from saliency_r1.report.page import build as build_page
from saliency_r1.report.read import Artifacts
from saliency_r1.report.tables import cards, results

from .test_page import Tags
from .world import MODELS, build

ROOT = Path(__file__).parents[2]
PHOTOS = [
    ("sod", "Zebras, 2024", ("train", "test")),
    ("sod", "ECSSD", ("test",)),
    ("sod", "mine", ("train", "test")),
    ("sis", "herds", ("test",)),
]
WORLDS = {
    "photographs": PHOTOS,
    "all of them trained on": PHOTOS[::2],
    "instances alone": [("sis", "a", ("train", "test"))],
    "odd names": [
        ("sod", "2017", ("train", "test")),
        ("sod", "a-b", ("test",)),
        ("sod", "a.b", ("test",)),
        ("sod", "x" * 100, ("test",)),  # as long as the catalogue lets one be
    ],
}


@pytest.fixture(scope="module", params=WORLDS)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("project")
    root = build(folder / "artifacts", 3, WORLDS[request.param])
    (root / "metrics").mkdir()
    evaluate(root / "download", root / "masks", "test", list(MODELS)).write(root / "metrics")
    return request.param, folder


def test_the_page_speaks_of_what_is_there(project: tuple[str, Path], params: Params, tmp_path: Path) -> None:
    world, folder = project
    build_page(folder / "artifacts", tmp_path, params, root=folder)
    page = (tmp_path / "index.html").read_text()
    assert "unseen" not in page
    assert "scenes-" not in page
    new = [name for _, name, splits in WORLDS[world] if "train" not in splits]
    assert page.count("new: no training samples</span>") == len(new)
    assert ("marked as new" in page) == bool(new)
    assert all(name in page for _, name, _ in WORLDS[world])
    tags = Tags()
    tags.feed(page)
    assert len(tags.ids) == len(set(tags.ids))


def test_the_headline_is_the_first_data_set_that_was_trained_on(project: tuple[str, Path]) -> None:
    world, folder = project
    headline = {card.task: card.dataset for card in cards(results(Artifacts(folder / "artifacts")))}
    expected = {
        "photographs": {"sod": "Zebras, 2024", "sis": "herds"},
        "instances alone": {"sis": "a"},
        "odd names": {"sod": "2017"},
    }
    assert headline == expected.get(world, {"sod": "Zebras, 2024"})


def test_the_plots_of_dvc_have_a_panel_for_every_data_set(project: tuple[str, Path]) -> None:
    world, folder = project
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    graph = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    (folder / "dvc.yaml").write_text(graph[graph.index("plots:") :])
    shown = subprocess.run([*dvc, "plots", "show", "--json"], cwd=folder, check=True, capture_output=True, text=True)
    found = json.loads(shown.stdout)
    assert not found.get("errors")
    drawn = {name: plots[0]["content"] for name, plots in found["data"].items() if plots}
    wanted = {(name, model) for task, name, _ in WORLDS[world] if task != "sis" for model in MODELS}
    for name in ("Precision and recall", "F over thresholds"):
        rows = drawn[name]["data"]["values"] if name in drawn else []
        assert {(row["dataset"], row["model"]) for row in rows} == wanted
        if rows:
            assert drawn[name]["facet"]["field"] == "dataset"
            assert drawn[name]["spec"]["encoding"]["color"]["field"] == "model"
