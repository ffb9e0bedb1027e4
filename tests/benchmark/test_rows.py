"""A row never takes the place of another one, nor mixes what two runs have measured."""

import pytest
from answers import TEST

from saliency_r1.benchmark import before, run
from saliency_r1.benchmark.errors import BenchmarkError
from saliency_r1.benchmark.rows import Entry, Measured, read_all, slug
from saliency_r1.benchmark.tables import build, html, latex, markdown


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


def test_a_slug_is_a_name_that_a_model_may_have():
    assert [slug(name) for name in ("a b", "+model", ".x", "../", "DUT+", "\u6a21")] == [
        "a-b", "model", "x", "model", "DUT+", "\u6a21",
    ]  # fmt: skip


def test_hidden_files_are_no_rows(tmp_path):
    row("mine", "model", "set").write(tmp_path)
    (tmp_path / "rows/._mine.json").write_bytes(b"what macOS leaves")
    assert [entry.name for entry in read_all(tmp_path)] == ["mine"]
