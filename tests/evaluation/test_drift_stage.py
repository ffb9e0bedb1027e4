"""The script that asks whether the data moved, and a champion of an earlier version that does not say what its was."""

import re
import sys
from pathlib import Path

import polars as pl
import pytest
from scripts import imported

from saliency_r1.data.describe import SCHEMA
from saliency_r1.params import load_params

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
ROWS = pl.DataFrame([("d", "train", 100.0, 1.0, 0.3, 1.0)] * 5, SCHEMA, orient="row")


@pytest.mark.parametrize("lacking", ["data.parquet", "objects"])
def test_where_the_champions_data_is_not_said_the_night_is_warned_and_goes_on(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["drift.py", "champion"])
    Path("champion").mkdir()
    Path("records").mkdir()
    Path("artifacts/download").mkdir(parents=True)
    ROWS.write_parquet("artifacts/download/table.parquet")
    ROWS.write_parquet("champion/data.parquet")
    with imported("drift") as script:
        monkeypatch.setattr(script, "describe", lambda table, folder: table)
        script.main(PARAMS)
        assert capsys.readouterr().out == "moved since the champion's data: nothing\n"
        assert Path("records/drift.json").exists()
        if lacking == "objects":
            ROWS.drop("objects").write_parquet("champion/data.parquet")
        else:
            Path("champion/data.parquet").unlink()
        script.main(PARAMS)
    words = r"WARNING: champion/data.parquet has no .*objects: whether the data moved .* cannot be told"
    assert re.match(words, capsys.readouterr().out)
    assert not Path("records/drift.json").exists()
