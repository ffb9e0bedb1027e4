"""A small download folder with its annotations, and a server that misbehaves on purpose."""

from pathlib import Path

import polars as pl
import pytest
from answers import TEST, good
from rendered import EMBEDDED, write_samples
from typer.testing import CliRunner

from saliency_r1.benchmark.prompts import Prompts
from saliency_r1.chat import ChatClient
from saliency_r1.cli.app import app
from saliency_r1.params import Endpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def download(tmp_path_factory) -> Path:
    """Of each task `TEST` test samples and two training samples, the segmenter, and annotations of the latter."""
    folder = tmp_path_factory.mktemp("world") / "download"
    folder.mkdir()
    rows = write_samples(folder, TEST + 2, seed=3)
    for row in rows:
        number = int(row["sample_id"].rpartition("/")[2])
        row["split"] = "test" if number < TEST else "train"
        row["names"] = [f"group{number}/{name}" if row["task"] == "cosod" else name for name in row["names"]]
        row["group"] = f"group{number}" if row["task"] == "cosod" else None
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "table.parquet")
    (folder / "report.json").write_text("{}")
    (folder / "models").mkdir()
    (folder / "models/segmenter").symlink_to(EMBEDDED / "models/segmenter")
    annotated = [
        {
            **{key: row[key] for key in ("sample_id", "task", "split")},
            "response": good(row),
            "kept": True,
        }
        for row in rows
        if row["split"] == "train"
    ]
    pl.DataFrame(annotated).write_parquet(folder.parent / "annotations.parquet")
    return folder


@pytest.fixture(scope="session")
def rows(download):
    """The test samples of SOD."""
    return pl.read_parquet(download / "table.parquet").filter(split="test", task="sod").to_dicts()


@pytest.fixture
def client(server, tmp_path):
    def make(**changes) -> ChatClient:
        options = Endpoint(
            url=server.url, concurrency=1, requests_per_minute=None, timeout=1.0, retries=1, backoff=0.01,
            temperature=0.0, max_requests=None, max_tokens=None, max_cost=None, prices=None,
        ).model_copy(update=changes)  # fmt: skip
        return ChatClient("a-model", 64, options, tmp_path / "answers", "endpoint")

    return make


@pytest.fixture
def prompts(download) -> Prompts:
    return Prompts(download, {})


@pytest.fixture
def invoke(download, tmp_path):
    def run(*arguments):
        places = ["--out", tmp_path / "out", "--runs", tmp_path / "runs", "--download", download]
        places += ["--annotations", download.parent / "annotations.parquet", "--params", ROOT / "params.yaml"]
        return CliRunner().invoke(app, ["benchmark", *map(str, [*arguments, *places])])

    return run
