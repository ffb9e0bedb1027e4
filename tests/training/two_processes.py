"""Train in as many processes as there are, and write down what came out: the script of test_processes.py.

python -m saliency_r1.runtime.launch --nproc-per-node 2 two_processes.py <folder> <trainer> <batch size>

Trainers: sft, full, cgpo, own (ISR's moments), half-sft and half-cgpo (LoRA on a base in bfloat16).
"""

import json
import sys
from pathlib import Path

import torch
from handful import CGPO, LORA, SFT, WEIGHTS, fresh, isr, weights
from rendered import EMBEDDED, write_samples

from saliency_r1.annotation import OfflineAnnotator, annotate
from saliency_r1.policy import Policy
from saliency_r1.rollout.environment import Environment
from saliency_r1.runtime import processes
from saliency_r1.segmenter import load
from saliency_r1.training import cgpo, sft
from saliency_r1.training.optimiser import wrap

folder, trainer, batch_size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
moments = "own" if trainer == "own" else "shared"
torch.set_num_threads(1)
processes.join(torch.device("cpu"))
images = folder / str(processes.index())
images.mkdir(exist_ok=True)
rows = write_samples(images, each=3)
environment = Environment(load(EMBEDDED / "models/segmenter"), images, WEIGHTS, max_new_tokens=24, batch_size=8)
annotations = annotate(rows, images, OfflineAnnotator(0.5), environment.segmenter, 0.0, 1, 0, 4)
examples = sft.Examples(rows, [annotation.response for annotation in annotations])
policy = fresh(None if trainer == "full" else LORA)
if trainer.startswith("half-"):  # what the profiles of the paper's size ask for
    base = Policy.load(
        EMBEDDED / "models/policy",
        min_pixels=1024,
        max_pixels=25600,
        dtype=torch.bfloat16,
        gradient_checkpointing=True,
    )
    policy = wrap(base, LORA, seed=1)


def held() -> int:
    """How many of the policy's numbers this process holds."""
    return sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in policy.model.parameters())


before = held()
if trainer in ("sft", "full", "half-sft"):
    options = SFT.model_copy(update={"steps": 10, "batch_size": batch_size, "lr": 2e-3})  # as shipped
    table = [{**row, "held": held()} for row in sft.train(policy, environment, examples, options, 0, folder / "runs")]
else:
    changed = CGPO.model_copy(
        update={"updates": 10, "batch_size": batch_size, "drift_every": 2, "isr": isr(2, moments=moments)}
    )
    updates = cgpo.train(policy, environment, rows, examples, changed, 0, folder / "runs")
    table = [{**update.curve, "rollouts": update.rollouts, "held": held()} for update in updates]
if processes.is_main():
    torch.save(weights(policy), folder / "weights.pt")
    (folder / "held.json").write_text(json.dumps([row.pop("held") / before for row in table]))
    (folder / "table.json").write_text(json.dumps(table))
