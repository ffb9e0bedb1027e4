from pathlib import Path

import pytest

from saliency_r1.evaluation.split import evaluate
from saliency_r1.params import Params, Report, load_params

from .world import MODELS, build


@pytest.fixture(scope="session")
def params() -> Params:
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    return params.model_copy(update={"report": Report(examples=3)})


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole artifacts folder, metrics included."""
    root = build(tmp_path_factory.mktemp("artifacts"), samples=3)
    (root / "metrics").mkdir()
    evaluate(root / "download", root / "masks", "test", list(MODELS)).write(root / "metrics")
    return root
