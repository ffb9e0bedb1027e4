"""Train a tiny segmenter in as many processes as there are: the script of test_segmenter_processes.py.

accelerate launch --cpu --num_processes 2 train_pictures.py <folder> <sentencepiece model> <steps until it stops>
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tiny import TINY, picture

from saliency_r1.runtime import processes
from saliency_r1.segmenter.evf_sam import EvfSam
from saliency_r1.segmenter.tokenizer import Tokenizer
from saliency_r1.segmenter.training import Batch, Recipe, example, train

RECIPE = Recipe(
    steps=6, learning_rate=1e-3, schedule="cosine", iou_weight=1.0, log_every=2, checkpoint_every=2,
    train_image_encoder=True,
)  # fmt: skip
SIZES = [(20, 30), (40, 24), (16, 16)]


class Sizes(torch.nn.Module):
    """A helper with weights of its own: prompts tell how large the mask is."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(TINY.sam_mask_decoder.transformer_dim, 1)

    def forward(self, out, batch):
        """Mean squared error over the expressions."""
        shares = torch.cat([target.float().mean(dim=(1, 2)) for target in batch.targets])
        return (self.head(out["prompts"])[:, 0] - shares).square().mean()


def batch(step: int) -> Batch:
    """Three pictures with one to three expressions, some of them of absent objects."""
    rng = np.random.default_rng(step)
    examples = []
    for number, (height, width) in enumerate(SIZES):
        masks = rng.random((number + 1, height, width)) > 0.5
        masks[0] &= number != 1
        phrases = ["the ring", "a star", "the large circle"][: number + 1]
        examples.append(example(TINY, tokenizer, picture(width, height, number), phrases, masks))
    return Batch.collate(examples)


def after(step: int, model: EvfSam) -> None:
    """Note which process reports."""
    with open(folder / "steps.jsonl", "a") as file:
        file.write(json.dumps([step, processes.index()]) + "\n")


folder, stop = Path(sys.argv[1]), int(sys.argv[3])
torch.set_num_threads(1)
tokenizer = Tokenizer(Path(sys.argv[2]), 38)
torch.manual_seed(0)
model, helper = EvfSam(TINY), Sizes()
lines: list[str] = []
# Of gradients that are rounding alone Adam would take the sign, and one process would not follow two.
torch.optim.AdamW = partial(torch.optim.AdamW, eps=1e-4)  # type: ignore[misc]


def batches(step: int) -> Batch:
    """The batch of a step; at step `stop` the run is killed in all processes."""
    if step == stop:
        sys.exit(0)
    return batch(step)


train(model, batches, RECIPE, folder / "run", after, lines.append, helper)
if processes.is_main():
    torch.save(model.state_dict(), folder / "weights.pt")
    (folder / "lines.json").write_text(json.dumps(lines))
