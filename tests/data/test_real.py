"""Real photographs, imported where they lie by the importers of the public layouts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from saliency_r1 import cot, tasks
from saliency_r1.annotation import Annotation, OfflineAnnotator, annotate, tabulate
from saliency_r1.data.images import thumbnail
from saliency_r1.data.leaks import find_leaks
from saliency_r1.data.samples import read_masks
from saliency_r1.params import load_params
from saliency_r1.quality import check
from saliency_r1.report.annotated import write_page
from saliency_r1.segmenter import Segment

from .test_leaks import saved_again
from .toys import Project

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data/real"
KINDS = {0: "person", 2: "car", 3: "motorcycle", 4: "airplane", 20: "elephant", 22: "zebra", 23: "giraffe", 74: "clock"}
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is missing: it holds real images and is not shipped")


@dataclass
class Believing:
    """A segmenter that finds what the ground truth holds, whatever it is asked: the words alone are on trial."""

    truths: Iterator[np.ndarray]

    def encode(self, images):
        return list(images)

    def segment(self, encoded, phrases):
        return [[Segment(np.where(next(self.truths), 9.0, -9.0).astype(np.float32), 1.0)] for _ in encoded]


def annotated(table: pl.DataFrame, project: Project) -> list[Annotation]:
    """Offline annotations of photographs that carry no attributes, through both gates, on a page."""
    rows = table.to_dicts()
    truths = (mask for row in rows for mask in tasks.get(row["task"]).truth(read_masks(row, project.out)).masks)
    made = list(annotate(rows, project.out, OfflineAnnotator(0.4), Believing(truths), 0.7, 1, 0, 1))
    artifacts = project.out.parent
    (artifacts / "annotate").mkdir()
    tabulate(table, made).write_parquet(artifacts / "annotate/table.parquet")
    params = load_params(ROOT / "params.yaml")
    chosen = params.download.model_copy(update={"datasets": tuple(table["dataset"].unique())})
    shown = params.annotate.model_copy(update={"splits": ("test",)})
    params = params.model_copy(update={"download": chosen, "annotate": shown})
    for stage in ("download", "annotate"):
        assert check(stage, params, artifacts)["rows"] == len(table)
    write_page(project.out, artifacts / "annotate", artifacts / "annotations.html", len(table))
    page = (artifacts / "annotations.html").read_text(encoding="utf-8")
    assert page.count("<article") == len(table)
    for row, said in zip(rows, made):
        parsed = cot.parse(said.response, row["task"], len(row["images"]))
        assert parsed.ok, (said.response, parsed.errors)
        assert said.kept
        assert all(expression in page for expression in said.expressions)
    return made


def test_ecssd_pairs(project: Project) -> None:
    project.datasets["ECSSD-60"] = {"splits": {"test": {"folder": str(REAL / "ecssd_60"), "count": 60}}}
    table = project.run()
    assert len(table) == 60
    for row in table.iter_rows(named=True):
        with Image.open(project.out / row["images"][0]) as image, Image.open(project.out / row["masks"][0]) as truth:
            assert image.size == truth.size == (row["width"][0], row["height"][0])
            assert set(np.unique(np.asarray(truth))) == {0, 255}
    assert not project.report()["imports"]["ECSSD-60/test"]["missing"]
    different = {said.expressions for said in annotated(table, project)}
    assert len(different) >= 20, "photographs differ, so do words"


def test_voc_groups(project: Project) -> None:
    folder = str(REAL / "voc_coseg_32")
    project.datasets["VOC-coseg-32"] = {
        "task": "cosod",
        "splits": {"test": {"folder": folder, "images": "img", "masks": "gt", "count": 32}},
    }
    table = project.run()
    assert table["group"].value_counts(sort=True)["count"].to_list() == [3, 3, 3, 3]
    assert sum(len(names) for names in table["names"]) == 32
    assert all(len(names) in (2, 3) for names in table["names"])
    for row, said in zip(table.to_dicts(), annotated(table, project)):
        assert len(said.expressions) == len(row["images"])
        assert all(row["group"].lower() in expression for expression in said.expressions), "named alike, by its group"


def test_coco_instances(project: Project, tmp_path: Path) -> None:
    """The labels are YOLO polygons; as COCO json they are what the layout reads."""
    folder = REAL / "coco_instances_24"
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for path in sorted((folder / "images").glob("*.jpg")):
        width, height = Image.open(path).size
        images.append({"id": path.stem, "file_name": path.name, "width": width, "height": height})
        for line in (folder / "labels" / f"{path.stem}.txt").read_text().splitlines():
            polygon = np.array(line.split()[1:], float).reshape(-1, 2) * (width, height)
            outline = [polygon.ravel().tolist()]
            kind = int(line.split()[0])
            annotations.append(
                {"segmentation": outline, "image_id": path.stem, "id": len(annotations), "category_id": kind}
            )
    source = tmp_path / "coco"
    source.mkdir()
    (source / "images").symlink_to(folder / "images")
    categories = [{"id": kind, "name": name} for kind, name in KINDS.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (source / "train.json").write_text(json.dumps(content))
    project.datasets["COCO-24"] = {
        "task": "sis",
        "layout": "coco",
        "splits": {"test": {"folder": str(source), "annotations": "train.json", "count": 24}},
    }
    table = project.run(allow_missing=("COCO-24/*",))
    made = annotated(table, project)
    words = " ".join(expression for said in made for expression in said.expressions)
    assert all(name in words for name in ("person", "giraffe", "elephant", "clock", "region"))
    for row, said in zip(table.to_dicts(), made):
        assert len(set(said.expressions)) == len(said.expressions), "instances are told apart"
        instances = len(np.unique(np.asarray(Image.open(project.out / row["masks"][0])))) - 1
        assert len(said.expressions) == instances
    missing = project.report()["imports"]["COCO-24/test"]["missing"]
    assert len(table) + len(missing) == 24
    assert all("hidden behind others" in problem["reason"] for problem in missing)
    assert len(missing) <= 3


def test_no_two_photographs_look_alike_but_their_copies_do() -> None:
    rows = []
    for path in sorted(REAL.glob("*/im*/**/*.jpg")):
        image = Image.open(path).convert("RGB")
        name = path.relative_to(REAL).as_posix()
        rows.append({"dataset": "real", "split": "test", "name": name, "sha256": name, "thumbnail": thumbnail(image)})
        for scale, quality in ((0.5, 30), (0.8, 75)):
            copy = thumbnail(saved_again(image, scale, quality))
            label = f"{name}@{scale}"
            rows.append({"dataset": "copy", "split": "train", "name": label, "sha256": label, "thumbnail": copy})
    leaks = find_leaks(pl.DataFrame(rows))
    assert len(leaks) == len(rows) * 2 // 3, "every copy is found"
    twins = leaks["twin"].str.strip_prefix("real/test/")
    assert (twins == leaks["name"].str.replace("@.*", "")).all(), "and each for what it is"
