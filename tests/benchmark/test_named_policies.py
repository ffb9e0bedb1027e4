"""The same code answers in the stage masks, for a model that params.yaml names."""

import json
from pathlib import Path

import pytest
from answers import good
from chat_server import completion
from scripts import imported

from saliency_r1.params import load_params, parse_params
from saliency_r1.policy.adapters import Policies
from saliency_r1.prediction.split import assemble, write_part
from saliency_r1.rollout.environment import Environment
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stage():
    with imported("masks") as module:
        yield module


@pytest.fixture
def params(server):
    whole = load_yaml(ROOT / "params.yaml")
    endpoint = whole["annotate"]["endpoint"] | {"url": server.url, "temperature": 0.0, "retries": 0, "concurrency": 1}
    whole["masks"]["models"].append({"name": "other", "model": "a-model", "shots": 1, "endpoint": endpoint})
    return parse_params(whole)


def test_a_named_server_answers_in_the_stage(stage, params, server, download, rows, segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "DOWNLOAD", download)
    monkeypatch.setattr(stage, "ANNOTATIONS", download.parent / "annotations.parquet")
    monkeypatch.setattr(stage, "SERVED", tmp_path / "answers")
    environment = Environment(segmenter, download, params.rewards.model_dump(), 64, 4)
    form = good({"task": "sod", "images": [""]})
    server.replies = [lambda _: completion(form), lambda _: completion("no idea")]
    entry = params.masks.models[-1]
    with stage.answering(entry, ["sod"], Policies(download), environment) as answer:
        answers = answer(rows[:2])
        assert "Example 1, image 1:" in server.bodies[0]["messages"][0]["content"][-1]["text"]
    (tmp_path / "part").mkdir()
    write_part(tmp_path / "part", "other", answers, "segmenter")
    table = assemble(tmp_path / "masks", [tmp_path / "part"])
    assert [row["parsed"] for row in table] == [True, False]
    assert [row["token_probability"] for row in table] == [None, None], "a server does not say how sure it was"
    maps = sorted(path.name for path in (tmp_path / "masks/maps/other/sod").iterdir())
    assert maps == sorted(f"{row['names'][0]}.png" for row in rows[:2])
    json.dumps(table)


def test_where_answers_are_kept_follows_what_decides_them_alone(stage, params, tmp_path, monkeypatch):
    """A further model leaves the others where they are; another pace changes nothing, another number of shots does."""
    keys = []
    monkeypatch.setattr(stage, "ADAPTERS", {"sft": tmp_path})
    monkeypatch.setattr(stage, "run_key", lambda settings, inputs, code: keys.append((settings, list(inputs))) or "key")
    alone = load_params(ROOT / "params.yaml")
    entry = params.masks.models[-1]
    slower = entry.model_copy(update={"endpoint": entry.endpoint.model_copy(update={"requests_per_minute": 1.0})})
    more = entry.model_copy(update={"shots": 2})
    for one, model in ((alone, "sft"), (params, "sft"), (params, entry), (params, slower), (params, more)):
        stage.runs(one, model)
    assert keys[0] == keys[1]
    assert tmp_path in keys[0][1], "another adapter answers anew"
    assert tmp_path not in keys[2][1], "and not for a model that has none of it"
    assert keys[2] == keys[3]
    assert keys[3] != keys[4]
