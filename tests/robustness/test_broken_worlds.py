"""A thousand broken folders and files: every command ends in 0, 1 or 2, in words, with its inputs as they were.

An unexpected error would be caught and said by the command line (`cli/errors.py`); here it counts as a defect.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from saliency_r1.cli.app import app
from saliency_r1.data.download import download
from saliency_r1.data.fetch import Patience
from saliency_r1.params import ParamsError, load_params
from saliency_r1.prediction.predictor import Predictor
from saliency_r1.runtime.stage import describe_error, is_user_error
from saliency_r1.segmenter import Segment

from . import worlds

ROOT = Path(__file__).parents[2]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
QUICK = Patience(attempts=1, timeout=0.2, pause=0.0, longest_pause=0.0)
LONGEST = 20  # seconds for one world; a pipe that is opened, or a picture of 60,000 pixels, takes for ever
HALF = (".partial", ".part", ".new", ".old", ".unpacked")


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A world that hangs ends its test."""

    def late(number: int, frame: Any) -> None:
        raise AssertionError(f"not done after {LONGEST} s")

    before = signal.signal(signal.SIGALRM, late)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def ended(arguments: list[str]) -> int:
    """The exit code of a command that ended as commands do."""
    done = CliRunner().invoke(app, arguments)
    said = done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in (0, 1, 2), said
    assert "Traceback" not in said, said
    assert "unexpected " not in said, said
    assert done.exit_code == 0 or said.strip(), "not a word"
    assert len(said) < 20_000, "more than anybody reads"
    assert "\x1b" not in said, "an escape code reaches the terminal"
    return done.exit_code


def whole(folder: Path) -> None:
    """Nothing half-written is left in a folder."""
    left = [name for name in worlds.seen(folder) if any(end in name for end in HALF)]
    assert not left


def every(number: int, folder: Path, body: Callable[[worlds.Dice, Path], int]) -> Counter[int]:
    """Exit codes of a body in as many worlds; a world that ends badly is named by its seed."""
    folder.mkdir(exist_ok=True)
    codes: Counter[int] = Counter()
    for seed in range(number):
        world = folder / str(seed)
        world.mkdir()
        signal.alarm(LONGEST)
        try:
            codes[body(worlds.Dice(seed), world)] += 1
        except BaseException as error:
            error.add_note(f"seed {seed}, in {world}")
            raise
    return codes


@pytest.mark.slow
def test_evaluate(tmp_path: Path) -> None:
    def body(dice: worlds.Dice, world: Path) -> int:
        given = world / "given"
        names = worlds.pairs(dice, given, "pred", "gt")
        task = dice.choice(["sod", "sod", "cosod", "sis", "sis"])
        pred, gt = given / "pred", given / "gt"
        if task == "cosod" and dice.random() < 0.7:
            for where in ("pred", "gt"):
                (given / where).rename(given / "group")
                (given / where).mkdir()
                (given / "group").rename(given / where / "group")
        if task == "sis" and dice.random() < 0.7:
            gt = given / "gt.json"
            worlds.text(dice, gt, worlds.dumped(worlds.coco(dice, names)))
        if task == "sis" and dice.random() < 0.7:
            pred = given / "pred.json"
            worlds.text(dice, pred, worlds.dumped(worlds.results(dice, names)))
        options = dice.choice([[], ["--missing", "zero"], ["--resize"], ["--void", "255"], ["--empty", "zero"]])
        out = dice.choice([world / "numbers.json"] * 4 + [gt if gt.suffix else gt / "n.png", given / "gt", world])
        before = worlds.seen(given)
        call = ["evaluate", "--pred", str(pred), "--gt", str(gt), "--task", task, "--bootstrap", "0", *options]
        code = ended([*call, "--json", str(out)])
        assert worlds.seen(given) == before
        whole(world)
        if code == 0:
            json.loads(out.read_text(encoding="utf-8"))
        else:
            assert not (world / "numbers.json").exists()
        return code

    codes = every(350, tmp_path, body)
    assert min(codes[0], codes[1]) > 30, f"the worlds are all broken, or none is: {codes}"


@pytest.mark.slow
def test_download_and_data_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    good = tmp_path / "params.yaml"
    content = json.loads(json.dumps(PARAMS))
    content["download"] |= {"datasets": ["own"], "policy": "model", "segmenter": "model"}
    good.write_text(yaml.safe_dump(content))

    def body(dice: worlds.Dice, world: Path) -> int:
        _project(dice, world)
        monkeypatch.chdir(world)
        before = worlds.seen(world)
        checked = ended(["data", "check", "--params", str(good)])
        assert worlds.seen(world) == before, "a check writes nothing"
        out = world / "artifacts/download"
        failure = None
        try:
            download(load_params(good).download, world, out, QUICK)
        except Exception as error:
            failure = error
        code = 0 if failure is None else 1
        assert out.exists() == (code == 0)
        assert failure is None or is_user_error(failure), repr(failure)
        assert failure is None or 0 < len(describe_error(failure)) < 20_000
        after = worlds.seen(world)
        assert {name: after.get(name) for name in before} == before, "what was there is as it was"
        whole(world / "artifacts" if out.exists() else world)
        assert not (code == 0 and checked == 1), "a check refuses what can be imported"
        return code

    codes = every(300, tmp_path / "worlds", body)
    assert min(codes[0], codes[1]) > 30, f"the worlds are all broken, or none is: {codes}"


