"""The second run of the download stage, by DVC: what has not changed is not imported again, and nothing else stays."""

import hashlib
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from clones import ROOT, Clone
from PIL import Image

pytestmark = pytest.mark.slow
CHANGED = 10
Started = Callable[[int], tuple[Clone, Path]]


@pytest.fixture
def started(tmp_path: Path) -> Started:
    """Makes a clone whose only data set has a folder of so many pairs for a test split; returns both before any run."""

    def make(count: int) -> tuple[Clone, Path]:
        if not (ROOT / ".git").exists():
            pytest.skip("not a git repository")
        clone, pictures = Clone.of(ROOT, tmp_path / "clone"), tmp_path / "pictures"
        for kind in ("images", "masks"):
            (pictures / kind).mkdir(parents=True)
        Image.new("L", (16, 12), 255).save(tmp_path / "mask.png")
        for number in range(count):
            paint(pictures, number, 0)
            shutil.copyfile(tmp_path / "mask.png", pictures / f"masks/{number}.png")
        catalogue = clone.folder / "embedded/catalogue.yaml"
        content = yaml.safe_load(catalogue.read_text())
        content["datasets"] = content.get("datasets") or {}
        splits = {"test": {"folder": str(pictures)}}
        for split, look in (("train", "radial_gradient"), ("val", "linear_gradient")):  # a run needs them as well
            for kind, picture in (("images", getattr(Image, look)("L")), ("masks", Image.new("L", (256, 256), 255))):
                (tmp_path / split / kind).mkdir(parents=True)
                picture.save(tmp_path / split / kind / "one.png")
            splits[split] = {"folder": str(tmp_path / split)}
        content["datasets"]["mine"] = {"splits": splits}
        catalogue.write_text(yaml.safe_dump(content))
        choose(clone, "mine")
        return clone, pictures

    return make


def choose(clone: Clone, *datasets: str) -> None:
    params = yaml.safe_load((clone.folder / "profiles/smoke.yaml").read_text())
    params["download"] |= {"datasets": list(datasets), "limit": None}
    (clone.folder / "params.yaml").write_text(yaml.safe_dump(params))


def paint(pictures: Path, number: int, shade: int) -> None:
    """One small picture, of its own colour; another shade is another picture. It is a new file, as editors write it."""
    path = pictures / f"images/{number}.png"
    path.unlink(missing_ok=True)
    Image.new("RGB", (16, 12), (number % 256, number // 256, shade)).save(path)


def timed(clone: Clone, *command: str) -> tuple[str, float]:
    """What a command prints and the processor time that it takes, whatever else the machine is doing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    printed = clone.run(*command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return printed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_ten_changed_pairs_of_ten_thousand_take_seconds(started: Started) -> None:
    count = 10_000
    clone, pictures = started(count)
    _, first = timed(clone, "dvc", "repro", "download")
    for number in range(CHANGED):
        paint(pictures, number, 200)
    printed, second = timed(clone, "dvc", "repro", "--force", "--single-item", "download")
    print(f"first run {first:.1f} s, second run {second:.1f} s of processor time")
    assert f"mine/test: {count - CHANGED} of {count} pairs unchanged" in printed
    assert second < 30
    assert second < first


@pytest.mark.parametrize("links", ["copy", "hardlink", "symlink"])
def test_a_second_run_leaves_what_a_first_one_would_and_the_cache_as_it_was(links: str, started: Started) -> None:
    clone, pictures = started(20)
    clone.run("dvc", "config", "cache.type", links)
    choose(clone, "mine", "scenes-sod")
    clone.repro("download")
    paint(pictures, 3, 200)
    (pictures / "images/5.png").unlink()
    (pictures / "masks/5.png").unlink()
    choose(clone, "mine")
    printed = clone.run("dvc", "repro", "download")
    assert "mine/test: 18 of 19 pairs unchanged" in printed
    for path in (clone.folder / ".dvc/cache/files/md5").glob("??/*"):
        if path.is_file():
            name = (path.parent.name + path.name).removesuffix(".dir")
            assert hashlib.md5(path.read_bytes()).hexdigest() == name, "a file was changed that the cache shares"
    second = clone.results()
    assert not [path for path in second if "scenes-sod" in path], "a data set that nobody asked for any more"

    for folder in ("artifacts/download", "runs"):
        shutil.rmtree(clone.folder / folder)
    clone.repro("--force", "--single-item", "download")
    assert clone.results() == second
