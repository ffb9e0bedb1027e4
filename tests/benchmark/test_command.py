"""The whole command: rows, floors, tables in three formats, what it would cost, what it refuses."""

import json
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from answers import TEST, good
from chat_server import completion
from PIL import Image
from scripts import ROOT

from saliency_r1.benchmark.before import select
from saliency_r1.benchmark.rows import Entry, Measured, read_all
from saliency_r1.benchmark.tables import build, html, latex, markdown


def test_from_a_server_to_the_tables(server, invoke, download, tmp_path):
    form = good({"task": "sod", "images": [""]})
    asked = [
        "--model",
        server.url,
        "--served",
        "a-model",
        "--name",
        "mine",
        "--data",
        "SOD",
        "--limit",
        4,
        "--shots",
        1,
    ]
    dry = invoke(*asked, "--dry-run", "--prices", "1,2")
    assert dry.exit_code == 0, dry.output
    assert "4 samples, 4 still to be asked" in dry.output
    assert f"at most {4 * 128}" in dry.output
    assert not server.bodies
    server.replies = [lambda _: (400, b"no such model")]
    failed = invoke(*asked)
    assert failed.exit_code == 1
    assert "4 of 4 answers are missing (transport)" in failed.output
    assert not list((tmp_path / "out").rglob("*.md")), "no table of an incomplete run"
    server.bodies.clear()
    server.replies = [lambda _: completion(form), lambda _: completion(f"So: {form}"), lambda _: completion("no idea")]
    done = invoke(*asked)
    assert done.exit_code == 0, done.output
    assert len(server.bodies) == 4
    parts = server.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"], "an example and its own"
    assert f"Example 1, image 1:\n{form}" in parts[-1]["text"]
    rows = {entry.name: entry for entry in read_all(tmp_path / "out")}
    assert {entry.kind for entry in rows.values()} == {"model", "floor", "ceiling"}
    mine = rows["mine"]
    assert mine.about["served"] == ["served-model"]
    assert mine.about["shots"]["sod"]["shots"] == 1
    assert mine.datasets["sod"].failures["strict"] == {"refused": 0, "truncated": 0, "unparsed": 3}
    assert mine.datasets["sod"].failures["lenient"] == {"refused": 0, "truncated": 0, "unparsed": 2}
    scores = {name: entry.datasets["sod"].strict["measures"] for name, entry in rows.items()}
    assert scores["segmenter, phrases of the truth"]["Sm"] > scores["empty map"]["Sm"]
    masks = [np.array(Image.open(download / f"sod{number}0.png")) > 0 for number in (0, 3, 7, 10)]
    assert scores["empty map"]["MAE"] == pytest.approx(np.mean([mask.mean() for mask in masks]), abs=1e-6)
    server.bodies.clear()
    page = (tmp_path / "out/sod.md").read_text()
    assert invoke(*asked).exit_code == 0
    assert not server.bodies, "all of it is known"
    assert (tmp_path / "out/sod.md").read_text() == page
    # Maps of another method, here those of the first reading, are the same row under another name.
    maps = invoke("--maps", f"theirs={tmp_path / 'out/mine/sod/maps/answers'}", "--data", "sod", "--limit", 4)
    assert maps.exit_code == 0, maps.output
    theirs = {entry.name: entry for entry in read_all(tmp_path / "out")}["theirs"]
    assert theirs.datasets["sod"].strict == mine.datasets["sod"].strict


def test_a_dry_run_needs_neither_torch_nor_the_segmenter(download, tmp_path):
    world = tmp_path / "download"
    shutil.copytree(download, world, ignore=shutil.ignore_patterns("models"))
    script = (
        "import sys\nfrom saliency_r1.cli.app import app\ntry: app()\n"
        "finally: print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    asked = ["benchmark", "--model", "http://127.0.0.1:9/v1", "--served", "a-model", "--data", "sod", "--dry-run"]
    places = ["--download", world, "--params", ROOT / "params.yaml", "--runs", tmp_path / "runs", "--maps", "gone=gone"]
    done = subprocess.run([sys.executable, "-c", script, *asked, *places], capture_output=True, text=True, cwd=tmp_path)
    assert f"{TEST} samples, {TEST} still to be asked" in done.stdout, done.stderr
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "x", "--data", "nowhere"], "has no data set nowhere with a split test; known are sod, sis, cosod"),
        (["--model", "http://127.0.0.1:9/v1", "--data", "sod"], "no server answers at http://127.0.0.1:9/v1"),
        (["--maps", "theirs=gone", "--data", "sod"], "gone is not a folder"),
        (["--data", "sod"], "name a data set"),
        (["--model", "x", "--data", "sod", "--name", "my model"], "alone, such as my-model"),
        (["--model", "x", "--data", "sod", "--name", "cgpo"], "the pipeline trains a model of that name"),
        (["--maps", "gone", "--data", "sod"], "expected NAME=FOLDER"),
        (["--maps", "U2Net v1=x", "--data", "sod"], "--maps 'U2Net v1': of letters"),
        (["--maps", "a=x", "--maps", "a=y", "--data", "sod"], "another folder of that name"),
        (["--maps", "a=x", "--model", "a", "--data", "sod"], "the model's row is called so"),
        (["--maps", "empty-map=x", "--data", "sod"], "the row of a floor or a ceiling"),
        (["--model", "x", "--name", "empty-map", "--data", "sod"], "the row of a floor or a ceiling"),
        (["--model", "runs/sft", "--data", "sod"], "as the model that the pipeline trains; give it a --name"),
        (["--model", "models/base/", "--data", "sod"], "as the model that the pipeline trains; give it a --name"),
        (["--model", "x", "--data", "sod", "--max-cost", "1"], "--max-cost is a positive sum and needs --prices"),
        (["--model", "http://h/v1", "--served", "x", "--data", "sod", "--shots", "9"], "2 annotated training samples"),
    ],
)
def test_a_refusal_is_one_paragraph(invoke, arguments, message):
    done = invoke(*arguments)
    assert done.exit_code in (1, 2)
    assert message in " ".join(done.output.replace("│", " ").split())
    assert "Traceback" not in done.output


