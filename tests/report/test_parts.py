"""The parts of the page, each by itself."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from saliency_r1.cot import KINDS, REASONING
from saliency_r1.report import pictures, plots
from saliency_r1.report.examples import choose
from saliency_r1.report.lineage import lineage
from saliency_r1.report.read import Artifacts
from saliency_r1.report.response import highlight
from saliency_r1.report.tables import results


def text_of(html: str) -> str:
    """What a browser shows."""
    plain = re.sub(r"<[^>]+>", "", html)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&#34;", '"'), ("&#39;", "'"), ("&amp;", "&")):
        plain = plain.replace(entity, character)
    return plain


@pytest.mark.parametrize(
    "response",
    [
        "<think>why</think><answer><rg>the disc</rg></answer>",
        "<answer></think><rg><rg>deep</ins></answer></answer>",
        "</rg></rg><script>alert('1 & 2')</script><img src=x onerror=\"alert(1)\">",
        "",
    ],
)
def test_a_response_is_shown_as_it_is_and_nothing_of_it_is_html(response: str) -> None:
    html = str(highlight(response))
    assert text_of(html) == response
    assert set(re.findall(r"</?(\w+)", html)) <= {"span"}
    assert html.count("<span") == html.count("</span>")


@pytest.mark.parametrize("tag", REASONING)
@pytest.mark.parametrize("kind", sorted(set(KINDS.values())))
def test_reasoning_and_expressions_carry_the_class_of_their_tag(tag: str, kind: str) -> None:
    html = highlight(f"<{tag}>why</{tag}><answer><{kind}>one</{kind}><{kind}>two</{kind}></answer>")
    assert f'<span class="tag think">&lt;{tag}&gt;</span><span class="said think">why</span>' in html
    assert f'<span class="tag think end">&lt;/{tag}&gt;</span>' in html
    assert html.count(f'<span class="said {kind}">') == 2


def test_an_outline_encloses_its_mask_with_the_holes() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    mask[15:25, 30:40] = False
    path = pictures.outline(mask)
    rings = [np.array(re.findall(r"[\d.]+", ring), float).reshape(-1, 2) for ring in path.split("Z") if ring]
    areas = sorted(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2 for x, y in (ring.T for ring in rings))
    assert len(rings) == 2
    assert areas[1] == pytest.approx(600, rel=0.05)
    assert areas[0] == pytest.approx(100, rel=0.15)


def test_no_mask_is_said_in_words() -> None:
    assert "nothing" in pictures.svg("a", (10, 10), masks=[np.zeros((10, 10), bool)])
    assert "nothing" in pictures.svg("a", (10, 10), masks=[])
    assert "nothing" not in pictures.svg("a", (10, 10))


def test_painting_darkens_what_is_outside() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    pixels = np.asarray(pictures.paint(Image.new("RGB", (20, 20), (200, 200, 200)), [mask], scale=2))
    assert pixels.shape == (40, 40, 3)
    assert pixels[20, 20].tolist() == [200, 200, 200]
    assert pixels[0, 0].max() < 100


def test_large_pictures_are_made_smaller_for_the_page(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    assert len(pictures.data_uri(tmp_path / "large.png")) < 150_000
    assert pictures.data_uri(tmp_path / "large.png").startswith("data:image/jpeg;base64,")


def test_samples_are_chosen_by_rule() -> None:
    rewards = {"a": (0.1, 0.9), "b": (0.5, 0.5), "c": (0.9, 0.0), "d": (0.5, 0.6), "e": (0.4, 0.5)}
    rows = [
        {"sample_id": name, "task": "sod", "model": model, "reward": reward}
        for name, pair in rewards.items()
        for model, reward in zip(("sft", "cgpo"), pair)
    ]
    chosen = choose(pl.DataFrame(rows), "sod", ["sft", "cgpo"], 3)
    assert chosen == [("gain", "a"), ("typical", "b"), ("worst", "c")]
    assert len(choose(pl.DataFrame(rows), "sod", ["sft", "cgpo"], 9)) == 5


def test_the_best_value_knows_its_direction(artifacts: Path) -> None:
    table = results(Artifacts(artifacts))[0]
    mae = [measure.key for measure in table.measures].index("MAE")
    for block in table.blocks:
        cells = [row.cells[mae] for row in block.rows]
        best = min(cell.value for cell in cells if cell.value is not None)
        assert [cell.best for cell in cells] == [cell.value == best for cell in cells]
    assert [block.trained for block in table.blocks] == [True, False]


def test_training_plots_show_every_number_and_take_their_colours_from_the_page(artifacts: Path) -> None:
    panels = plots.training(Artifacts(artifacts).training_curves("cgpo"), "cgpo")
    joined = "".join(panels)
    for title in ("Reward and confidence", "Entropy of a token, nats", "Loss of the interleaved SFT steps"):
        assert title in joined
    assert "Novel" in joined
    assert "Seconds" not in joined
    assert "var(--cgpo)" in joined
    assert "#0101" not in joined
    assert "<metadata" not in joined


def test_lineage_names_data_parameters_and_what_stages_wrote(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 7\n")
    (tmp_path / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n"
        "  sft:\n    cmd: x\n    outs:\n    - path: artifacts/sft\n      md5: abc.dir\n"
        "  report:\n    cmd: x\n    outs:\n    - path: artifacts/report\n      md5: itself\n"
    )
    (tmp_path / "data.dvc").write_text("outs:\n- path: data\n  md5: d00d\n")
    found = lineage(tmp_path, tmp_path / "artifacts")
    assert found["stages"] == [{"stage": "sft", "path": "artifacts/sft", "hash": "md5 abc.dir"}]
    assert found["data"] == [{"path": "data", "hash": "md5 d00d"}]
    assert found["params"] == "seed: 7\n"
    assert found["packages"]["numpy"] == {"report": np.__version__}


def test_lineage_names_the_packages_that_a_stage_ran_with_not_those_installed_now(tmp_path: Path) -> None:
    for stage, torch in (("sft", "1.0"), ("cgpo", "1.0"), ("masks", "2.0")):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "versions.json").write_text(json.dumps({"python": "3.9", "torch": torch, "gone": "0.1"}))
    packages = lineage(tmp_path, tmp_path)["packages"]
    assert {"cgpo, sft": "1.0", "masks": "2.0"}.items() <= packages["torch"].items()
    assert packages["torch"]["report"] not in ("1.0", "2.0")
    assert packages["gone"] == {"cgpo, sft": "0.1", "masks": "0.1", "report": ""}


def test_lineage_is_the_same_before_and_after_a_commit(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "params.yaml").write_text("seed: 7\n")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    outside = lineage(tmp_path, tmp_path)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    assert lineage(tmp_path, tmp_path) == outside
