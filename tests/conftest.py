"""Fixtures that more than one folder of tests uses: the embedded bases and a few samples."""

import os
import threading
from pathlib import Path

import pytest
from chat_server import Server
from rendered import EMBEDDED, write_samples

# What tests start finds what tests find (pyproject.toml, pythonpath): the code of this tree, whatever is installed.
TREE = Path(__file__).parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join(str(TREE / folder) for folder in ("src", "", "tests"))

# Files of minutes, the longest first: of two processes neither is to begin one of these when the other has finished.
LONGEST = (
    "pipeline/test_photographs.py",
    "training/test_processes.py",
    "pipeline/test_two_machines.py",
    "flows/test_random_kills.py",
    "pipeline/test_fresh_clone.py",
    "pipeline/test_night.py",
    "flows/test_machines.py",
    "pipeline/test_readme.py",
    "flows/test_serve.py",
    "flows/test_serving_again.py",
)


def pytest_collection_modifyitems(items):
    """Put the files of `LONGEST` first; the others stay as they are."""
    place = {TREE / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The models here are tiny: more threads cost more than they bring, and a lot more on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def policy():
    """The embedded base policy; tests must not change it."""
    import torch

    from saliency_r1.policy import Policy

    torch.manual_seed(0)
    return Policy.load(EMBEDDED / "models/policy", min_pixels=1024, max_pixels=25600)


@pytest.fixture(scope="session")
def segmenter():
    """The embedded segmenter."""
    from saliency_r1.segmenter import load

    return load(EMBEDDED / "models/segmenter")


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """A folder with two samples a task, and their rows."""
    folder = tmp_path_factory.mktemp("samples")
    return folder, write_samples(folder)


@pytest.fixture(scope="session")
def pretrain_on_path(request):
    """The scripts of pretrain/ import one another by name, as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(request.config.rootpath / "pretrain")
        yield


@pytest.fixture
def server(monkeypatch):
    """A server of the chat protocol that answers as its `replies` say; no key is set."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()