def _project(dice: worlds.Dice, world: Path) -> None:
    """A project with one data set, in a folder or an archive, and a catalogue that describes it more or less."""
    task = dice.choice(["sod", "sod", "sis", "cosod"])
    (world / "model").mkdir()
    (world / "model/config.json").write_text("{}")
    data = world / "data"
    own = data / "own"
    layout = dice.choice(["coco", "id_map", "colour_map"]) if task == "sis" else None
    images, masks = ("image/group", "gt/group") if task == "cosod" else ("images", "masks")
    names = worlds.pairs(dice, own, images, masks)
    split: dict[str, Any] = {"folder": "own"}
    entry: dict[str, Any] = {"task": task, "splits": {dice.choice(["train", "test"]): split}}
    if layout:
        entry["layout"] = layout
    if layout == "coco":
        split["annotations"] = "instances.json"
        worlds.text(dice, own / "instances.json", worlds.dumped(worlds.coco(dice, names)))
    if dice.random() < 0.2:
        split["names"] = "names.txt"
        worlds.text(dice, own / "names.txt", "\n".join(names))
    if dice.random() < 0.2:
        attributes = worlds.mutated(dice, {name: [{"id": 1}] for name in names}, 1)
        worlds.text(dice, own / "attributes.json", worlds.dumped(attributes))
    if task != "sis" and dice.random() < 0.5:
        rules = [{"rule": "threshold", "threshold": 1}, {"empty": "keep"}, {"void": 255}, {"empty": "drop"}]
        entry["mask"] = dice.choice(rules)
    if dice.random() < 0.4:
        del split["folder"]
        split["archive"] = "own.zip"
        worlds.zipped(dice, own, data / "own.zip")
    catalogue = worlds.mutated(dice, {"datasets": {"own": entry}}, int(dice.may(0.4)))
    if not dice.may(0.2):
        dump = yaml.safe_dump(catalogue, allow_unicode=True)
        (data / "catalogue.yaml").write_text(dump, encoding="utf-8", errors="replace")
    else:
        worlds.text(dice, data / "catalogue.yaml", worlds.dumped(catalogue))


@pytest.mark.slow
def test_params_check(tmp_path: Path) -> None:
    def body(dice: worlds.Dice, world: Path) -> int:
        path = world / "params.yaml"
        content = worlds.dumped(worlds.mutated(dice, PARAMS, dice.choice([0, 1, 1, 3])))
        if dice.random() < 0.3:
            place = dice.randrange(len(content))
            odd = dice.choice(["[", "&a *a", "!!int x", ": ", "\t", "\0", "---\n"])
            content = content[:place] + odd + content[place:]
        worlds.text(dice, path, content)
        before = worlds.seen(world)
        code = ended(["params", "check", str(path)])
        try:
            load_params(path)
        except (ParamsError, OSError):
            assert code == 1
        else:
            assert code == 0
        assert worlds.seen(world) == before
        return code

    codes = every(150, tmp_path, body)
    assert min(codes[0], codes[1]) > 15, codes


class _Policy:
    def prompt(self, images: list[Any], instruction: str) -> str:
        return instruction

    def generate(self, prompts: list[str], max_new_tokens: int, *sampled: Any) -> list[SimpleNamespace]:
        return [SimpleNamespace(text="<think>\x1b[2J</think><answer><rg>it</rg></answer>") for _ in prompts]


class _Segmenter:
    def encode(self, images: list[Any]) -> list[tuple[int, int]]:
        return [(image.height, image.width) for image in images]

    def segment(self, encoded: list[tuple[int, int]], phrases: list[list[str]]) -> list[list[Segment]]:
        return [[Segment(np.ones(size, np.float32), 0.5) for _ in row] for size, row in zip(encoded, phrases)]


@pytest.mark.slow
def test_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(_Policy(), _Segmenter())  # type: ignore[arg-type]
    monkeypatch.setattr("saliency_r1.prediction.models.load", lambda _: predictor)

    def body(dice: worlds.Dice, world: Path) -> int:
        given = world / "given"
        given.mkdir()
        names = dice.sample(worlds.NAMES, dice.choice([1, 1, 2]))
        paths = [given / f"{name}{dice.choice(worlds.SUFFIXES)}" for name in names]
        for path in paths:
            worlds.picture(dice, path, False, (20, 16))
        monkeypatch.chdir(given)
        task = dice.choice(["sod", "sis", "cosod"])
        out = dice.choice([world / "out"] * 5 + [given, paths[0], given / "deep/er"])
        before = worlds.seen(given)
        call = ["predict", *(f"./{path.name}" for path in paths), "--out", str(out), "--base", "--task", task]
        code = ended([*call, "--policy", str(ROOT), "--segmenter", str(ROOT), "--params", str(ROOT / "params.yaml")])
        after = worlds.seen(given)
        assert {name: after.get(name) for name in before} == before
        whole(world)
        if code == 0:
            assert len(list((out / "maps").iterdir())) == len(paths)
            json.loads((out / "response.json").read_text(encoding="utf-8"))
            assert ended(["evaluate", "--pred", str(out / "maps"), "--gt", str(out / "maps"), "--bootstrap", "0"]) <= 1
        return code

    codes = every(200, tmp_path, body)
    assert min(codes[0], codes[1]) > 20, codes
    assert os.getcwd()
