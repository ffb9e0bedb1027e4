"""Stage cgpo: confidence-guided policy optimisation of the SFT adapter.

One sampled response a prompt, a reward from its masks, A = r - c, and an SFT step now and then. The prompts are all
training samples, annotated or not; the SFT steps take the annotated ones. Resumes exactly from runs/cgpo/ when it was
killed.

    python stages/cgpo.py

Reads artifacts/download/, artifacts/annotate/, artifacts/sft/ and the section `cgpo` of params.yaml; writes
artifacts/cgpo/.
"""

from pathlib import Path

import own_tree  # noqa: F401

from saliency_r1.params import Params
from saliency_r1.policy import Policy
from saliency_r1.rollout.environment import Environment
from saliency_r1.runtime import processes
from saliency_r1.runtime.files import atomic_folder
from saliency_r1.runtime.keys import run_key, stage_code
from saliency_r1.runtime.stage import prepare_torch, progress, run_stage
from saliency_r1.runtime.versions import write_versions
from saliency_r1.training import cgpo, checkpoints, live, sft
from saliency_r1.training.history import History
from saliency_r1.training.optimiser import save_adapter

DOWNLOAD, ANNOTATE = Path("artifacts/download"), Path("artifacts/annotate")
ADAPTER = Path("artifacts/sft/adapter")


def main(params: Params) -> None:
    """Train on from the SFT adapter and keep every rollout."""
    device, dtype = prepare_torch(params.runtime, params.seed)
    rows, examples = sft.read_rows(DOWNLOAD), sft.read_examples(DOWNLOAD, ANNOTATE)
    policy = Policy.load(
        DOWNLOAD / "models/policy", ADAPTER, device=device, dtype=dtype, trainable=True, **params.policy.loading
    )
    environment = Environment.load(params, DOWNLOAD, device, dtype)
    settings = params.result_settings("seed", "runtime", "policy", "segmenter", "rewards", "cgpo")
    inputs = [*checkpoints.inputs(DOWNLOAD, ANNOTATE), ADAPTER]
    runs = Path("runs/cgpo") / run_key(settings, inputs, stage_code("cgpo"))
    training = cgpo.train(policy, environment, rows, examples, params.cgpo, params.seed, runs)
    followed = live.follow(training, Path("runs/cgpo/live"), lambda update: update.curve | update.costs)
    for _ in progress(followed, params.cgpo.updates, "cgpo"):
        pass
    if not processes.is_main():
        return
    curves, costs, table = History(runs).tables()
    with atomic_folder("artifacts/cgpo") as folder:
        save_adapter(policy, folder / "adapter")
        curves.write_csv(folder / "curves.csv")
        costs.write_csv(folder / "costs.csv")
        table.write_parquet(folder / "table.parquet")
        write_versions(folder)
    print(f"reward of sampled responses {curves['reward'][0]:.3f} -> {curves['reward'][-1]:.3f}")
    checkpoints.discard(runs)


if __name__ == "__main__":
    run_stage(main)
