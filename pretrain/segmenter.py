"""Train the tiny EVF-SAM on rendered scenes and write it as a folder that ``saliency_r1.segmenter.load`` reads.

Five phases. First SAM's image encoder alone learns to label every pixel with name and colour: the stand-in for the
pre-training of a real SAM. Then BEiT-3 alone learns to carry the words of an expression into its prompt: the stand-in
for that of a real BEiT-3. Then, as in the official recipe, the encoder is frozen and the rest learns to follow
expressions. Then everything is tuned together, last at a falling rate.
Takes the accelerator that is there; each phase goes on where it was stopped.

    python pretrain/world/pool.py && python pretrain/segmenter.py
    python pretrain/segmenter.py --report
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import referring
import torch
import yaml
from ahead import Ahead, half_on_cpu
from torch import nn
from torch.nn import functional as F
from world.cutouts import Cutouts, fetch
from world.pool import Pool, asked
from world.scenes import Scene, World

from saliency_r1.annotation.attributes import NAMED_COLOURS
from saliency_r1.segmenter.beit3 import Beit3Config
from saliency_r1.segmenter.evf_sam import EvfSam, EvfSamConfig, ImageEncoderConfig, MaskDecoderConfig
from saliency_r1.segmenter.loading import load_model, load_tokenizer, save_folder
from saliency_r1.segmenter.preprocess import sam_view
from saliency_r1.segmenter.tokenizer import Tokenizer
from saliency_r1.segmenter.training import Batch, Example, Recipe, example, forward, train

CONFIG = EvfSamConfig(
    beit3=Beit3Config(
        img_size=96,
        patch_size=16,
        vocab_size=640,
        embed_dim=96,
        num_heads=4,
        ffn_dim=288,
        num_layers=3,
        max_source_positions=98,
    ),
    sam_image_encoder=ImageEncoderConfig(
        img_size=160,
        patch_size=8,
        embed_dim=128,
        depth=4,
        num_heads=4,
        mlp_ratio=3.0,
        window_size=10,
        global_attn_indexes=(1, 3),
        out_chans=96,
        use_rel_pos=True,
    ),
    sam_mask_decoder=MaskDecoderConfig(
        transformer_dim=96, transformer_num_heads=4, transformer_mlp_dim=256, iou_head_hidden_dim=96
    ),
    projector_hidden=96,
)
HELD_OUT_BATCH = 10
LOG_EVERY = 100
WARMUP_RATE = 1.5e-3
WORDS_SCALE = 20.0  # brings the loss of the words said, some 40 at first, near the others
READ_RATE = 2e-3
SHARES = 2  # labels of a patch in each direction
FOLLOW = Recipe(
    learning_rate=9e-4,
    schedule="constant",
    weight_decay=0.02,
    betas=(0.9, 0.98),
    bce_weight=2.0,
    iou_weight=1.0,
    log_every=LOG_EVERY,
    checkpoint_every=500,
)
TOGETHER = replace(FOLLOW, learning_rate=1e-3, train_image_encoder=True)
SHARPEN = replace(TOGETHER, schedule="cosine", warmup=0.02)


def _label_map(scene: Scene, values: dict[int, int]) -> np.ndarray:
    labels = np.zeros(scene.image.size[::-1], dtype=np.int64)
    for number, value in values.items():
        labels[scene.masks[number]] = value
    return labels


def scene_example(
    scene: Scene, pairs: Sequence[tuple[str, tuple[int, ...]]], tokenizer: Tokenizer, config: EvfSamConfig = CONFIG
) -> Example:
    """A scene with its expressions, ready for the recipe."""
    return example(config, tokenizer, scene.image, [text for text, _ in pairs], referring.targets(scene, pairs))


class Material:
    """Batches out of the pool of rendered scenes, each a function of its step."""

    def __init__(self, world: World, pool: Pool, tokenizer: Tokenizer) -> None:
        self.pool, self.tokenizer, self.kinds = pool, tokenizer, referring.all_kinds(world)

    def batch(self, phase: int, config: EvfSamConfig, images: int, short_share: float, step: int) -> Batch:
        """Some scenes, with expressions about them; others in every phase."""
        rng, examples = np.random.default_rng([step, phase]), []
        for index in rng.choice(len(self.pool), images, replace=False):
            scene = self.pool.scene(index)
            pairs = referring.expressions(scene.objects, self.kinds, rng, short_share=short_share)
            examples.append(scene_example(scene, pairs, self.tokenizer, config))
        return Batch.collate(examples)


class Labeller(nn.Module):
    """Name and colour of every pixel of a half patch from the image features; thrown away after the first phase."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.classes = (len(world.words()), len(NAMED_COLOURS) + 2)  # background, and no colour that prevails
        self.head = nn.Conv2d(CONFIG.sam_image_encoder.out_chans, SHARES**2 * sum(self.classes), 1)

    def forward(self, features: torch.Tensor, names: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
        """The loss of features B x C x h x w against labels B x SHARES h x SHARES w (-1: outside of the picture)."""
        logits = F.pixel_shuffle(self.head(features), SHARES).split(self.classes, dim=1)
        losses = []
        for part, labels in zip(logits, (names, colours)):
            weight = torch.ones(part.shape[1], device=part.device)
            weight[0] = 0.3
            losses.append(F.cross_entropy(part.float(), labels, weight, ignore_index=-1))
        return losses[0] + losses[1]


def labelled(pool: Pool, words: Sequence[str], images: int, step: int) -> tuple[torch.Tensor, ...]:
    """Views B x 3 x S x S, names and colours as a `Labeller` takes them, of scenes of a pool; decided by the step."""
    chosen = np.random.default_rng([step, 0]).choice(len(pool), images, replace=False)
    views, maps = zip(*(_labelled(pool.scene(index), words) for index in chosen))
    return torch.stack(views), *torch.stack(maps).unbind(1)


def _labelled(scene: Scene, words: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """A scene as the encoder sees it, and names and colours, 2 x h x w."""
    side = CONFIG.sam_image_encoder.img_size
    view, inner = sam_view(scene.image, side)
    names = {item.id: words.index(item.name) for item in scene.objects}
    colours = {item.id: ("", *NAMED_COLOURS).index(item.colour) + 1 for item in scene.objects}
    both = torch.from_numpy(np.stack([_label_map(scene, names), _label_map(scene, colours)]))[None].float()
    fitted = F.interpolate(both, size=inner, mode="nearest-exact")
    padded = F.pad(fitted, (0, side - inner[1], 0, side - inner[0]), value=-1)
    scale = SHARES / CONFIG.sam_image_encoder.patch_size
    return view, F.interpolate(padded, scale_factor=scale, mode="nearest-exact")[0].long()


class Pointer(nn.Module):
    """What an expression says and where in the feature grid it points, read off the prompt; thrown away afterwards.

    Both are linear: the shortest way from words to prompts and from prompts to places, so that prompts mean something
    before the decoder can read them. Without the words, prompts of some ninety names stay alike for thousands of steps.
    """

    def __init__(self) -> None:
        super().__init__()
        width = CONFIG.sam_mask_decoder.transformer_dim
        self.key = nn.Linear(width, width + 1)
        self.value = nn.Conv2d(width, width, 1)
        self.words = nn.Linear(width, CONFIG.beit3.vocab_size)
        nn.init.constant_(self.words.bias, -4.0)  # few words of many are said

    def forward(self, out: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        """Binary cross-entropy of the product against the share of every patch covered, and of the words said."""
        patch = CONFIG.sam_image_encoder.patch_size
        side = out["features"].shape[-1] * patch
        covered = []
        for inner, target in zip(batch.inner, batch.targets):
            fitted = F.interpolate(target[None].float(), size=inner, mode="area")[0]
            padded = F.pad(fitted, (0, side - inner[1], 0, side - inner[0]))
            covered.append(F.avg_pool2d(padded, patch))
        keys = self.key(out["prompts"].float())
        places = torch.einsum("nc,nchw->nhw", keys[:, 1:], self.value(out["features"].float())[batch.owner])
        pointed = F.binary_cross_entropy_with_logits(places / 8 + keys[:, :1, None], torch.cat(covered))
        said = (F.one_hot(batch.ids, self.words.out_features) * ~batch.padding[..., None]).amax(1).float()
        read = F.binary_cross_entropy_with_logits(self.words(out["prompts"].float()), said, reduction="none")
        return pointed + read.sum(1).mean() / WORDS_SCALE


class Phase:
    """A phase with a loop of its own: what it trains, its schedule, and the file that lets it go on."""

    def __init__(self, name: str, file: Path, steps: int, rate: float, modules: dict[str, nn.Module]) -> None:
        self.name, self.file, self.steps, self.first = name, file, steps, 0
        self.parameters = [parameter for module in modules.values() for parameter in module.parameters()]
        optimizer = torch.optim.AdamW(self.parameters, rate, betas=(0.9, 0.98), weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
        self.parts: dict[str, Any] = {**modules, "optimizer": optimizer, "schedule": schedule}
        if file.is_file():
            state = torch.load(file, weights_only=True, map_location=self.parameters[0].device)
            self.first = state["step"]
            for name, part in self.parts.items():
                part.load_state_dict(state[name])

    def run(self, loss_of: Callable[[int], torch.Tensor]) -> None:
        """All steps that are missing; the loss is a function of the step."""
        started, total = time.monotonic(), torch.zeros((), device=self.parameters[0].device)
        for step in range(self.first, self.steps):
            loss = loss_of(step)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.parts["optimizer"].step()
            self.parts["schedule"].step()
            self.parts["optimizer"].zero_grad()
            total += loss.detach() / LOG_EVERY
            done = step + 1
            if done % LOG_EVERY == 0:
                pace = (time.monotonic() - started) / (done - self.first)
                print(f"{self.name} {done} loss {float(total):.4f} s/step {pace:.3f}", flush=True)
                total.zero_()
            if done % 500 == 0 or done == self.steps:
                state = {"step": done, **{name: part.state_dict() for name, part in self.parts.items()}}
                torch.save(state, self.file.with_suffix(".new"))
                self.file.with_suffix(".new").rename(self.file)


def warm_up(world: World, model: EvfSam, pool: Pool, work: Path, steps: int, images: int) -> None:
    """First phase: the image encoder learns names and colours, pixel by pixel."""
    device = next(model.parameters()).device
    labeller = Labeller(world).to(device)
    modules = {"encoder": model.visual_model.image_encoder, "labeller": labeller}
    phase = Phase("warm-up", work / "encoder.pt", steps, WARMUP_RATE, modules)
    batches = Ahead(partial(labelled, pool, world.words(), images), steps)

    def loss(step: int) -> torch.Tensor:
        views, names, colours = (part.to(device) for part in batches(step))
        with half_on_cpu():
            return labeller(model.embed_images(views), names, colours)

    phase.run(loss)


def read(model: EvfSam, helper: Pointer, material: Material, work: Path, steps: int, images: int) -> None:
    """Second phase: BEiT-3 learns to carry what is said, and where that is, into its prompt; nothing is decoded yet.

    Left to the loss of masks, prompts of some ninety names stay alike for thousands of steps.
    """
    modules = {"beit": model.mm_extractor, "projector": model.text_hidden_fcs, "helper": helper}
    phase = Phase("read", work / "reader.pt", steps, READ_RATE, modules)
    batches = Ahead(partial(material.batch, 1, CONFIG, images, 0.6), steps)

    def loss(step: int) -> torch.Tensor:
        batch = batches(step).to(next(model.parameters()).device)
        with torch.no_grad():
            features = model.embed_images(batch.sam)
        prompts = model.embed_prompts(batch.beit[batch.owner], batch.ids, batch.padding)
        return helper({"prompts": prompts, "features": features}, batch)

    phase.run(loss)


def initialise(model: EvfSam) -> EvfSam:
    """Small normal values for embeddings, tokens and the position table, which start at zero or at unit variance."""
    for name, parameter in model.named_parameters():
        if name.endswith(("pos_embed", "cls_token")) or "embed_positions" in name or "text_embed" in name:
            nn.init.normal_(parameter, std=0.02 if "text_embed" not in name else 0.1)
    return model


@torch.inference_mode()
def measure(
    world: World,
    model: EvfSam,
    tokenizer: Tokenizer,
    scenes: int,
    seed: int,
    variety: float = 0.0,
    unseen: bool = False,
    short_share: float = 0.35,
) -> np.ndarray:
    """One row an expression of held-out scenes: the number of objects it means (0: absent), IoU and score."""
    model.eval()
    device = next(model.parameters()).device
    rows: list[tuple[int, float, float]] = []
    rng, kinds = np.random.default_rng([referring.HELD_OUT, seed]), referring.all_kinds(world)
    for _ in range(0, scenes, HELD_OUT_BATCH):
        picked = [referring.random_scene(world, rng, unseen) for _ in range(HELD_OUT_BATCH)]
        worded = [(scene, referring.expressions(scene.objects, kinds, rng, variety, short_share)) for scene in picked]
        examples = [scene_example(scene, pairs, tokenizer, model.config) for scene, pairs in worded]
        out = forward(model, Batch.collate(examples).to(device))
        meant = [len(ids) for _, pairs in worded for _, ids in pairs]
        rows += zip(meant, out["iou"].tolist(), out["score"].tolist())
    return np.array(rows)


def presence_threshold(rows: np.ndarray, share: float = 0.035) -> float:
    """The score below which that share of the present objects would be rejected."""
    return round(float(np.quantile(rows[rows[:, 0] > 0, 2], share)), 3)


def figures(rows: np.ndarray, threshold: float) -> dict[str, float]:
    """Mean IoU of single objects and of several, and how presence is told from absence at a threshold."""
    counts, ious, scores = rows.T
    found = {
        "iou": ious[counts == 1].mean(),
        "iou_several": ious[counts > 1].mean(),
        "absent_rejected": (scores[counts == 0] < threshold).mean(),
        "falsely_rejected": (scores[counts > 0] < threshold).mean(),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def report(world: World, model: EvfSam, tokenizer: Tokenizer, scenes: int = 600) -> None:
    """Print the figures of finished weights on scenes that neither trained them nor set their threshold."""
    threshold = model.config.presence_threshold
    print(json.dumps({"threshold": threshold, "parameters": sum(p.numel() for p in model.parameters())}))
    for name, options in {
        "true expression": {"short_share": 0.0},
        "with synonyms": {"short_share": 0.0, "variety": 1.0},
        "with short ones": {"short_share": 1.0},
        "held-out looks": {"short_share": 0.0, "unseen": True},
    }.items():
        rows = measure(world, model, tokenizer, scenes, 2, **options)  # type: ignore[arg-type]
        print(json.dumps({"set": name, "expressions": len(rows), **figures(rows, threshold)}), flush=True)


def main() -> None:
    """Train, evaluate and export, or go on where an earlier run stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("embedded/models/segmenter"))
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain-segmenter"))
    parser.add_argument("--report", action="store_true", help="measure the folder --out instead of training")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    world = World(Cutouts.load(fetch()))
    if options.report:
        model = load_model(options.out)
        return report(world, model.to(device), load_tokenizer(options.out, model.config))
    phases: dict[str, dict[str, int]] = yaml.safe_load(Path("pretrain/params.yaml").read_text())["segmenter"]
    options.work.mkdir(parents=True, exist_ok=True)
    pieces = options.work / "sentencepiece.bpe.model"
    if not pieces.is_file():
        referring.train_vocabulary(world, pieces)
    tokenizer = Tokenizer(pieces, CONFIG.beit3.max_text_tokens)
    model = initialise(EvfSam(CONFIG)).to(device)
    pool = Pool(recipe=asked())
    material = Material(world, pool, tokenizer)
    warm_up(world, model, pool, options.work, **phases["warm-up"])

    def after_step(step: int, model: EvfSam) -> None:
        if step % 500 == 0:
            rows = measure(world, model, tokenizer, 150, 0)
            found = figures(rows, threshold := presence_threshold(rows))
            print(f"held-out {step} {json.dumps({**found, 'threshold': threshold})}", flush=True)

    torch.manual_seed(1)
    helper = Pointer().to(device)

    def phase(name: str, model: EvfSam, recipe: Recipe) -> None:
        recipe = replace(recipe, steps=phases[name]["steps"])
        number = list(phases).index(name)
        batches = Ahead(partial(material.batch, number, model.config, phases[name]["images"], 0.35), recipe.steps)
        log = lambda line: print(f"{name} {line}", flush=True)  # noqa: E731
        train(model, batches, recipe, options.work / name, after_step, log, helper)

    read(model, helper, material, options.work, **phases["read"])
    phase("follow", model, FOLLOW)
    phase("together", model, TOGETHER)
    phase("sharpen", model, SHARPEN)
    threshold = presence_threshold(measure(world, model, tokenizer, 600, 1))
    model.config = replace(model.config, presence_threshold=threshold)
    save_folder(model, pieces, options.out)


if __name__ == "__main__":
    main()
