"""The shapes that are measured are the published ones: to the last parameter, in networks without weights."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
import transformers

from saliency_r1.policy.families import FAMILIES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_shape_has_the_published_number_of_parameters(kind, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    speed = import_module("family_speed")
    with torch.device("meta"):
        model = getattr(transformers, f"{speed.TYPES[kind]}ForConditionalGeneration")(speed.config_of(kind, None))
    assert sum(parameter.numel() for parameter in model.parameters()) == speed.SHAPES[kind]["parameters"]
