"""Stage metrics: score every prediction against its ground truth.

Every measure of every model on every data set, bootstrap intervals, precision and recall curves, and how much reward
one training step gained over the one before, paired over samples.

    python stages/metrics.py

Reads artifacts/download/ and artifacts/masks/; writes artifacts/metrics/.
"""

from pathlib import Path

import own_tree  # noqa: F401

from saliency_r1.evaluation.split import evaluate
from saliency_r1.params import Params, model_names
from saliency_r1.runtime.files import atomic_folder
from saliency_r1.runtime.stage import run_stage
from saliency_r1.runtime.versions import write_versions


def main(params: Params) -> None:
    """Evaluate and print what the last training step gained."""
    artifacts = Path("artifacts")
    evaluation = evaluate(
        artifacts / "download",
        artifacts / "masks",
        params.masks.split,
        model_names(params.masks.models),
        params.metrics.workers,
    )
    with atomic_folder(artifacts / "metrics") as folder:
        evaluation.write(folder)
        write_versions(folder)
    for pair, scopes in evaluation.comparison.items():
        gain = scopes["overall"]
        interval = f", 95 % interval {gain['low']:+.4f} to {gain['high']:+.4f}" if "low" in gain else ""
        print(
            f"{pair.replace('_', ' ')}: mean reward {gain['before']:.3f} -> {gain['after']:.3f}, difference "
            f"{gain['difference']:+.4f}{interval}"
        )


if __name__ == "__main__":
    run_stage(main)
