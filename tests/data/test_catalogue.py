"""The catalogue: what it fills in, and what it says about mistakes."""

from pathlib import Path
from typing import Any

import pytest

from saliency_r1.data.catalogue import Catalogue, describe_archive, write_catalogue
from saliency_r1.data.errors import DataError
from saliency_r1.data.models import Source, resolve

from .toys import Project

SHIPPED = Path(__file__).parents[2] / "embedded/catalogue.yaml"
BENCHMARKS = {
    "DUTS": {"train": (10553,), "test": (5019,)},
    "DUT-OMRON": {"test": (5168,)},
    "ECSSD": {"test": (1000,)},
    "HKU-IS": {"test": (4447, 1447)},
    "PASCAL-S": {"test": (850, 845)},
    "SOD": {"test": (300,)},
    "ILSO-1K": {"train": (700,), "test": (300,)},
    "CoCA": {"test": (1295,)},
    "CoSOD3k": {"test": (3316,)},
    "CoSal2015": {"test": (2015,)},
    "COCO9213": {"train": (9213,)},
}


def load(folder: Path, text: str) -> Catalogue:
    (folder / "catalogue.yaml").write_text(text)
    return Catalogue.load(folder / "catalogue.yaml")


def test_the_shipped_catalogue_knows_the_benchmarks() -> None:
    catalogue = Catalogue.load(SHIPPED)
    for name, counts in BENCHMARKS.items():
        assert {key: split.count for key, split in catalogue.datasets[name].splits.items()} == counts
    assert {"DUTS-class", "COCO-SEG", "SIS10K", "SOC", "ILSO-2K"} <= set(catalogue.datasets)
    assert not [name for name in BENCHMARKS if catalogue.datasets[name].verified], (
        "none was fetched from its address yet"
    )
    assert "no commercial use" in catalogue.datasets["CoCA"].licence


def test_defaults_follow_from_the_task(tmp_path: Path) -> None:
    text = "datasets:\n  a: {folder: a}\n  b: {task: cosod, folder: b}\n  c: {task: sis, folder: c}\n"
    catalogue = load(tmp_path, text)
    a, b, c = catalogue.datasets.values()
    assert (a.task, a.layout, a.mask.rule, list(a.splits)) == ("sod", "pairs", "binary", ["test"])
    assert (b.layout, b.splits["test"].images, b.splits["test"].masks) == ("groups", "image", "gt")
    assert (c.layout, c.mask.rule) == ("id_map", "ids")


