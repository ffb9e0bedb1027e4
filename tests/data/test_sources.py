"""What lies outside of the project is noted by content: a picture more, one changed, other times, another place."""

import os
from pathlib import Path

import pytest
from PIL import Image

from saliency_r1.data.errors import DataError
from saliency_r1.data.sources import sources
from saliency_r1.params import Download, load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of two pairs, and a catalogue that names it."""
    folder = tmp_path / "outside"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("L", (8, 8), 255).save(folder / kind / f"{name}.png")
    for model in ("policy", "segmenter"):
        (tmp_path / "data" / model).mkdir(parents=True)
        (tmp_path / "data" / model / "config.json").write_text("{}")
    (tmp_path / "data/catalogue.yaml").write_text(
        f"datasets:\n  holiday:\n    folder: {folder}\n"
        "models:\n  policy: {path: policy}\n  segmenter: {path: segmenter}\n"
    )
    return folder


def settings() -> Download:
    return load_params(ROOT / "params.yaml").download.model_copy(update={"datasets": ("holiday",)})


def test_the_note_follows_names_and_contents_and_nothing_else(tmp_path: Path, outside: Path) -> None:
    before = sources(settings(), tmp_path)
    assert before["holiday/test"]["files"] == 4
    os.utime(outside / "images/a.png", (1, 1))
    assert sources(settings(), tmp_path) == before
    (outside / "images/c.png").write_bytes((outside / "images/a.png").read_bytes())
    more = sources(settings(), tmp_path)
    assert more["holiday/test"]["files"] == 5
    (outside / "images/c.png").rename(outside / "images/d.png")
    assert sources(settings(), tmp_path)["holiday/test"]["sha256"] != more["holiday/test"]["sha256"]
    (outside / "images/d.png").unlink()
    Image.new("L", (8, 8), 0).save(outside / "masks/a.png")
    assert sources(settings(), tmp_path) != before


def test_base_models_outside_of_the_project_are_noted(tmp_path: Path, outside: Path) -> None:
    own = tmp_path.with_name(f"{tmp_path.name}-models") / "mine"
    own.mkdir(parents=True)
    (own / "config.json").write_text("{}")
    chosen = settings().model_copy(update={"policy": str(own)})
    before = sources(chosen, tmp_path)
    assert set(before) == {"holiday/test", f"model {own}"}, "the segmenter's lies inside"
    (own / "config.json").write_text('{"more": 1}')
    assert sources(chosen, tmp_path)[f"model {own}"] != before[f"model {own}"]


def test_a_folder_that_is_not_mounted_is_named(tmp_path: Path, outside: Path) -> None:
    outside.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="outside: there is no such folder"):
        sources(settings(), tmp_path)
