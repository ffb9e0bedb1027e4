"""Test images in training splits are found by content and by looks, and nothing else is."""

from io import BytesIO
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from saliency_r1.data.images import thumbnail
from saliency_r1.data.leaks import find_leaks

from .toys import Project, mask, pairs, picture


def index(*rows: tuple[str, str, str, Image.Image]) -> pl.DataFrame:
    """`(dataset, split, name, picture)`; the hash is that of the pixels."""
    entries = [
        {"dataset": d, "split": s, "name": n, "sha256": str(hash(image.tobytes())), "thumbnail": thumbnail(image)}
        for d, s, n, image in rows
    ]
    return pl.DataFrame(entries)


def saved_again(image: Image.Image, scale: float = 0.5, quality: int = 40) -> Image.Image:
    buffer = BytesIO()
    size = (round(image.width * scale), round(image.height * scale))
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def test_twins_are_found_in_the_split_nearer_to_the_test() -> None:
    one, two, three = (picture(seed, (400, 300)) for seed in range(3))
    leaks = find_leaks(
        index(
            ("ilso", "train", "a", one),
            ("ilso", "train", "b", saved_again(two)),
            ("ilso", "train", "c", three),
            ("ilso", "val", "d", saved_again(two, 0.7)),
            ("ecssd", "test", "1", one),
            ("ecssd", "test", "2", two),
            ("ecssd", "test", "1 again", one),
        )
    )
    assert leaks.rows() == [
        ("ilso", "train", "a", "ecssd/test/1", "content"),
        ("ilso", "train", "b", "ilso/val/d", "looks"),
        ("ilso", "val", "d", "ecssd/test/2", "looks"),
    ]


def test_one_split_alone_has_no_leaks() -> None:
    one = picture(0)
    assert find_leaks(index(("a", "test", "1", one), ("b", "test", "1", one))).is_empty()


def test_a_small_difference_is_a_difference() -> None:
    one, other = picture(0, (96, 96)), picture(0, (96, 96))
    other.paste((255, 0, 0), (40, 40, 52, 52))
    assert find_leaks(index(("a", "train", "1", one), ("a", "test", "1", other))).is_empty()


def test_a_spot_that_the_mean_hardly_sees_is_a_difference() -> None:
    one = picture(0, (96, 96))
    other, place = one.copy(), (42, 42, 48, 48)  # one pixel of a thumbnail
    mean = one.crop(place).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    other.paste(tuple((level + 128) % 256 for level in mean), place)
    assert find_leaks(index(("a", "train", "1", one), ("a", "test", "1", other))).is_empty()


def test_of_several_look_alikes_the_nearest_is_named() -> None:
    one = picture(0, (96, 96))
    lighter = one.point(lambda level: min(level + 4, 255))
    leaks = find_leaks(
        index(("a", "train", "1", saved_again(one)), ("a", "test", "lighter", lighter), ("a", "test", "one", one))
    )
    assert leaks["twin"].to_list() == ["a/test/one"]


@pytest.fixture
def leaky(project: Project, tmp_path: Path) -> Project:
    """Training image 0001 is test image 0001, saved again."""
    train, test = pairs(tmp_path / "train", 3, seed=0), pairs(tmp_path / "test", 2, seed=50)
    for folder in (train, test):
        mask((160, 120)).save(folder / "masks/0001.png")
    picture(99, (160, 120)).save(test / "images/0001.jpg", quality=95)
    saved_again(picture(99, (160, 120)), 1.0, 60).save(train / "images/0001.jpg")
    project.add("learn", train, "train")
    project.add("judge", test, "test")
    return project


def test_they_are_left_out_of_training(leaky: Project) -> None:
    for _ in range(2):  # an import that is reused must not bring them back
        table = leaky.run()
        assert table.filter(split="train")["names"].explode().to_list() == ["0000", "0002"]
        assert len(table.filter(split="test")) == 2
        (leak,) = leaky.report()["leaks"]
        assert (leak["name"], leak["twin"], leak["how"]) == ("0001", "judge/test/0001", "looks")


def test_or_kept_where_the_catalogue_says_so(leaky: Project) -> None:
    leaky.datasets["learn"]["keep_leaks"] = True
    assert len(leaky.run().filter(split="train")) == 3
    assert len(leaky.report()["leaks"]) == 1


def test_a_group_loses_only_the_image_concerned(project: Project, tmp_path: Path) -> None:
    for number in range(3):
        for side, image in (("image", picture(number)), ("gt", mask())):
            path = tmp_path / f"groups/{side}/cat/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    test = pairs(tmp_path / "test", 1)
    (tmp_path / "groups/image/cat/1.png").replace(test / "images/0000.png")
    (test / "images/0000.jpg").unlink()
    picture(1).save(tmp_path / "groups/image/cat/1.png")
    project.add("together", tmp_path / "groups", "train", task="cosod")
    project.add("judge", test)
    table = project.run().filter(task="cosod")
    assert table["names"].to_list() == [["cat/0", "cat/2"]]