def test_catalogues_include_others(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/own.yaml").write_text("include: [../catalogue.yaml]\ndatasets:\n  mine: {folder: mine}\n")
    catalogue = load(tmp_path, "include: [more/own.yaml]\ndatasets:\n  ours: {folder: ours}\n")
    assert catalogue.datasets["mine"].base == tmp_path / "more"
    assert catalogue.datasets["ours"].base == tmp_path
    with pytest.raises(DataError, match=r"datasets\.mine is described twice"):
        load(tmp_path, "include: [more/own.yaml]\ndatasets:\n  mine: {folder: x}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: {a: {}}", r"datasets\.a\.splits = .*Field required"),
        ("datasets: {a: {folder: x, task: sad}}", r"datasets\.a\.task = 'sad'"),
        ("datasets: {a: {folder: x, task: [sod]}}", r"datasets\.a\.task = \['sod'\]: Input should be 'sod', 'sis' or"),
        ("datasets: {a: {task: {x: y}, splits: {}}}", r"datasets\.a\.task = \{'x': 'y'\}: Input should be"),
        ("datasets: {a: {task: cosod, splits: {test: }}}", r"splits\.test = None: Input should be a valid dictionary"),
        ("datasets: {a: {task: cosod, splits: {test: 5}}}", r"splits\.test = 5: Input should be a valid dictionary"),
        ("datasets: {a: {task: cosod, splits: {test: x}}}", r"splits\.test = 'x': Input should be a valid dictionary"),
        ("datasets: {a: {folder: x, lisence: y}}", r"datasets\.a\.lisence"),
        ("datasets: {a: {folder: x, layout: coco}}", "task sod has the layouts pairs, not coco"),
        ("datasets: {a: {folder: x, mask: {rule: ids}}}", "mask rule ids does not go with task sod"),
        ("datasets: {a: {task: sis, layout: coco, folder: x}}", "layout coco needs annotations"),
        ("datasets: {a: {splits: {test: {}}}}", "give either archive .* or folder"),
        ("datasets: {a: {splits: {dev: {folder: x}}}}", r"datasets\.a\.splits\.dev"),
        ("datasets: {a: {splits: {test: {archive: x, sha256: 12}}}}", r"archives\.0\.sha256 = 12"),
        ("datasets: {a/b: {folder: x}}", "may not contain /"),
        ("datasets: {2012: {folder: x}}", "the key 2012 is read as int, keys are text: put it in quotes"),
        ("datasets: {null: {folder: x}}", "the key None is read as NoneType"),
        ("datasets: {yes: {folder: x}}", "the key True is read as bool"),
        ('datasets: {"a\\0": {folder: x}}', "may not contain /, .+ or control characters"),
        ('datasets: {"a\\n": {folder: x}}', "a name has 1 to 100 bytes"),
        ('datasets: {"..": {folder: x}}', "does not start with a point"),
        ('datasets: {"": {folder: x}}', "a name has 1 to 100 bytes"),
        ("datasets: [a]", "datasets: expected a mapping of names"),
        ("include: 3", "include = 3, expected a list of files"),
        ("include: ['a\\0b']", "no such catalogue|not a readable catalogue"),
        ("include: ['.']", "a folder, a pipe or a device, expected a file"),
        ("datasets: {a: 3}", r"datasets\.a: expected a mapping, found 3"),
        ("models: {m: {}}", "give either path or hub"),
        ("sets: {}", "expected a mapping with the keys"),
        ("include: [nowhere.yaml]", r"nowhere\.yaml: there is no such catalogue"),
        ("datasets: {", r"catalogue\.yaml.*not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize(
    "path", ["../../README.md", "/etc/passwd", "a/../../b", "..", "C:/x.zip", "a\\b.zip", "a\0b", " a", "", "~/../x\n"]
)
@pytest.mark.parametrize("key", ["archive", "images", "masks", "annotations", "attributes", "names"])
def test_no_path_leaves_its_folder(tmp_path: Path, key: str, path: str) -> None:
    split = {"archive": "x.zip", key: path}
    with pytest.raises(DataError, match=rf"splits\.test\.{key}.*expected a"):
        write_catalogue(tmp_path / "c.yaml", {"a": {"splits": {"test": split}}})
    assert not (tmp_path / "c.yaml").exists()


def test_a_catalogue_cannot_touch_what_lies_outside(project: Project, tmp_path: Path) -> None:
    """The wrong hash used to delete the file that the path climbed to."""
    readme = project.root / "README.md"
    readme.write_text("mine")
    project.datasets["a"] = {"splits": {"test": {"archive": "../../README.md", "sha256": "0" * 64}}}
    with pytest.raises(DataError, match="expected a relative path that does not climb"):
        project.run()
    assert readme.read_text() == "mine"


def test_code_can_write_entries(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"abc")
    described = describe_archive(archive)
    assert described == {"size": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    entry: dict[str, Any] = {"task": "sod", "splits": {"train": {"archive": "a.zip", **described, "count": 1}}}
    write_catalogue(tmp_path / "some.yaml", {"some": entry}, {"policy": {"path": "p"}})
    catalogue = Catalogue.load(tmp_path / "some.yaml")
    assert catalogue.datasets["some"].splits["train"].archives[0].size == 3
    assert catalogue.models["policy"].path == "p"
    with pytest.raises(DataError, match=r"datasets\.some\.wrong"):
        write_catalogue(tmp_path / "some.yaml", {"some": entry | {"wrong": 1}})


def test_models_are_found_by_entry_folder_or_name(tmp_path: Path) -> None:
    text = "models:\n  tiny: {path: models/tiny}\n  big: {hub: owner/big, revision: abc}\n"
    catalogue = load(tmp_path, text)
    for name in ("models/tiny", "root/mine"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(DataError, match="the model folder is empty"):
        resolve("tiny", "policy", catalogue, tmp_path / "root")
    for name in ("models/tiny", "root/mine"):
        (tmp_path / name / "config.json").write_text("{}")
    for name, source in (
        ("tiny", Source(tmp_path / "models/tiny", outside=True)),
        ("models/tiny", Source(tmp_path / "models/tiny", outside=True)),
        ("mine", Source(tmp_path / "root/mine")),
        ("big", Source(None, "owner/big", "abc")),
        ("Qwen/Qwen2.5-VL-3B-Instruct@123", Source(None, "Qwen/Qwen2.5-VL-3B-Instruct", "123")),
    ):
        assert resolve(name, "policy", catalogue, tmp_path / "root") == source
    with pytest.raises(DataError, match=r"download\.segmenter = 'nothing': no such folder"):
        resolve("nothing", "segmenter", catalogue, tmp_path)


def test_a_copy_that_is_missing_old_or_edited_is_refused_and_the_original_named(tmp_path: Path) -> None:
    """A fresh clone has none; `dvc repro` would put an edited one back."""
    (tmp_path / "embedded").mkdir()
    load(tmp_path / "embedded", "datasets:\n  a: {folder: a}\n")
    (tmp_path / "data.dvc").write_text("deps: [{path: embedded}]\nouts: [{path: data}]\n")
    with pytest.raises(DataError, match=r"(?s)not there yet; `dvc repro data\.dvc` makes it.*embedded/catalogue\.yaml"):
        Catalogue.load(tmp_path / "data/catalogue.yaml")
    (tmp_path / "data").mkdir()
    load(tmp_path / "data", "datasets:\n  a: {folder: a}\n")
    with pytest.raises(DataError, match=r"embedded/catalogue\.yaml has no data set 'b'"):
        Catalogue.load(tmp_path / "data/catalogue.yaml").select(["b"])
    with pytest.raises(DataError, match=r"(?s)is a copy of .*embedded/catalogue\.yaml.*dvc repro data\.dvc"):
        load(tmp_path / "data", "datasets:\n  b: {folder: a}\n")
    (tmp_path / "data.dvc").write_bytes(b"\xff")
    assert load(tmp_path / "data", "datasets:\n  b: {folder: a}\n").datasets["b"]
