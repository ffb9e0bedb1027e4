"""The embedded pictures: what is said of them is true, and what they show is where it is said to be."""

import importlib
import io
import json
import tarfile
from zipfile import ZipFile

import numpy as np
import pytest
from drawn import COLOURS, drawn_world
from PIL import Image
from rendered import EMBEDDED

from saliency_r1.annotation.attributes import dominant_colour
from saliency_r1.annotation.wording import PLACES

SETS = ("scenes-sod", "scenes-sis", "scenes-cosod")


@pytest.fixture(scope="module")
def world(pretrain_on_path):
    return drawn_world()


@pytest.fixture(scope="module")
def cutouts(pretrain_on_path):
    return importlib.import_module("world.cutouts")


def shipped(name):
    """The objects of an embedded archive by image."""
    with ZipFile(EMBEDDED / f"datasets/{name}.zip") as archive:
        return json.loads(archive.read("attributes.json"))


@pytest.mark.parametrize("maker", ["sod", "sis", "anything", "cluttered"])
def test_masks_are_where_the_attributes_say_and_disjoint(world, maker):
    rng = np.random.default_rng(1)
    for _ in range(25):
        scene = getattr(world, maker)(rng)
        assert np.sum(list(scene.masks.values()), axis=0).max() <= 1, "of what overlaps the front alone is visible"
        for item in scene.objects:
            rows, columns = np.nonzero(scene.masks[item.id])
            height, width = scene.masks[item.id].shape
            cell = 3 * int(3 * (rows.mean() + 0.5) / height) + int(3 * (columns.mean() + 0.5) / width)
            assert PLACES[cell] == item.place
        assert [item.id for item in scene.objects] == list(range(1, len(scene.objects) + 1))
        assert len({item.place for item in scene.objects}) == len(scene.objects)
        if maker in ("sod", "sis"):
            for item in scene.objects:
                assert item.salient is ((item.size, item.tone) == ("large", "vivid"))


def test_colours_that_are_said_are_those_of_the_picture(world):
    rng, right = np.random.default_rng(2), []
    for _ in range(40):
        scene = world.anything(rng)
        pixels = np.asarray(scene.image, np.float32)
        for item in scene.objects:
            assert (item.colour == "") is (item.tone == "faint")
            if item.colour in COLOURS:
                right.append(dominant_colour(pixels[scene.masks[item.id]]) == item.colour)
    assert np.mean(right) > 0.9
    assert len(right) > 40


@pytest.mark.parametrize("unseen", [False, True])
def test_a_group_shares_one_category_and_nothing_else(world, unseen):
    rng = np.random.default_rng(3)
    for _ in range(10):
        scenes = world.group(rng, 2, unseen)
        assert all(len(scene.objects) > 1 for scene in scenes)
        (shared,) = {item.name for scene in scenes for item in scene.objects if item.salient}
        others = [item.name for scene in scenes for item in scene.objects if not item.salient]
        assert shared not in others
        assert len(others) == len(set(others))


def test_scenes_depend_on_their_seed_alone(world):
    first, second = (world.sis(np.random.default_rng(4)) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.objects == second.objects


@pytest.mark.parametrize("name", SETS)
def test_what_is_held_out_occurs_in_the_unseen_sets_alone(cutouts, name):
    kept_out = {kind.name for kind, _, _, held_out in cutouts.load_table() if held_out}
    known = {kind.name for kind, _, _, held_out in cutouts.load_table() if not held_out}
    assert len(known) >= 60
    assert len(kept_out) >= 12
    for split in ("train", "val", "test"):
        seen = {item["name"] for objects in shipped(f"{name}-{split}").values() for item in objects}
        assert not seen & (kept_out - known)
    for objects in shipped(f"{name}-unseen-test").values():
        assert any(item["name"] in kept_out and item["salient"] for item in objects)


def test_no_two_words_of_the_table_are_the_same(cutouts):
    words = [(word, kind.name) for kind, *_ in cutouts.load_table() for word in (kind.name, *kind.also)]
    owners = {}
    for word, owner in words:
        assert owners.setdefault(word, owner) == owner
        assert " " not in word


def test_a_package_that_is_not_the_pinned_one_is_refused(cutouts, tmp_path):
    (tmp_path / "package.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"not the .* that was pinned"):
        cutouts.fetch(tmp_path)


def test_a_drawing_that_the_package_lacks_is_named(cutouts, tmp_path):
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        buffer = io.BytesIO()
        Image.new("RGBA", (4, 4), "red").save(buffer, "WEBP")
        member = tarfile.TarInfo("package/assets/1f34e.webp")
        member.size = buffer.tell()
        buffer.seek(0)
        archive.addfile(member, buffer)
    with pytest.raises(ValueError, match=r"has no drawing \S+ \([0-9a-f-]+\)"):
        cutouts.Cutouts.load(tmp_path / "p.tgz")


@pytest.mark.parametrize(
    ("pixels", "colour"),
    [
        ([(205, 40, 40)] * 40 + [(30, 30, 30)] * 60, "red"),  # a red car has tyres and windows
        ([(235, 235, 235)] * 90 + [(205, 40, 40)] * 10, "white"),
        ([(205, 40, 40)] * 34 + [(60, 140, 60)] * 33 + [(50, 90, 200)] * 33, ""),
        ([(205, 40, 40)] * 45 + [(60, 140, 60)] * 55, "green"),
        ([(205, 40, 40)] * 30 + [(235, 235, 235)] * 70, None),  # red and white: hard to say
    ],
)
def test_a_colour_is_named_as_people_do(cutouts, pixels, colour):
    assert cutouts.colour_of(np.array(pixels)) == colour
