"""A model that goes to a hub and comes back, on a hub of this machine's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from own_hub import Hub
from PIL import Image
from rendered import EMBEDDED

ROOT = Path(__file__).parents[2]
POLICY, SEGMENTER = EMBEDDED / "models/policy", EMBEDDED / "models/segmenter"


def environment(hub: Hub, home: Path) -> dict[str, str]:
    own = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return own | {"HF_TOKEN": "hf_of_nobody", "HF_HUB_OFFLINE": "0"}


def saliency_r1(hub: Hub, home: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the hub's client reads its address when it is imported."""
    call = [sys.executable, "-m", "saliency_r1.cli", *map(str, words)]
    own = environment(hub, home)
    return subprocess.run(call, env=own, capture_output=True, text=True, check=False, cwd=home, timeout=300)


@pytest.fixture
def hub() -> Hub:
    return Hub()


def test_a_policy_and_a_segmenter_of_the_hub_are_said_and_fetched(hub: Hub, tmp_path: Path) -> None:
    for name, folder in (("them/policy", POLICY), ("them/segmenter", SEGMENTER)):
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        hub.repositories[name] = {
            "private": False,
            "files": files | {"modeling.py": b"raise SystemExit('code was run')"},
        }
    Image.new("RGB", (32, 24), "red").save(tmp_path / "a.png")
    call = ["predict", tmp_path / "a.png", "--model", "them/policy", "--out", tmp_path / "out"]
    alone = saliency_r1(hub, tmp_path, *call)
    assert alone.returncode == 1
    assert "them/policy is a policy alone: name a segmenter" in alone.stderr
    size = sum(len(data) for file, data in hub.repositories["them/policy"]["files"].items() if file != "modeling.py")
    assert f"them/policy@{hub.commit('them/policy')}: {size / 1e6:.1f} MB to be fetched in 7 files" in alone.stderr
    done = saliency_r1(hub, tmp_path, *call, "--segmenter", "them/segmenter")
    assert done.returncode == 0, done.stderr
    assert "them/policy@" not in done.stderr, "what is here is not fetched again"
    assert "them/segmenter@" in done.stderr
    assert (tmp_path / "out/maps/a.png").is_file()
    assert not any("modeling.py" in request for request in hub.requests)
    hub.server.shutdown()
    hub.server.server_close()
    again = saliency_r1(hub, tmp_path, *call, "--segmenter", "them/segmenter")
    assert again.returncode == 0, "without a network, what was fetched serves: " + again.stderr


def test_what_the_hub_does_not_have_is_said_in_one_line(hub: Hub, tmp_path: Path) -> None:
    Image.new("RGB", (32, 24), "red").save(tmp_path / "a.png")
    done = saliency_r1(hub, tmp_path, "predict", tmp_path / "a.png", "--model", "them/nothing")
    assert done.returncode == 1
    assert "them/nothing is not to be had from the Hugging Face hub" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_pushed_model_is_private_and_comes_back(hub: Hub, tmp_path: Path) -> None:
    models = ["--policy", POLICY, "--segmenter", SEGMENTER, "--adapter", POLICY, "--params", ROOT / "params.yaml"]
    pushed = saliency_r1(hub, tmp_path, "export", tmp_path / "model", *models, "--push", "me/model")
    assert pushed.returncode == 0, pushed.stderr
    repository = hub.repositories["me/model"]
    assert repository["private"] is True
    there = {file: data for file, data in repository["files"].items() if not file.startswith(".git")}
    here = {
        file.relative_to(tmp_path / "model").as_posix(): file.read_bytes()
        for file in (tmp_path / "model").rglob("*")
        if file.is_file()
    }
    assert there == here
    Image.new("RGB", (32, 24), "red").save(tmp_path / "a.png")
    name = f"me/model@{hub.commit('me/model')}"
    done = saliency_r1(hub, tmp_path, "predict", tmp_path / "a.png", "--model", name, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/maps/a.png").is_file()
    repository["private"] = False
    refused = saliency_r1(hub, tmp_path, "export", tmp_path / "model", *models, "--push", "me/model")
    assert refused.returncode == 1
    assert "me/model is there already, and public" in refused.stderr


def test_what_an_earlier_export_has_left_goes(hub: Hub, tmp_path: Path) -> None:
    """An adapter beside a merged model would be put on top of it; what a person has written there stays."""
    left = ("adapter_config.json", "adapter_model.safetensors", "base/config.json", "model.safetensors")
    files = dict.fromkeys((*left, "notes.md", "config.json"), b"old")
    hub.repositories["me/model"] = {"private": True, "files": files}
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / "model" / name).write_bytes(b"new")
    code = "import sys; from pathlib import Path; from saliency_r1.prediction.export import push;"
    done = subprocess.run(
        [sys.executable, "-c", f"{code} push(Path('model'), 'me/model')"],
        env=environment(hub, tmp_path), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    there = {name: data for name, data in hub.repositories["me/model"]["files"].items() if name[:4] != ".git"}
    assert there == {"config.json": b"new", "model.safetensors": b"new", "README.md": b"new", "notes.md": b"old"}
