"""The whole of `params.yaml`, and how it is read."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator

from saliency_r1.params import sections as of
from saliency_r1.params.complaints import complaint, leaves
from saliency_r1.params.section import ParamsError, Section, Seed
from saliency_r1.yaml_loader import YamlError, load_yaml

# Parameters that decide how, not what, is computed: with others of them a result differs by rounding alone.
NEUTRAL: Any = {
    "launch": True,
    "runtime": {"threads"},
    "policy": {"batch_size", "gradient_checkpointing"},
    "segmenter": {"batch_images", "batch_phrases"},
    "annotate": {"endpoint": set(of.PACE)},
    "sft": {"micro_batch", "checkpoint_every"},
    "cgpo": {"micro_batch", "checkpoint_every"},
}


class Params(Section):
    """The whole of `params.yaml`. `launch` is how dvc.yaml starts the stages that run the policy."""

    seed: Seed
    launch: str
    runtime: of.Runtime
    policy: of.Policy
    segmenter: of.Segmenter
    download: of.Download
    annotate: of.Annotate
    sft: of.Sft
    rewards: of.Rewards
    cgpo: of.Cgpo
    masks: of.Masks
    metrics: of.Metrics
    report: of.Report
    model: of.Model
    judge: of.Judge
    drift: of.Drift
    checks: of.Checks

    @field_validator("launch")
    @classmethod
    def _a_command(cls, launch: str) -> str:
        try:
            words = shlex.split(launch)
        except ValueError as error:
            raise ValueError(f"{launch!r} is no command line: {error}") from None
        if not words or "\n" in launch:
            raise ValueError(f"{launch!r}, expected what stands in front of a script on a command line, such as python")
        return launch

    def result_settings(self, *sections: str) -> dict[str, Any]:
        """The settings that determine a result; used as key of checkpoints and measurements."""
        return self.model_dump(include=set(sections), exclude=NEUTRAL)


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and validate a parameter file; `ParamsError` lists everything that is wrong with it."""
    try:
        content = load_yaml(path)
    except YamlError as error:
        raise ParamsError(str(error)) from None
    return parse_params(content, str(path))


def parse_params(content: Any, source: str = "params.yaml") -> Params:
    """Validate the content of a parameter file; `source` is the name that messages carry."""
    if not isinstance(content, Mapping):
        raise ParamsError(f"{source}: expected a mapping of sections, found {type(content).__name__}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(
            "\n".join(f"{source}: {complaint(dict(entry), Params)}" for entry in error.errors())
        ) from None


def describe_params() -> dict[str, str]:
    """Every key of a parameter file with the type it expects: `{"cgpo.lr": "float", ...}`."""
    return dict(leaves(Params))
