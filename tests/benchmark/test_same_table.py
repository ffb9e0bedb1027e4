"""One policy in this process and behind a server: the same answers, and the same table to the last digit."""

import json
import threading
from pathlib import Path

import pytest
from policy_server import NAME, PolicyServer, needs_transformers_serve, transformers_serve
from rendered import EMBEDDED
from typer.testing import CliRunner

from saliency_r1 import cot
from saliency_r1.benchmark.rows import read_all
from saliency_r1.cli.app import app
from saliency_r1.params import Lora, load_params, parse_params
from saliency_r1.policy import Policy
from saliency_r1.rollout.environment import Environment
from saliency_r1.training import sft
from saliency_r1.training.optimiser import save_adapter, wrap
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[2]
LORA = Lora(r=16, alpha=32, dropout=0.0, targets=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj", modules_to_save=())
SAID = cot.render("It stands out.", [cot.Expression("rg", 0, "the large object")])


@pytest.fixture(scope="module")
def adapter(download, rows, segmenter, tmp_path_factory) -> Path:
    """Some steps on two pictures and one sentence: it answers in form."""
    folder = tmp_path_factory.mktemp("adapter")
    params = load_params(ROOT / "params.yaml")
    whole = load_yaml(ROOT / "params.yaml")
    whole["sft"] |= {"steps": 20, "batch_size": 2, "micro_batch": 2, "warmup": 1, "lr": 1e-2, "average": 0.0}
    policy = wrap(Policy.load(EMBEDDED / "models/policy", **params.policy.loading), LORA, seed=1)
    environment = Environment(segmenter, download, params.rewards.model_dump(), params.policy.max_new_tokens, 4)
    examples = sft.Examples(rows[:2], [SAID] * 2)
    list(sft.train(policy, environment, examples, parse_params(whole).sft, 0, folder / "runs"))
    save_adapter(policy, folder / "adapter")
    return folder / "adapter"


@pytest.mark.slow
def test_the_table_is_the_same_to_the_last_digit(invoke, adapter, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = EMBEDDED / "models/policy"
    how = ["--data", "sod", "cosod", "--limit", 4, "--plain"]
    inside = invoke("--model", folder, "--adapter", adapter, "--name", "inside", *how)
    assert inside.exit_code == 0, inside.output
    policy = Policy.load(folder, adapter, **load_params(ROOT / "params.yaml").policy.loading)
    with PolicyServer(policy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        behind = invoke("--model", server.url, "--name", "behind", *how)
        assert behind.exit_code == 0, behind.output
        assert len(server.bodies) == 8
        again = invoke("--model", server.url, "--name", "behind", *how)
        assert again.exit_code == 0
        assert len(server.bodies) == 8
        server.shutdown()
    rows = {entry.name: entry for entry in read_all(tmp_path / "out")}
    assert rows["behind"].about["served"] == [NAME]
    assert rows["inside"].datasets == rows["behind"].datasets
    assert rows["inside"].datasets["sod"].failures["strict"]["unparsed"] < 4, "maps of nothing show nothing"
    assert rows["inside"].datasets["sod"].strict != rows["empty map"].datasets["sod"].strict


@pytest.fixture
def merged(adapter, tmp_path) -> Path:
    """The trained policy as a folder that anything reads: `saliency-r1 export --merge`."""
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/metrics.json").write_text(json.dumps({adapter.parent.name: {}}))
    places = ["--policy", EMBEDDED / "models/policy", "--segmenter", EMBEDDED / "models/segmenter"]
    places += ["--adapter", adapter, "--metrics", tmp_path / "metrics", "--params", ROOT / "params.yaml"]
    done = CliRunner().invoke(app, list(map(str, ["export", tmp_path / "merged", "--merge", *places])))
    assert done.exit_code == 0, done.output
    return tmp_path / "merged"


@pytest.mark.slow
@needs_transformers_serve
def test_the_table_is_the_same_behind_a_server_of_transformers(invoke, merged, tmp_path, monkeypatch):
    """It decodes the pictures, fills in the chat template, generates and takes the reasoning out by its own code."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    how = ["--data", "sod", "cosod", "sis", "--limit", 4, "--plain"]
    inside = invoke("--model", merged, "--name", "inside", *how)
    assert inside.exit_code == 0, inside.output
    with transformers_serve(tmp_path / "log") as url:
        behind = invoke("--model", url, "--served", merged, "--name", "behind", *how)
        assert behind.exit_code == 0, behind.output
    rows = {entry.name: entry for entry in read_all(tmp_path / "out")}
    assert rows["behind"].about["served"] == [f"{merged}@main"]
    assert rows["inside"].datasets == rows["behind"].datasets
    assert rows["inside"].datasets["sod"].failures["strict"]["unparsed"] < 4, "maps of nothing show nothing"
