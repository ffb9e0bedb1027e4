"""Training of EVF-SAM: from the official checkpoint on one's own pictures, or a tiny one from nothing.

The losses are those in the official model file: per mask, on logits at the picture's own size, the mean binary
cross-entropy and a soft dice. Two things are added: phrases of absent objects with an empty target, and a loss for
SAM's IoU head (target: the IoU the mask really has, 0 for absent objects), so that the score tells presence.

In several processes each holds the whole model and takes a share of every batch's pictures; gradients are summed, and
the first process reports and exports. Losses are divided by the counts of the whole batch, so that many follow one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_r1.inputs.pictures import to_rgb
from saliency_r1.runtime import processes
from saliency_r1.segmenter.evf_sam import EvfSam, EvfSamConfig
from saliency_r1.segmenter.preprocess import beit_view, full_size, sam_view
from saliency_r1.segmenter.tokenizer import Tokenizer, pad

DICE_SCALE, DICE_EPS = 1000.0, 1e-6  # both from the official loss
LOGGED = ("loss", "bce", "iou", "score_error")


@dataclass(frozen=True)
class Recipe:
    """What is trained, for how long and on what loss; the defaults are for fine-tuning released weights."""

    steps: int = 15000
    learning_rate: float = 1e-4
    warmup: float = 0.03
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    bce_weight: float = 1.0
    dice_weight: float = 1.0
    iou_weight: float = 0.0
    train_image_encoder: bool = False
    train_mask_decoder: bool = True
    train_no_mask_embed: bool = True
    mixed_precision: str = "no"
    log_every: int = 50
    checkpoint_every: int = 500
    seed: int = 0


@dataclass(frozen=True)
class Example:
    """One picture with its expressions: views, token ids and boolean targets n x H x W (all False: absent).

    ``features`` C x h x w are SAM's, where they were computed before: a frozen image encoder need not run again.
    """

    sam: Tensor
    inner: tuple[int, int]
    beit: Tensor
    ids: list[list[int]]
    targets: Tensor
    features: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Several examples; ``owner`` N gives the picture of every expression, ``targets`` stay per picture."""

    sam: Tensor
    beit: Tensor
    inner: list[tuple[int, int]]
    ids: Tensor
    padding: Tensor
    owner: Tensor
    targets: list[Tensor]
    features: Tensor | None = None

    @classmethod
    def collate(cls, examples: Sequence[Example]) -> Batch:
        """Stack views and pad token ids; every example needs at least one expression."""
        features = [example.features for example in examples if example.features is not None]
        ids, padding = pad([row for example in examples for row in example.ids])
        counts = torch.tensor([len(example.ids) for example in examples])
        return cls(
            sam=torch.stack([example.sam for example in examples]),
            beit=torch.stack([example.beit for example in examples]),
            inner=[example.inner for example in examples],
            ids=ids,
            padding=padding,
            owner=torch.arange(len(examples)).repeat_interleave(counts),
            targets=[example.targets for example in examples],
            features=torch.stack(features) if len(features) == len(examples) else None,
        )

    def share(self, index: int, count: int) -> Batch:
        """Every `count`-th picture from `index` on with its expressions; `ValueError` when that is none."""
        pictures = list(range(len(self.targets)))[index::count]
        if not pictures:
            raise ValueError(f"a batch of {len(self.targets)} pictures cannot be dealt out to {count} processes")
        own = torch.cat([(self.owner == picture).nonzero().flatten() for picture in pictures])
        counts = torch.tensor([len(self.targets[picture]) for picture in pictures])
        return Batch(
            sam=self.sam[pictures],
            beit=self.beit[pictures],
            inner=[self.inner[picture] for picture in pictures],
            ids=self.ids[own],
            padding=self.padding[own],
            owner=torch.arange(len(pictures)).repeat_interleave(counts),
            targets=[self.targets[picture] for picture in pictures],
            features=None if self.features is None else self.features[pictures],
        )

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("sam", "beit", "ids", "padding", "owner")}
        features = None if self.features is None else self.features.to(device)
        return replace(self, targets=[target.to(device) for target in self.targets], features=features, **moved)


