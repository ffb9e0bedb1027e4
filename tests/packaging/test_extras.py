"""What has to be installed for what: the evaluator stands alone, and every import is declared."""

import ast
import contextlib
import json
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = {module: set(map(canonicalize_name, names)) for module, names in packages_distributions().items()}
# What is blocked is as good as not installed, for an import and for those who ask first.
BLOCK = """
import sys
from importlib.machinery import PathFinder
class Rest:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in {blocked!r} else PathFinder.find_spec(name, path, target)
    find_distributions = PathFinder.find_distributions
sys.meta_path[:] = [Rest if finder is PathFinder else finder for finder in sys.meta_path]
"""
# What benchmarks compare with, and a test starts if it happens to be there.
GUESTS = {"trl", "datasets", "openai", "nbclient", "nbformat"}
FOLDERS = ("src", "stages", "flows", "pretrain", "benchmarks", "tests")
OWN = {"saliency_r1", *FOLDERS} | {path.stem for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}


def declared(*extras: str) -> set[str]:
    """The names of the distributions that the package needs with some extras, those that an extra takes in included."""
    names: set[str] = set()
    queue = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    while queue:
        wanted = Requirement(queue.pop())
        if wanted.name == "saliency-r1":
            queue += [one for extra in wanted.extras for one in PROJECT["optional-dependencies"][extra]]
        else:
            names.add(canonicalize_name(wanted.name))
    return names


def imports(path: Path) -> set[str]:
    """The packages of others that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found - OWN - GUESTS - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("src", ["app", "flows"]), ("stages", ["pipeline"]), ("flows", ["flows"]), ("pretrain", ["flows"]),
     ("benchmarks", ["dev"]), ("tests", ["dev"])],
)  # fmt: skip
def test_whatever_is_imported_is_declared(folder: str, extras: list[str]) -> None:
    names = declared(*extras)
    missing = {
        (path.relative_to(ROOT).as_posix(), module)
        for path in (ROOT / folder).rglob("*.py")
        for module in imports(path)
        if not DISTRIBUTIONS.get(module, {module}) & names
    }
    assert not missing


def test_the_lock_file_holds_whatever_is_declared() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(line.split("==")[0]) for line in lines if not line.startswith("#")}
    assert declared("dev") <= pins


def test_what_is_locked_takes_every_python_that_the_package_takes() -> None:
    """Debian 12 has Python 3.11.2; a release that wants 3.11.5 ends `make setup` there."""
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    refusing = {
        pin.name: wanted
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
        if (wanted := metadata(pin.name)["Requires-Python"]) and oldest not in SpecifierSet(wanted)
    }
    assert not refusing


def without(blocked: set[str], *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process in which some packages cannot be imported."""
    code = BLOCK.format(blocked=blocked) + "from saliency_r1.cli import main\nmain()\n"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def with_all_they_need(names: set[str]) -> set[str]:
    """These distributions and those that they need in turn, as far as they are installed."""
    found: set[str] = set()
    queue = list(names)
    while queue:
        if (name := queue.pop()) not in found:
            found.add(name)
            with contextlib.suppress(PackageNotFoundError):
                wanted = map(Requirement, requires(name) or [])
                queue += [canonicalize_name(one.name) for one in wanted if not one.marker or one.marker.evaluate()]
    return found


def all_but(*extras: str) -> set[str]:
    """The importable names of what the whole package needs and these extras do not bring."""
    absent = declared("flows") - with_all_they_need(declared(*extras))
    return {module for module, names in DISTRIBUTIONS.items() if names & absent}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    mask = np.zeros((20, 30), np.uint8)
    mask[4:12, 5:20] = 255
    for folder, values in (("gt", mask), ("pred", np.roll(mask, 2, 1))):
        (tmp_path / folder).mkdir()
        Image.fromarray(values).save(tmp_path / folder / "a.png")
        (tmp_path / f"{folder}-ids").mkdir()
        Image.fromarray((values > 0).astype(np.uint16)).save(tmp_path / f"{folder}-ids" / "a.png")
    return tmp_path


def test_the_evaluator_needs_the_base_alone(folders: Path) -> None:
    absent = all_but()
    assert {"torch", "transformers", "scipy", "dvc", "prefect", "great_expectations", "polars", "matplotlib"} <= absent
    done = without(absent, "evaluate", "--pred", "pred", "--gt", "gt", "--json", "n.json", folder=folders)
    assert done.returncode == 0, done.stderr
    assert json.loads((folders / "n.json").read_text())["results"][0]["measures"]["wFm"] > 0.5
    done = without(absent, "evaluate", "--pred", "pred-ids", "--gt", "gt-ids", "--task", "sis", folder=folders)
    assert done.returncode == 0, done.stderr
    assert without(absent, "params", "check", str(ROOT / "params.yaml"), folder=folders).returncode == 0


def test_pages_need_their_extra(folders: Path) -> None:
    call = ["evaluate", "--pred", "pred", "--gt", "gt", "--bootstrap", "10"]
    outputs = {"--html": "n.html", "--plot": "n.png", "--parquet": "n.parquet"}
    for output in outputs.items():
        done = without(all_but(), *call, *output, folder=folders)
        assert done.returncode == 1
        assert done.stderr.endswith("is not installed; this needs: pip install 'saliency-r1[pages]'\n")
        assert len(done.stderr.splitlines()) == 1
        assert not done.stdout, "said before the work, not after"
    done = without(all_but("pages"), *call, *(part for output in outputs.items() for part in output), folder=folders)
    assert (done.returncode, done.stderr) == (0, "")
    assert all((folders / file).is_file() for file in outputs.values())


@pytest.mark.slow
def test_predicting_needs_its_extra_and_no_more(folders: Path) -> None:
    models = [f"--{name}={ROOT / 'embedded/models' / name}" for name in ("policy", "segmenter")]
    call = ["predict", "gt/a.png", "--base", *models, "--params", str(ROOT / "params.yaml")]
    done = without(all_but(), *call, folder=folders)
    assert done.returncode == 1
    assert done.stderr.endswith("is not installed; this needs: pip install 'saliency-r1[predict]'\n")
    assert len(done.stderr.splitlines()) == 1
    done = without(all_but("predict"), *call, folder=folders)
    assert done.returncode == 0, done.stderr
    assert (folders / "predictions/response.json").exists()


def test_the_metrics_load_no_torch() -> None:
    code = "from saliency_r1.metrics import SaliencyEvaluator; import sys; print(sorted({'torch', 'scipy', 'polars', "
    code += "'matplotlib', 'transformers', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
