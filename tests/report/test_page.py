"""The page as a whole: complete, self-contained, harmless, and the same every time."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from saliency_r1.params import Params
from saliency_r1.report.page import build

from .world import HOSTILE


class Tags(HTMLParser):
    """Counts elements, collects ids, and checks that what is opened is closed."""

    VOID = ("meta", "br", "image", "use", "path", "line", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.addresses += [value for name, value in attrs if name in ("href", "src", "xlink:href") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(artifacts: Path, params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    build(artifacts, folder, params, root=artifacts)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tags(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_the_page_is_well_formed_and_its_ids_are_unique(tags: Tags) -> None:
    assert not tags.open
    assert len(tags.ids) == len(set(tags.ids))


def test_the_page_needs_no_network_and_runs_nothing(page: str, tags: Tags) -> None:
    assert not {"script", "link", "iframe", "object"} & set(tags.seen)
    assert all(address.startswith(("#", "data:image/")) for address in tags.addresses)
    # Namespaces of SVG are names, not addresses.
    assert not re.findall(r"https?://(?!www\.w3\.org/)", page)
    assert "url(http" not in page
    assert "@import" not in page


def test_every_reference_leads_somewhere(page: str, tags: Tags) -> None:
    wanted = {address[1:] for address in tags.addresses if address.startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert wanted <= set(tags.ids)


def test_the_text_of_a_model_stays_text(page: str) -> None:
    assert "<script" not in page
    assert "<b>red</b>" not in page
    assert "&lt;script&gt;alert(" in page
    assert "alert(" in HOSTILE


SECTIONS = ("results", "gain", "examples", "training", "calibration", "curves", "annotations", "checks", "lineage")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_there(section: str, tags: Tags) -> None:
    assert section in tags.ids


def test_results_of_all_models_and_data_sets_are_listed(page: str) -> None:
    for task in ("sod", "sis", "cosod"):
        assert f"<code>scenes-{task}</code>" in page
        assert f"<code>scenes-{task}-unseen</code>" in page
    assert page.count("new: no training samples</span>") == 3
    assert page.count('<th scope="row"><span class="dot cgpo">') == 6


def test_no_time_and_no_place_is_written(page: str, artifacts: Path) -> None:
    assert str(artifacts) not in page
    assert not re.search(r"\b\d{1,2}:\d{2}:\d{2}\b", page)


def test_equal_inputs_give_equal_files(folder: Path, artifacts: Path, params: Params, tmp_path: Path) -> None:
    build(artifacts, tmp_path, params, root=artifacts)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["index.html", "overview.png", "results.md"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_table_for_the_terminal_marks_the_best(folder: Path) -> None:
    text = (folder / "results.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| scenes-sod | CGPO |"))
    assert "**0." in line
    assert "CGPO over SFT: mean test reward" in text


def test_the_overview_is_a_picture_of_two_examples_a_task(folder: Path) -> None:
    with Image.open(folder / "overview.png") as image:
        assert image.width > 1000
        assert image.height > 700


def test_one_model_makes_a_page_too(artifacts: Path, params: Params, tmp_path: Path) -> None:
    from saliency_r1.evaluation.split import evaluate

    alone = tmp_path / "artifacts"
    alone.mkdir()
    for stage in ("download", "masks", "annotate", "sft", "cgpo", "checks"):
        (alone / stage).symlink_to(artifacts / stage)
    (alone / "metrics").mkdir()
    evaluate(alone / "download", alone / "masks", "test", ["sft"]).write(alone / "metrics")
    build(alone, tmp_path, params, root=tmp_path)
    assert 'id="gain"' not in (tmp_path / "index.html").read_text(encoding="utf-8")
