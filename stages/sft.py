"""Stage sft: supervised fine-tuning of the base policy on the annotated responses.

Teaches the form: think, then answer in tags. Prompt tokens are masked, the base is frozen, a LoRA adapter learns.
Resumes exactly from runs/sft/ when it was killed.

    python stages/sft.py

Reads artifacts/download/, artifacts/annotate/ and the section `sft` of params.yaml; writes artifacts/sft/.
"""

from pathlib import Path

import own_tree  # noqa: F401
import polars as pl

from saliency_r1.params import Params
from saliency_r1.policy import Policy
from saliency_r1.rollout.environment import Environment
from saliency_r1.runtime import processes
from saliency_r1.runtime.files import atomic_folder
from saliency_r1.runtime.keys import run_key, stage_code
from saliency_r1.runtime.stage import prepare_torch, progress, run_stage
from saliency_r1.runtime.versions import write_versions
from saliency_r1.training import checkpoints, live, sft
from saliency_r1.training.optimiser import save_adapter, wrap

DOWNLOAD, ANNOTATE = Path("artifacts/download"), Path("artifacts/annotate")


def main(params: Params) -> None:
    """Train the adapter and answer validation prompts with it."""
    device, dtype = prepare_torch(params.runtime, params.seed)
    options = params.sft
    validation = sft.read_validation(DOWNLOAD, options.evaluate_samples, params.seed)
    examples = sft.read_examples(DOWNLOAD, ANNOTATE)
    base = Policy.load(DOWNLOAD / "models/policy", device=device, dtype=dtype, **params.policy.loading)
    policy = wrap(base, options.lora, params.seed)
    environment = Environment.load(params, DOWNLOAD, device, dtype)
    settings = params.result_settings("seed", "runtime", "policy", "sft")
    runs = Path("runs/sft") / run_key(settings, checkpoints.inputs(DOWNLOAD, ANNOTATE), stage_code("sft"))
    steps = sft.train(policy, environment, examples, options, params.seed, runs)
    curves = list(progress(live.follow(steps, Path("runs/sft/live"), dict), options.steps, "sft"))
    answers = processes.map_sharded(
        validation, lambda own: (answer.record() for answer in environment.greedy(policy, own))
    )
    if not processes.is_main():
        return
    table = pl.DataFrame(answers)
    with atomic_folder("artifacts/sft") as folder:
        save_adapter(policy, folder / "adapter")
        pl.DataFrame(curves).write_csv(folder / "curves.csv")
        table.write_parquet(folder / "table.parquet")
        write_versions(folder)
    reward, parsed = table.select(pl.mean("reward"), pl.sum("parsed")).row(0)
    print(f"validation reward {reward:.3f}, {parsed} of {len(table)} responses parse")
    checkpoints.discard(runs)


if __name__ == "__main__":
    run_stage(main)