def test_a_table_has_literature_marks_and_no_markup_of_a_name():
    measured = Measured(
        *("ecssd", "sod", 10, 1000, ""),
        strict={"measures": {"Sm": 0.5}, "intervals": {}},
        lenient={"measures": {"Sm": 0.75}},
        failures={"strict": {"unparsed": 3}, "lenient": {"unparsed": 1}},
    )
    table = build("ecssd", [Entry("<b>a|b_%</b>", "model", {"shots": {}}, {"ecssd": measured})])
    row = next(line for line in table.lines if line.kind == "asked here")
    assert (row.marks, row.images, row.failures) == ("†", "10 of 1000", "3 (1)")
    assert row.cells[table.measures.index("Sm")] == "0.500 (0.750)"
    literature = [line for line in table.lines if line.kind == "literature"]
    assert len(literature) > 5
    assert "*" in {line.marks for line in literature}
    assert "<b>" not in html(table)
    assert "a\\|b" in markdown(table)
    assert r"a\textbar{}b\_\%" in latex(table)
    rows = [line for line in latex(table).splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1


def test_the_best_on_the_same_pictures_is_bold_and_floors_are_not():
    def entry(name, kind, sm, mae, selection="a"):
        scores = {"measures": {"Sm": sm, "MAE": mae}, "intervals": {}}
        return Entry(name, kind, {}, {"mine": Measured("mine", "sod", 10, 10, selection, strict=scores)})

    entries = [
        entry("worse", "model", 0.7, 0.1), entry("better", "model", 0.8, 0.2), entry("theirs", "maps", 0.80004, 0.3),
        entry("other pictures", "model", 0.9, 0.01, "b"), entry("truth", "ceiling", 1.0, 0.0),
    ]  # fmt: skip
    table = build("mine", entries)
    assert [line.method for line in table.lines] == ["theirs", "other pictures", "better", "worse", "truth"]
    assert {line.method: line.best for line in table.lines} == {
        "theirs": (True, False), "other pictures": (False, False), "better": (True, False), "worse": (False, True),
        "truth": (False, False),
    }  # fmt: skip
    assert "| better | **0.800** | 0.200 |" in markdown(table)
    assert r"better & \textbf{0.800} & 0.200 &" in latex(table)
    assert "<td><b>0.800</b></td><td>0.200</td>" in html(table)


def test_a_row_that_is_none_is_named(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/x.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(ValueError, match=r"x\.json is no row of a benchmark"):
        read_all(tmp_path)


def test_all_samples_of_a_task_are_there(download):
    samples, of = select(download, ["cosod"], 3, "test")
    assert len(samples["cosod"]) == 3
    assert of == {"cosod": 2 * TEST}


def test_a_data_set_of_that_very_name_comes_before_its_twin(tmp_path):
    keys = {
        "task": "sod",
        "split": "test",
        "images": ["i"],
        "masks": ["m"],
        "names": ["x"],
        "group": None,
        "meta": "{}",
    }
    twins = [keys | {"sample_id": f"{name}/test/x", "dataset": name} for name in ("ECSSD", "ecssd", "CoCA")]
    pl.DataFrame(twins).write_parquet(tmp_path / "table.parquet")
    assert list(select(tmp_path, ["ECSSD", "ecssd", "coca"], None, "test")[0]) == ["ECSSD", "ecssd", "CoCA"]
    with pytest.raises(ValueError, match="no data set Ecssd"):
        select(tmp_path, ["Ecssd"], None, "test")
