"""The rooms of the house: imports run one way, and nobody pulls in what a command does not need."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/saliency_r1"
ROOMS = sorted(
    {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")} - {"__init__"}
)
# What docs/architecture.md says of some of them: they know these rooms and no other.
KNOWS = {
    "cot": set(),
    "names": set(),
    "yaml_loader": set(),
    "metrics": {"names"},
    "params": {"names", "yaml_loader"},
    "inputs": {"runtime"},
    "policy": set(),
    "segmenter": {"inputs", "runtime"},
    "tasks": {"cot", "metrics"},
}
HEAVY = {"dvc", "prefect", "great_expectations"}
OUTSIDE = {"benchmarks", "flows", "pretrain", "stages"}


def modules(path: Path, top: bool = False) -> Iterator[str]:
    """The modules that a file imports, anywhere in it or at its top level alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def known(room: str) -> set[str]:
    """The other rooms that a room imports from."""
    files = [*(PACKAGE / room).rglob("*.py"), *PACKAGE.glob(f"{room}.py")]
    named = {module.split(".")[1] for path in files for module in modules(path) if module.startswith("saliency_r1.")}
    return (named & set(ROOMS)) - {room}


def test_no_arrow_runs_up() -> None:
    order = list(graphlib.TopologicalSorter({room: known(room) for room in ROOMS}).static_order())
    assert order.index("metrics") < order.index("tasks") < order.index("rollout") < order.index("training")
    assert "prediction" not in known("training")
    assert "training" not in known("prediction") | known("rollout")


@pytest.mark.parametrize("room", KNOWS)
def test_a_room_knows_those_below_it(room: str) -> None:
    assert known(room) <= KNOWS[room]


def test_training_imports_on_a_machine_without_the_pipeline() -> None:
    found = {
        (path.name, module)
        for path in PACKAGE.rglob("*.py")
        for module in modules(path, top=True)
        if module.partition(".")[0] in HEAVY
    }
    assert not found


def test_the_library_knows_nobody_outside() -> None:
    found = {(path.name, module) for path in PACKAGE.rglob("*.py") for module in modules(path)}
    assert not {pair for pair in found if pair[1].partition(".")[0] in OUTSIDE}


def test_flows_know_how_stages_run_and_nothing_of_what_they_compute() -> None:
    found = {module for path in (PACKAGE.parents[1] / "flows").glob("*.py") for module in modules(path)}
    known = {module.split(".")[1] for module in found if module.startswith("saliency_r1.")}
    assert {"registry", "runtime"} <= known <= {"registry", "report", "runtime"}


def test_every_room_is_on_the_map() -> None:
    page = (PACKAGE.parents[1] / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = [room for room in ROOMS if f"        {room}/ " not in page and f"        {room}.py " not in page]
    assert not rooms, "docs/architecture.md does not show them"


def test_a_wrong_request_waits_for_no_model_library(tmp_path: Path) -> None:
    """A picture that is not there is told in half a second: only what loads models imports what they are made of."""
    script = (
        "import sys\nfrom saliency_r1.app.turns import Models\nfrom saliency_r1.cli.app import app\n"
        "sys.argv = 'saliency-r1 predict gone.png --out out --policy . --adapter . --segmenter .'.split()\ntry: app()\n"
        "finally: print(sorted({'torch', 'transformers', 'torchvision', 'numba', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == "gone.png is missing\n"
    assert done.stdout == "[]\n"
