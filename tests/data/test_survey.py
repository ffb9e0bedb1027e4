"""What an import would find, without importing; and folders as people have them."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from saliency_r1.cli.app import app
from saliency_r1.data import models
from saliency_r1.data.catalogue import Archive, Catalogue, Dataset, Split
from saliency_r1.data.errors import DataError
from saliency_r1.data.importers import LAYOUTS
from saliency_r1.data.places import settle, unpacked
from saliency_r1.data.survey import survey
from saliency_r1.params import parse_params
from saliency_r1.runtime.files import sha256
from saliency_r1.yaml_loader import load_yaml

from .toys import Project, mask, pairs, picture, zipped

SHIPPED = Path(__file__).parents[2] / "embedded/catalogue.yaml"


def states(project: Project, *names: str, mirror: Path | None = None) -> dict[str, str]:
    project.write()
    return {finding.what: finding.state for finding in survey(settings(project, mirror), project.root, names)}


def settings(project: Project, mirror: Path | None):
    from types import SimpleNamespace

    return SimpleNamespace(
        catalogue="data/catalogue.yaml", datasets=tuple(project.datasets), policy="models/policy",
        segmenter="models/segmenter", mirror=None if mirror is None else str(mirror), allow_missing=(),
    )  # fmt: skip


def put(folder: Path, images: str, masks: str, count: int = 3) -> None:
    """Pairs in folders of the given names."""
    for number in range(count):
        for name, made, ending in ((images, picture(number), "jpg"), (masks, mask(), "png")):
            (folder / name).mkdir(parents=True, exist_ok=True)
            made.save(folder / name / f"{number:03d}.{ending}")


def test_everything_is_said_at_once_before_any_import(project: Project, tmp_path: Path) -> None:
    project.add("good", pairs(tmp_path / "good"))
    project.datasets["lost"] = {"homepage": "http://nowhere", "splits": {"test": {"archive": "lost.zip"}}}
    project.datasets["moved"] = {"splits": {"test": {"folder": "no/such"}}}
    project.datasets["few"] = {"splits": {"test": {"folder": str(pairs(tmp_path / "few", 3)), "count": 1000}}}
    project.datasets["web"] = {"splits": {"test": {"archive": "w.zip", "locations": ["https://127.0.0.1:9/w.zip"]}}}
    said = states(project)
    assert said == {
        "good/test": "there", "lost/test": "missing", "moved/test": "missing", "few/test": "unfit",
        "web/test": "to fetch", "model models/policy": "there", "model models/segmenter": "there",
    }  # fmt: skip
    with pytest.raises(DataError) as refused:
        project.run()
    for words in ("3 of 7 things", "lost/test: no address is listed (http://nowhere)", "put the archive at",
                  "moved/test: there is no folder", "3 pairs where the catalogue expects 1000"):  # fmt: skip
        assert words in str(refused.value)
    assert not project.out.exists()


def test_a_number_that_the_import_accepts_is_accepted(project: Project, tmp_path: Path) -> None:
    project.datasets["few"] = {"splits": {"test": {"folder": str(pairs(tmp_path / "few", 3)), "count": 5}}}
    assert states(project)["few/test"] == "unfit"
    with pytest.raises(DataError, match=r"3 pairs where the catalogue expects 5; .* put 'few/test/\*' into"):
        project.run()
    assert len(project.run(allow_missing=("few/test/*",))) == 3


@pytest.mark.parametrize(("count", "state"), [(3, "there"), (4, "there"), (5, "unfit")])
def test_a_number_without_the_empty_ones_is_accepted(project: Project, tmp_path: Path, count: int, state: str) -> None:
    folder = pairs(tmp_path / "set", 4)
    mask(value=0).save(folder / "masks/0003.png")
    rule = {"rule": "threshold", "threshold": 128, "empty": "drop"}
    project.datasets["some"] = {"mask": rule, "splits": {"test": {"folder": str(folder), "count": count}}}
    assert states(project)["some/test"] == state
    if state == "there":
        assert len(project.run()) == 3


def test_links_that_lead_nowhere_are_counted(project: Project, tmp_path: Path) -> None:
    folder = pairs(tmp_path / "linked", 2)
    size = (folder / "images/0000.jpg").stat().st_size
    (folder / "images/0001.jpg").unlink()
    (folder / "images/0001.jpg").symlink_to(tmp_path / "gone")
    project.datasets["linked"] = {"splits": {"test": {"folder": str(folder)}}}
    project.write()
    (finding,) = survey(settings(project, None), project.root, ("linked",))
    assert (finding.state, finding.needs) == ("there", size), "the import judges it, as it does broken pictures"
    assert "2 pairs, 1 of the images a link that leads nowhere" in finding.text


def test_one_file_of_the_mirror_is_not_taken_for_two_archives(project: Project, tmp_path: Path) -> None:
    """Both may be called `data.zip`; only a hash, or a common address, says whose one is."""
    mirror = tmp_path / "mirror"
    zipped(pairs(tmp_path / "some"), mirror / "data.zip")
    project.datasets = {name: {"splits": {"test": {"archive": f"{name}/data.zip"}}} for name in ("a", "b")}
    assert states(project, mirror=mirror)["a and b"] == "unfit"
    with pytest.raises(DataError, match=r"a and b: .*data\.zip would be taken for the archives of each.* sha256"):
        project.run(mirror=str(mirror))
    assert "a and b" not in states(project, "a", mirror=mirror)
    for entry in project.datasets.values():
        entry["splits"]["test"]["locations"] = ["https://localhost/data.zip"]
    assert states(project, "a", "b", mirror=mirror) == {"a/test": "there", "b/test": "there"}
    for entry in project.datasets.values():
        entry["splits"]["test"] = {"archive": "data.zip", "sha256": sha256(mirror / "data.zip")}
    assert states(project, "a", "b", mirror=mirror) == {"a/test": "there", "b/test": "there"}


def test_what_is_good_is_kept_when_another_set_is_not(project: Project, tmp_path: Path, capsys) -> None:
    project.add("a", pairs(tmp_path / "a"))
    project.add("b", broken := pairs(tmp_path / "b"))
    project.add("c", pairs(tmp_path / "c", 4))
    first = next((broken / "images").iterdir())
    first.write_bytes(b"no picture")
    project.add("b", broken)
    project.add("d", broken)
    with pytest.raises(DataError, match=r"(?s)b/test: 1 images.*d/test: 1 images.*is kept.*a/test, c/test"):
        project.run()
    assert not project.out.exists()
    project.add("b", pairs(tmp_path / "b2"))
    project.add("d", pairs(tmp_path / "d2"))
    capsys.readouterr()
    project.run()
    said = capsys.readouterr().out
    assert "a/test: 4 images, unchanged" in said
    assert "c/test: 4 images, unchanged" in said
    assert not (project.root / "runs/download/kept").exists()


@pytest.mark.parametrize(
    ("dataset", "split", "where", "images", "masks", "count"),
    [
        ("ECSSD", "test", "ECSSD", "Image", "Mask", 1000),
        ("ECSSD", "test", "ecssd", "images", "GT", 1000),
        ("PASCAL-S", "test", "PASCAL-S", "Imgs", "GT", 850),
        ("PASCAL-S", "test", "pascals", "Imgs", "GT", 850),
        ("DUTS", "train", "DUTS", "train/image", "train/mask", 10553),
        ("DUTS", "test", "DUTS", "test/image", "test/mask", 5019),
        ("DUTS", "train", "DUTS-TR", "DUTS-TR-Image", "DUTS-TR-Mask", 10553),
        ("DUTS", "test", "DUTS", "DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask", 5019),
        ("HKU-IS", "test", "HKU-IS", "img", "ground_truth", 4447),
        ("DUT-OMRON", "test", "DUT_OMRON", "DUT-OMRON-image", "pixelwiseGT-new-PNG/gt", 5168),
        ("DUT-OMRON", "test", "DUT-OMRON", "DUT-OMRON-image", "pixelwiseGT-new-PNG", 5168),
        ("ECSSD", "test", "ECSSD", "images/images", "ground_truth_mask/ground_truth_mask", 1000),
        ("CoSal2015", "test", "CoSal2015", "Image/apple", "GroundTruth/apple", 2015),
        ("CoCA", "test", "CoCA", "image/Accordion", "binary/accordion", 1295),
        ("CoSOD3k", "test", "cosod3k", "Image/apple", "GroundTruth/apple", 3316),
        ("DUTS-class", "train", "DUTS_class", "img/apple", "gt/apple", None),
    ],
)
def test_the_benchmarks_lie_in_folders_of_many_names(
    tmp_path: Path, dataset: str, split: str, where: str, images: str, masks: str, count: int | None
) -> None:
    entry = Catalogue.load(SHIPPED).datasets[dataset]
    put(tmp_path / where, images, masks)
    if dataset == "DUTS" and "/" in images:  # the other split lies beside it
        other = {"train": "test", "test": "train"}[split]
        swap = {"train": "test", "test": "train", "DUTS-TE": "DUTS-TR"}
        put(tmp_path / where, *(swap.get(name.split("/")[0], other) + "/" + name.split("/")[1].replace("TE", "TR")
                                for name in (images, masks)), count=2)  # fmt: skip
    folder = unpacked(entry, split, tmp_path)  # type: ignore[arg-type]
    assert folder == tmp_path / where
    settled = settle(folder, entry.splits[split], split)  # type: ignore[arg-type, index]
    found = LAYOUTS[entry.layout].find(folder, settled)
    assert len(found.items) == 3
    assert not found.problems


def test_what_windows_leaves_hides_no_folder(tmp_path: Path) -> None:
    entry = Catalogue.load(SHIPPED).datasets["ECSSD"]
    put(tmp_path, "images/images", "ground_truth_mask/ground_truth_mask")
    for name in ("images/Thumbs.db", "ground_truth_mask/desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    assert len(LAYOUTS["pairs"].find(tmp_path, entry.splits["test"]).items) == 3
    (tmp_path / "ground_truth_mask").rename(tmp_path / "GT")
    settled = settle(tmp_path, entry.splits["test"], "test")
    assert len(LAYOUTS["pairs"].find(tmp_path, settled).items) == 3


@pytest.mark.parametrize(("where", "ending"), [("MSRA10K_Imgs_GT/Imgs", "jpg"), (".", "JPG"), ("images", "jpeg")])
def test_pictures_and_masks_side_by_side(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, ending: str
) -> None:
    folder = tmp_path / "set"
    put(folder / where, "", "")
    for path in sorted(folder.rglob("*.jpg")):
        path.rename(path.with_suffix(f".{ending}"))
    project.datasets["x"] = {"splits": {"test": {"folder": str(folder)}}}
    assert states(project)["x/test"] == "there"
    assert len(project.run()) == 3
    assert f"x/test: masks are read from {'' if where == '.' else where + '/'}*.png" in capsys.readouterr().out


def test_pictures_of_two_kinds_are_no_pairs(project: Project, tmp_path: Path) -> None:
    put(tmp_path / "set", "images", "images")
    for path in (tmp_path / "set/images").glob("*.png"):
        path.rename(path.with_name(f"other-{path.name}"))
    project.datasets["x"] = {"splits": {"test": {"folder": str(tmp_path / "set")}}}
    project.write()
    (finding,) = survey(settings(project, None), project.root, ("x",))
    assert finding.state == "unfit"
    assert "masks: expected once" in finding.text


def test_archives_that_were_not_unpacked_are_named(project: Project, tmp_path: Path) -> None:
    zipped(pairs(tmp_path / "made"), tmp_path / "mirror/ECSSD/all.zip")
    project.datasets["ECSSD"] = {"splits": {"test": {"archive": "ECSSD.zip"}}}
    project.write()
    (finding,) = survey(settings(project, tmp_path / "mirror"), project.root, ("ECSSD",))
    assert finding.state == "unfit"
    assert "Unpack all.zip there" in finding.text


def test_a_page_in_place_of_a_local_archive_is_seen(project: Project) -> None:
    (project.root / "data/x.zip").write_text("<html>")
    project.datasets["x"] = {"splits": {"test": {"archive": "x.zip"}}}
    assert states(project)["x/test"] == "unfit"


def test_a_number_that_does_not_fit_is_that_of_all_images(project: Project, tmp_path: Path) -> None:
    folder = pairs(tmp_path / "set", 3)
    picture(9).save(folder / "images/alone.jpg")
    project.datasets["x"] = {"splits": {"test": {"folder": str(folder), "count": 3}}}
    project.write()
    (finding,) = survey(settings(project, None), project.root, ("x",))
    assert "4 images, 1 of them without a pair, where the catalogue expects 3" in finding.text


def test_a_home_folder_is_written_as_people_do(project: Project, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pairs(tmp_path / "holiday")
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    project.datasets["x"] = {"folder": "~/holiday"}
    project.write()
    wanted = settings(project, None)
    wanted.policy = "~/base"
    assert [finding.state for finding in survey(wanted, project.root)] == ["there"] * 3
    numbers = load_yaml(SHIPPED.parents[1] / "params.yaml")
    numbers["download"]["mirror"] = "~/mirror"
    assert parse_params(numbers).download.mirror == f"{tmp_path}/mirror"


@pytest.mark.parametrize("archive", ["Foo-Bar.tar.gz", "sets/Foo-Bar.tgz", "Foo-Bar.zip", "foo_bar.TAR.XZ"])
def test_an_unpacked_archive_is_found_by_its_name(tmp_path: Path, archive: str) -> None:
    entry = Dataset(name="x", base=tmp_path, splits={"test": Split(archives=(Archive(path=archive),))})
    (tmp_path / "Foo-Bar").mkdir()
    assert unpacked(entry, "test", tmp_path) == tmp_path / "Foo-Bar"


def test_the_pictures_of_another_split_are_not_taken(tmp_path: Path) -> None:
    """DUTS with its training part alone in it, and the test part beside it, or nowhere."""
    entry = Catalogue.load(SHIPPED).datasets["DUTS"]
    put(tmp_path / "DUTS", "DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask")
    folder = unpacked(entry, "test", tmp_path)
    assert folder == tmp_path / "DUTS"
    assert settle(folder, entry.splits["test"], "test") == entry.splits["test"]
    put(tmp_path / "DUTS-TE", "DUTS-TE-Image", "DUTS-TE-Mask")
    assert unpacked(entry, "test", tmp_path) == tmp_path / "DUTS-TE"
    assert unpacked(entry, "train", tmp_path) == tmp_path / "DUTS"


def test_two_folders_that_could_be_meant_are_not_guessed_between(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    put(folder / "a", "img", "gt")
    put(folder / "b", "img", "gt")
    project.datasets["x"] = {"splits": {"test": {"folder": str(folder)}}}
    assert states(project)["x/test"] == "unfit"


def test_the_command(project: Project, tmp_path: Path, monkeypatch) -> None:
    project.add("good", pairs(tmp_path / "good"))
    project.datasets["lost"] = {"splits": {"test": {"archive": "lost.zip"}}}
    project.write()
    text = (SHIPPED.parents[1] / "params.yaml").read_text()
    start = text.index("  datasets:")
    text = text[:start] + "  datasets: [good, lost]\n" + text[text.index("  policy: policy") :]
    text = text.replace("  policy: policy", "  policy: models/policy").replace(
        "  segmenter: segmenter", "  segmenter: models/segmenter"
    )
    (project.root / "params.yaml").write_text(text)
    monkeypatch.chdir(project.root)
    done = CliRunner().invoke(app, ["data", "check", "good"])
    assert done.exit_code == 0, done.output
    assert "good/test  there" in done.output
    done = CliRunner().invoke(app, ["data", "check"])
    assert done.exit_code == 1
    assert "lost/test" in done.output
    done = CliRunner().invoke(app, ["data", "check", "nobody"])
    assert done.exit_code == 1
    assert "no data set 'nobody'" in done.output
    assert not (project.root / "runs").exists(), "nothing is written"


def test_a_model_of_the_hub_that_cannot_be_had_is_said(project: Project, monkeypatch) -> None:
    monkeypatch.setattr(models, "cached", lambda source: False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    project.write()
    wanted = settings(project, None)
    wanted.policy = "owner/model"
    monkeypatch.setattr(models, "unreachable", lambda source: "not to be had from the Hugging Face hub (no network)")
    found = {finding.what: finding for finding in survey(wanted, project.root)}
    assert found["model owner/model"].state == "missing"


def test_json_of_a_set_in_place_is_looked_at(project: Project, tmp_path: Path) -> None:
    folder = pairs(tmp_path / "set")
    shutil.rmtree(folder / "masks")
    (folder / "train.json").write_text(json.dumps({"images": []}))
    project.datasets["c"] = {
        "task": "sis",
        "layout": "coco",
        "splits": {"test": {"folder": str(folder), "annotations": "train.json"}},
    }
    assert states(project)["c/test"] == "unfit"


def test_why_there_is_no_pair_is_said(project: Project) -> None:
    folder = project.root / "own"
    put(folder, "images", "masks", 1)
    (folder / "masks/000.png").rename(folder / "masks/000_mask.png")
    project.datasets["own"] = {"splits": {"test": {"folder": str(folder)}}}
    project.write()
    (finding,) = survey(settings(project, None), project.root, ("own",))
    assert "000: 000.jpg has no mask" in finding.text
    assert "000_mask: 000_mask.png is a mask without an image" in finding.text
