"""The graph: complete dependencies, no frozen stage, an unfrozen import, a rule that every stage follows."""

import ast
from pathlib import Path
from typing import Any

import pytest

from saliency_r1.data import earlier
from saliency_r1.params import Params
from saliency_r1.training import checkpoints
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[2]
GRAPH: dict[str, Any] = load_yaml(ROOT / "dvc.yaml")["stages"]
SCRIPTS = [name for name in GRAPH if name not in ("params", "check")]
# How values reach a stage, processes meet, files are written whole, curves shown: no result depends on it (dvc.yaml).
PLUMBING = {
    f"src/saliency_r1/{name}.py"
    for name in (
        "params/complaints",
        "params/file",
        "params/section",
        "params/sections",
        "yaml_loader",
        "moved",
        "runtime/stage",
        "runtime/files",
        "runtime/keys",
        "runtime/messages",
        "runtime/parent",
        "runtime/parts",
        "runtime/processes",
        "runtime/proxies",
        "runtime/replies",
        "runtime/workers",
        "training/live",
    )
}
GATED = ["download", "annotate", "sft", "cgpo", "masks", "metrics"]


def imported(path: Path) -> set[Path]:
    """The files of the package that a file imports, directly or through others."""
    found: set[Path] = set()
    queue = [path]
    while queue:
        for node in ast.walk(ast.parse(queue.pop().read_text(encoding="utf-8"))):
            for module in modules_of(node):
                stem = ROOT / "src" / Path(*module.split("."))
                for file in (stem.with_suffix(".py"), stem / "__init__.py"):
                    if file.exists() and file not in found:
                        found.add(file)
                        queue.append(file)
    return found


def modules_of(node: ast.AST) -> list[str]:
    match node:
        case ast.ImportFrom(module=str(module), level=0) if module.startswith("saliency_r1"):
            return [module, *(f"{module}.{alias.name}" for alias in node.names)]
        case ast.Import():
            return [alias.name for alias in node.names if alias.name.startswith("saliency_r1")]
    return []


def used_code(script: str) -> set[str]:
    """The files of the package that decide what a script computes; those named __init__ only pass names on."""
    used = {path.relative_to(ROOT).as_posix() for path in imported(ROOT / "stages" / script)}
    return {path for path in used - PLUMBING if not path.endswith("__init__.py")}


def assert_code(script: str, dependencies: list[str]) -> None:
    """The dependencies name all the code that a script uses, and none that it does not."""
    assert {f"stages/{script}", "stages"} & set(dependencies)
    used = used_code(script)
    assert not {path for path in used if not any((path + "/").startswith(known + "/") for known in dependencies)}
    code = [known for known in dependencies if known.startswith("src/")]
    assert not {known for known in code if not any((path + "/").startswith(known + "/") for path in used)}


@pytest.mark.parametrize("stage", SCRIPTS)
def test_a_stage_depends_on_its_script_and_on_all_the_code_it_uses(stage: str) -> None:
    start = "${launch}" if stage in ("sft", "cgpo", "masks") else "python"
    assert GRAPH[stage]["cmd"] == f"exec {start} stages/{stage}.py"
    assert_code(f"{stage}.py", GRAPH[stage]["deps"])


def test_the_gates_depend_on_their_script_and_on_all_the_code_they_use() -> None:
    assert GRAPH["check"]["cmd"] == "exec python stages/check.py ${item.stage}"
    assert_code("check.py", GRAPH["check"]["deps"])
    tables = {"artifacts/${item.stage}/table.parquet", "artifacts/download/table.parquet"}
    assert tables == {known for known in GRAPH["check"]["deps"] if known.startswith("artifacts/")}


def parameters(path: Path) -> set[str]:
    """What a file reads of `params`: `section.key`, or `section` where the whole of it is taken."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    inner = {id(node.value) for node in attributes}
    chains = [ast.unparse(node).split(".") for node in attributes if id(node) not in inner]
    read = {".".join(chain[1:3]) for chain in chains if chain[0] == "params"} - {"result_settings"}
    for node in ast.walk(tree):  # params.result_settings("seed", "sft") reads these two
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "params.result_settings":
            read |= {ast.literal_eval(argument) for argument in node.args}
    return read


def read_by(script: str) -> set[str]:
    """The parameters that a script and the code it uses read."""
    return {name for path in (f"stages/{script}", *used_code(script)) for name in parameters(ROOT / path)}


@pytest.mark.parametrize("stage", SCRIPTS)
def test_a_stage_depends_on_every_parameter_it_reads(stage: str) -> None:
    declared = set(GRAPH[stage]["params"])
    assert not {name for name in read_by(f"{stage}.py") if not {name, name.split(".")[0]} & declared}
    sections = {name.split(".")[0] for name in declared}
    assert stage in sections
    assert sections <= set(Params.model_fields)


def test_the_gates_depend_on_every_parameter_they_read_and_on_no_other() -> None:
    read, declared = read_by("check.py"), set(GRAPH["check"]["params"])
    assert {name if name in declared else name.split(".")[0] for name in read} == declared
    assert {"masks.split", "cgpo.updates", "policy.max_new_tokens"} <= read


@pytest.mark.parametrize(("stage", "more"), [("sft", set()), ("cgpo", {"artifacts/sft/adapter"})])
def test_the_key_of_a_training_covers_all_that_it_reads(stage: str, more: set[str]) -> None:
    inputs = checkpoints.inputs(Path("artifacts/download"), Path("artifacts/annotate"))
    read = {known for known in GRAPH[stage]["deps"] if known.startswith("artifacts/") and "checks" not in known}
    assert {path.as_posix() for path in inputs} | more == read


def test_an_earlier_import_is_reused_only_where_all_the_code_that_made_it_is_the_same() -> None:
    """What the stage download uses lies in the packages whose code `earlier` hashes, but for words and versions."""
    hashed = tuple(f"src/saliency_r1/{package}/" for package in earlier.READERS)
    others = {path for path in used_code("download.py") if not path.startswith(hashed)}
    assert others <= {"src/saliency_r1/names.py", "src/saliency_r1/runtime/versions.py"}


@pytest.mark.parametrize("stage", GATED)
def test_what_follows_a_gated_stage_depends_on_its_gate(stage: str) -> None:
    assert GRAPH["check"]["matrix"]["stage"] == GATED
    following = [*GATED, "report"][GATED.index(stage) + 1]
    gates = {f"artifacts/checks/{stage}.json", "artifacts/checks"}
    assert gates & set(GRAPH[following]["deps"])


def test_nothing_runs_always_or_is_frozen_and_only_downloads_persist() -> None:
    for name, stage in GRAPH.items():
        assert not {"frozen", "always_changed"} & set(stage)
        assert ("persist" in str(stage.get("outs"))) == (name == "download")


def test_the_import_is_not_frozen() -> None:
    """`dvc import-url` and `dvc freeze` write `frozen: true`, and then `dvc repro` fails on a fresh clone."""
    imported_data = load_yaml(ROOT / "data.dvc")
    assert "frozen" not in imported_data
    assert [item["path"] for item in imported_data["deps"]] == ["embedded"]
    assert [item["path"] for item in imported_data["outs"]] == ["data"]


def test_the_lock_file_names_versions_only() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all("==" in line and "/" not in line and "@" not in line for line in pins)
    names = {line.split("==")[0].lower() for line in pins}
    assert {"torch", "torchvision", "setuptools", "dvc", "prefect", "great_expectations"} <= names
    assert not {"saliency-r1", "saliency_r1", "pip"} & names