def example(
    config: EvfSamConfig, tokenizer: Tokenizer, image: Image.Image, phrases: Sequence[str], masks: np.ndarray
) -> Example:
    """Prepare a picture with its expressions.

    Args:
        config: sizes of the two views.
        tokenizer: the model's own.
        image: of any kind.
        phrases: n expressions.
        masks: n x H x W bool at the picture's own size; an empty mask means that the object is not there.

    Raises:
        ValueError: masks of another number or size.
    """
    image = to_rgb(image)
    if masks.shape != (len(phrases), image.height, image.width):
        raise ValueError(f"{len(phrases)} phrases, picture {image.height} x {image.width}, but masks {masks.shape}")
    sam, inner = sam_view(image, config.sam_image_encoder.img_size)
    ids = [tokenizer.encode(phrase) for phrase in phrases]
    return Example(sam, inner, beit_view(image, config.beit3.img_size), ids, torch.from_numpy(masks.astype(bool)))


class PhraseFolder:
    """A user's folder of pictures, masks and phrases as batches for :func:`train`.

    ``phrases.jsonl`` holds one row an expression: ``{"image": path, "mask": path or null, "phrase": text}``, paths
    relative to the folder; a mask is grey, above 127 inside; null says that the object is not in the picture.

    Args:
        folder: as described.
        config: of the model.
        tokenizer: of the model.
        images: pictures a batch.
        phrases: expressions a picture at most, drawn anew each time (the official data code takes three).
        seed: of the order.

    Raises:
        ValueError: there are no rows, or fewer pictures than a batch takes.
    """

    def __init__(
        self, folder: Path, config: EvfSamConfig, tokenizer: Tokenizer, images: int = 8, phrases: int = 3, seed: int = 0
    ) -> None:
        self.folder, self.config, self.tokenizer = folder, config, tokenizer
        self.images, self.phrases, self.seed = images, phrases, seed
        self.rows: dict[str, list[tuple[str | None, str]]] = {}
        for line in (folder / "phrases.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            self.rows.setdefault(row["image"], []).append((row["mask"], row["phrase"]))
        if len(self.rows) < images:
            raise ValueError(f"{folder}: {len(self.rows)} pictures are too few for batches of {images}")

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, step: int) -> Batch:
        """The batch of one step: epochs in a fresh order each, the rest of an epoch is left out."""
        epoch, place = divmod(step, len(self.rows) // self.images)
        order = np.random.default_rng([self.seed, epoch]).permutation(sorted(self.rows))
        names = order[place * self.images : (place + 1) * self.images]
        rng = np.random.default_rng([self.seed, step, 1])
        return Batch.collate([self._example(str(name), rng) for name in names])

    def _example(self, name: str, rng: np.random.Generator) -> Example:
        rows = self.rows[name]
        chosen = [rows[i] for i in rng.permutation(len(rows))[: self.phrases]]
        image = to_rgb(Image.open(self.folder / name))
        masks = np.zeros((len(chosen), image.height, image.width), dtype=bool)
        for mask, (path, _) in zip(masks, chosen):
            if path is not None:
                mask[:] = np.asarray(Image.open(self.folder / path).convert("L")) > 127
        return example(self.config, self.tokenizer, image, [phrase for _, phrase in chosen], masks)


def mask_losses(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Loss of every mask: N x H x W logits and boolean targets to ``bce`` and ``dice`` (N each) and ``iou`` (N).

    ``iou`` is no loss: it is the IoU of the thresholded mask, 0 where the target is empty, without gradient.
    """
    wanted = targets.float()
    bce = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=(1, 2))
    found = logits.sigmoid()
    overlap = (found * wanted).sum(dim=(1, 2)) / DICE_SCALE
    total = (found.sum(dim=(1, 2)) + wanted.sum(dim=(1, 2))) / DICE_SCALE
    dice = 1 - (2 * overlap + DICE_EPS) / (total + DICE_EPS)
    mask = logits.detach() > 0
    iou = (mask & targets).sum(dim=(1, 2)) / (mask | targets).sum(dim=(1, 2)).clamp(min=1)
    return {"bce": bce, "dice": dice, "iou": iou}


def _losses_by_size(low: Tensor, batch: Batch, side: int) -> dict[str, Tensor]:
    """:func:`mask_losses` of every expression, those of pictures of one size together."""
    rows = torch.arange(len(low)).split([len(target) for target in batch.targets])
    groups: dict[tuple[tuple[int, int], tuple[int, int]], list[int]] = {}
    for picture, (inner, target) in enumerate(zip(batch.inner, batch.targets)):
        groups.setdefault((inner, (target.shape[1], target.shape[2])), []).append(picture)
    parts, order = [], []
    for (inner, size), pictures in groups.items():
        own = torch.cat([rows[picture] for picture in pictures])
        logits = full_size(low[own.to(low.device)], side, inner, size)
        parts.append(mask_losses(logits, torch.cat([batch.targets[picture] for picture in pictures])))
        order.append(own)
    back = torch.cat(order).argsort().to(low.device)
    return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}


def forward(model: EvfSam, batch: Batch) -> dict[str, Tensor]:
    """All expressions of a batch: ``bce``, ``dice``, ``iou``, ``score`` (predicted IoU) and ``present``, N each.

    Beside them ``prompts`` N x C and ``features`` B x C x h x w, for a helper's loss.
    """
    features = model.embed_images(batch.sam) if batch.features is None else batch.features
    prompts = model.embed_prompts(batch.beit[batch.owner], batch.ids, batch.padding)
    low, score = model.decode(features[batch.owner], prompts)
    out = _losses_by_size(low, batch, model.config.sam_image_encoder.img_size)
    present = torch.cat([target.any(dim=(1, 2)) for target in batch.targets])
    return {**out, "score": score, "present": present, "prompts": prompts, "features": features}


def mean_terms(out: dict[str, Tensor], masks: int, present: int) -> dict[str, Tensor]:
    """Means over the masks of a batch, or what a share of them adds to these means.

    Args:
        out: of :func:`forward`.
        masks: of the whole batch.
        present: of these, those that are not empty; dice and iou are means over them.
    """
    seen = out["present"].float()  # as weights: to select by them is to wait for an accelerator
    present = max(present, 1)
    return {
        "bce": out["bce"].sum() / masks,
        "dice": (out["dice"] * seen).sum() / present,  # it has no slope where the target is empty
        "score": F.mse_loss(out["score"], out["iou"], reduction="sum") / masks,
        "iou": (out["iou"] * seen).sum() / present,
        "score_error": (out["score"] - out["iou"]).abs().sum() / masks,
    }


def total_loss(terms: dict[str, Tensor], recipe: Recipe) -> Tensor:
    """The weighted sum of the terms of :func:`mean_terms`."""
    weights = {"bce": recipe.bce_weight, "dice": recipe.dice_weight, "score": recipe.iou_weight}
    return sum((weight * terms[name] for name, weight in weights.items()), torch.zeros_like(terms["bce"]))


def freeze(model: EvfSam, recipe: Recipe) -> list[nn.Parameter]:
    """Set what is trained, as the official model file does; returns the trained parameters.

    BEiT-3 and the projector always learn; of SAM the mask decoder, ``no_mask_embed`` and the image encoder on demand.
    """
    model.requires_grad_(False)
    trained: list[nn.Module] = [model.mm_extractor, model.text_hidden_fcs]
    sam = model.visual_model
    if recipe.train_image_encoder:
        trained.append(sam.image_encoder)
    if recipe.train_mask_decoder:
        trained.append(sam.mask_decoder)
    if recipe.train_no_mask_embed:
        trained.append(sam.prompt_encoder.no_mask_embed)
    for module in trained:
        module.requires_grad_(True)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then ``constant``, or a ``linear`` or ``cosine`` fall to 0 at the last step; in [0, 1]."""
    warmup = max(1, round(recipe.warmup * recipe.steps))
    if step < warmup:
        return (step + 1) / warmup
    rest = min(1.0, (step - warmup) / max(1, recipe.steps - warmup))
    return {"constant": 1.0, "linear": 1 - rest, "cosine": (1 + math.cos(math.pi * rest)) / 2}[recipe.schedule]


def train(
    model: EvfSam,
    batches: Callable[[int], Batch],
    recipe: Recipe,
    folder: Path,
    after_step: Callable[[int, EvfSam], None] = lambda step, model: None,
    log: Callable[[str], None] = print,
    helper: nn.Module | None = None,
) -> EvfSam:
    """Train in place and resumably.

    Args:
        model: weights to start from.
        batches: step number (from 0) to the whole batch; a pure function, so that a resumed run sees the same data,
            and every process the same batch.
        recipe: see :class:`Recipe`.
        folder: for checkpoints, the same for all processes; a run that finds one there continues behind it.
        after_step: called in the first process with the number of finished steps, for evaluation and export.
        log: takes one line every ``log_every`` steps, in the first process.
        helper: trained along and not kept; from the output of :func:`forward` and the batch to a loss to add, a mean
            over the expressions.

    Returns:
        The same model.

    Raises:
        ValueError: a batch has fewer pictures than there are processes.
    """
    accelerator = Accelerator(mixed_precision=recipe.mixed_precision, cpu=next(model.parameters()).device.type == "cpu")
    torch.manual_seed(recipe.seed)
    trained = freeze(model, recipe) + ([] if helper is None else list(helper.parameters()))
    groups = _parameter_groups(trained, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas)
    # Placed and kept track of, but not wrapped: what is called are methods of the model, and gradients are summed here.
    for module in (model, *([] if helper is None else [helper])):
        accelerator.prepare_model(module, evaluation_mode=True)
    optimizer = accelerator.prepare_optimizer(optimizer)
    first = _resume(accelerator, folder)
    sums: dict[str, Tensor] = {}  # on the device: to read a value is to wait for it
    started = time.monotonic()
    for step in range(first, recipe.steps):
        model.train()
        whole = batches(step)
        masks, present = len(whole.owner), int(sum(target.any(dim=(1, 2)).sum() for target in whole.targets))
        batch = whole.share(processes.index(), processes.count()).to(accelerator.device)
        with accelerator.autocast():
            out = forward(model, batch)
        terms = mean_terms(out, masks, present)
        loss = total_loss(terms, recipe)
        if helper is not None:
            loss = loss + helper(out, batch) * (len(batch.owner) / masks)
        accelerator.backward(loss)
        processes.add_up([parameter.grad for parameter in trained if parameter.grad is not None])
        accelerator.clip_grad_norm_(model.parameters(), recipe.clip)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_factor(step, recipe)
        optimizer.step()
        optimizer.zero_grad()
        for name, value in {"loss": loss, **terms}.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() / recipe.log_every
        done = step + 1
        if done % recipe.log_every == 0:
            shares = processes.gather([{name: float(value) for name, value in sums.items()}])
            pace = (time.monotonic() - started) / (done - first)
            if processes.is_main():
                seen = " ".join(f"{name} {sum(share[name] for share in shares):.4f}" for name in LOGGED)
                log(f"step {done} {seen} s/step {pace:.3f}")
            sums = {}
        if done % recipe.checkpoint_every == 0 or done == recipe.steps:
            with processes.shared_folder(folder / "checkpoint") as aside:
                accelerator.save_state(str(aside))
                if processes.is_main():
                    (aside / "progress.json").write_text(json.dumps({"steps": done}))
        if processes.is_main():
            after_step(done, model)
        processes.wait()
    return model


def _parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict]:
    """Matrices decay, vectors (norms, biases) do not."""
    parameters = list(parameters)
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _resume(accelerator: Accelerator, folder: Path) -> int:
    progress = folder / "checkpoint" / "progress.json"
    if not progress.is_file():
        return 0
    accelerator.load_state(str(folder / "checkpoint"))
    return int(json.loads(progress.read_text())["steps"])
