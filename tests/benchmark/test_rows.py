"""A row never takes the place of another one, nor mixes what two runs have measured."""

import shutil
from functools import partial

import pytest
from answers import TEST

from saliency_r1.benchmark import before, run
from saliency_r1.benchmark.errors import BenchmarkError
from saliency_r1.benchmark.rows import Entry, Measured, read_all, selection, slug
from saliency_r1.benchmark.tables import build, html, latex, markdown
from saliency_r1.cli.benchmark import _content
from saliency_r1.metrics import MeasureError


def row(name, kind, *datasets, **about):
    scores = {"measures": {"Sm": 0.5}, "intervals": {}}
    return Entry(name, kind, about, {one: Measured(one, "sod", 1, 1, "x", scores) for one in datasets})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (row("u2net", "model", "A", "B"), row("u2net", "maps", "A")),
        (row("U2Net v1", "maps", "A"), row("U2Net-v1", "maps", "A")),
        (row("empty map", "floor", "A"), row("empty-map", "model", "A")),
    ],
)
def test_a_row_of_another_kind_or_name_stays(tmp_path, first, second):
    first.write(tmp_path)
    with pytest.raises(BenchmarkError, match=rf"is the row of {first.name} \({first.kind}\).*call this one otherwise"):
        second.write(tmp_path)
    assert read_all(tmp_path) == [first]
    with pytest.raises(BenchmarkError, match="call this one otherwise"):
        before.check_name(tmp_path, second.name, second.kind)


def test_nothing_is_asked_for_a_row_whose_place_is_taken(server, invoke, tmp_path):
    row("mine", "maps", "A").write(tmp_path / "out")
    refused = invoke("--model", server.url, "--served", "a-model", "--name", "mine", "--data", "sod")
    assert refused.exit_code == 1
    assert "is the row of mine (maps)" in " ".join(refused.output.split())
    assert not server.bodies


def test_maps_of_two_runs_are_not_mixed(download, tmp_path, monkeypatch):
    monkeypatch.setattr(run.measure, "scores_of_folder", lambda *_: None)
    monkeypatch.setattr(run.measure, "summary", lambda _: {"measures": {"Sm": 0.5}, "intervals": {}})

    def measure(name, place):
        bench = run.Benchmark(*before.select(download, [name], None, "test"), environment, {}, tmp_path, tmp_path)
        run.measure_maps(bench, "mine", tmp_path / place)
        (entry,) = read_all(tmp_path)
        return entry

    environment = type("Environment", (), {"folder": download})
    assert list(measure("sod", "run1/maps").datasets) == ["sod"]
    assert list(measure("sis", "run1/../run1/maps").datasets) == ["sod", "sis"], "the same folder"
    other = measure("cosod", "run2/maps")
    assert list(other.datasets) == ["cosod"]
    assert other.datasets["cosod"].images == 2 * TEST
    table = build("cosod", [other])
    assert not any(str(tmp_path) in text for text in (markdown(table), html(table), latex(table)))


def test_what_predict_has_written_is_read_as_evaluate_does(download, rows, tmp_path):
    """Its maps, not the overlays beside them; what is wrong names the place, and no option that benchmark lacks."""
    for name, content in (("maps", "masks"), ("overlays", "images")):
        (tmp_path / name).mkdir()
        for row in rows:
            shutil.copy(download / row[content][0], tmp_path / name / f"{row['names'][0]}.png")
    (tmp_path / "response.json").write_text("{}")
    score = partial(run.measure.scores_of_folder, rows, download, "mine", tmp_path, True)
    assert score().measures["Sm"] == pytest.approx(1)
    (tmp_path / f"maps/{rows[0]['names'][0]}.png").unlink()
    (tmp_path / f"maps/{rows[1]['names'][0]}.png").unlink()
    with pytest.raises(MeasureError, match=r"(?s)maps beside the sod data set sod: .*2 missing: ") as told:
        score()
    assert "--" not in str(told.value)


def test_the_key_of_a_selection_is_its_samples_pictures_and_masks(tmp_path):
    for name, content in (("i", "picture"), ("m", "mask"), ("other", "mask")):
        (tmp_path / name).write_text(content)
    one, two = ({"sample_id": name, "images": ["i"], "masks": ["m"]} for name in "ab")
    keys = [selection(rows, tmp_path) for rows in ([one], [two], [one, two])]
    assert len(set(keys)) == 3
    assert selection([two, one], tmp_path) == keys[2]
    for changed in "im":
        (tmp_path / changed).write_text("another")
        keys.append(selection([one], tmp_path))
    assert len(set(keys)) == 5


def test_a_data_set_that_was_imported_anew_is_not_compared(tmp_path):
    """The rows have the same sample ids; the masks have changed since the first was measured."""

    def measured(selection, value):
        return Measured("A", "sod", 9, 9, selection, {"measures": {"Sm": value}, "intervals": {}})

    rows = {"old": ("model", "before", 0.9), "new": ("model", "now", 0.8), "theirs": ("maps", "now", 0.7)}
    rows["empty map"] = ("floor", "now", 0.4)
    entries = [Entry(name, kind, {}, {"A": measured(key, value)}) for name, (kind, key, value) in rows.items()]
    lines = {line.method: line for line in build("A", entries).lines}
    assert {name: line.marks for name, line in lines.items()} == {"old": "‡", "new": "", "theirs": "", "empty map": ""}
    assert [name for name, line in lines.items() if any(line.best)] == ["new"]


def test_an_adapter_of_other_content_leaves_no_number_of_the_first(tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    found = []
    for weights, datasets in (("first", "AB"), ("first", "A"), ("second", "A")):
        (adapter / "weights").write_text(weights)
        row("mine", "model", *datasets, adapter=str(adapter), content=_content("hub/name", adapter)).write(tmp_path)
        found.append("".join(read_all(tmp_path)[0].datasets))
    assert found == ["AB", "AB", "A"]
    assert _content("hub/name", None) is None


def test_a_slug_is_a_name_that_a_model_may_have():
    assert [slug(name) for name in ("a b", "+model", ".x", "../", "DUT+", "\u6a21")] == [
        "a-b", "model", "x", "model", "DUT+", "\u6a21",
    ]  # fmt: skip


def test_hidden_files_are_no_rows(tmp_path):
    row("mine", "model", "set").write(tmp_path)
    (tmp_path / "rows/._mine.json").write_bytes(b"what macOS leaves")
    assert [entry.name for entry in read_all(tmp_path)] == ["mine"]
