"""The numbers of the pipeline: one typed, immutable model of `params.yaml`.

    params = load_params()          # the whole file, validated
    params.cgpo.lr                  # a float, whatever way it was written

Every stage reads the whole file, so a misspelt key or a value of the wrong type ends the run before any work, with the
key, the value and the type that was expected. Nothing is converted quietly: text never becomes a number, a truth value
never an integer; only a whole number may stand where a float is expected.
"""

from saliency_r1.params.file import NEUTRAL, Params, describe_params, load_params, parse_params
from saliency_r1.params.section import ParamsError, Section, Split
from saliency_r1.params.sections import (
    PACE,
    Annotate,
    Asked,
    Cgpo,
    Checks,
    Download,
    Drift,
    Endpoint,
    InstanceWeights,
    Isr,
    Judge,
    Lora,
    Masks,
    Metrics,
    Model,
    Policy,
    Report,
    Rewards,
    Runtime,
    SaliencyWeights,
    Segmenter,
    Sft,
    Weights,
    model_names,
)

__all__ = [
    "NEUTRAL", "PACE", "Annotate", "Asked", "Cgpo", "Checks", "Download", "Drift", "Endpoint", "InstanceWeights", "Isr",
    "Judge", "Lora", "Masks", "Metrics", "Model", "Params", "ParamsError", "Policy", "Report", "Rewards", "Runtime",
    "SaliencyWeights", "Section", "Segmenter", "Sft", "Split", "Weights", "describe_params", "load_params",
    "model_names", "parse_params",
]  # fmt: skip
