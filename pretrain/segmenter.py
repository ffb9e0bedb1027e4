"""Train the tiny EVF-SAM on rendered scenes and write it as a folder that ``saliency_r1.segmenter.load`` reads.

Five phases. First SAM's image encoder alone learns to label every pixel with name and colour: the stand-in for the
pre-training of a real SAM. Then BEiT-3 alone learns to carry the words of an expression into its prompt: the stand-in
for that of a real BEiT-3. Then, as in the official recipe, the encoder is frozen and the rest learns to follow
expressions, on a pool of scenes whose features are computed once. Then everything is tuned together on fresh scenes,
last at a larger side, for the sake of the outlines.
Each phase goes on where it was stopped.

    python pretrain/segmenter.py --out embedded/models/segmenter --work runs/pretrain-segmenter
    python pretrain/segmenter.py --report
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import referring
import torch
from torch import nn
from torch.nn import functional as F
from world.cutouts import Cutouts, fetch
from world.scenes import Scene, World

from saliency_r1.annotation.wording import COLOURS
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
        img_size=112,
        patch_size=8,
        embed_dim=128,
        depth=4,
        num_heads=4,
        mlp_ratio=3.0,
        window_size=7,
        global_attn_indexes=(1, 3),
        out_chans=96,
        use_rel_pos=True,
    ),
    sam_mask_decoder=MaskDecoderConfig(
        transformer_dim=96, transformer_num_heads=4, transformer_mlp_dim=256, iou_head_hidden_dim=96
    ),
    projector_hidden=96,
)
FINE = replace(CONFIG, sam_image_encoder=replace(CONFIG.sam_image_encoder, img_size=128, window_size=8))
IMAGES_A_STEP = 10
WARMUP_STEPS, WARMUP_RATE, WARMUP_IMAGES, WARMUP_POOL = 3000, 1.5e-3, 24, 10_000
WORDS_SCALE = 20.0  # brings the loss of the words said, some 40 at first, near the others
READ_STEPS, READ_RATE, READ_IMAGES = 1500, 2e-3, 30
SHARES = 2  # labels of a patch in each direction
POOL = 3000
FOLLOW = Recipe(
    steps=600,
    learning_rate=9e-4,
    schedule="constant",
    weight_decay=0.02,
    betas=(0.9, 0.98),
    bce_weight=2.0,
    iou_weight=1.0,
    checkpoint_every=250,
)
TOGETHER = replace(FOLLOW, steps=2400, learning_rate=8e-4, train_image_encoder=True)
SHARPEN = replace(TOGETHER, steps=1600, learning_rate=7e-4, schedule="cosine", warmup=0.05)


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


def fresh_batch(world: World, step: int, tokenizer: Tokenizer, config: EvfSamConfig) -> Batch:
    """A batch of scenes that no other step sees, a pure function of the step and the side."""
    rng = np.random.default_rng([step, config.sam_image_encoder.img_size])
    kinds, scenes = referring.all_kinds(world), [referring.random_scene(world, rng) for _ in range(IMAGES_A_STEP)]
    return Batch.collate(
        [scene_example(scene, referring.expressions(scene.objects, kinds, rng), tokenizer, config) for scene in scenes]
    )


class Pool:
    """Scenes with the features of a frozen image encoder; every step draws some and words them anew."""

    def __init__(self, world: World, model: EvfSam, tokenizer: Tokenizer) -> None:
        self.world = world
        self.model = model
        self.tokenizer = tokenizer
        self.scenes: list[Scene] = []
        self.views: list[Example] = []

    def _fill(self) -> None:
        rng = np.random.default_rng(2)
        for _ in range(POOL // IMAGES_A_STEP):
            scenes = [referring.random_scene(self.world, rng) for _ in range(IMAGES_A_STEP)]
            views = [scene_example(scene, [], self.tokenizer) for scene in scenes]
            with torch.no_grad():
                features = self.model.embed_images(torch.stack([view.sam for view in views]))
            self.scenes += scenes
            unused = torch.empty(0)  # the features stand for this view
            self.views += [replace(view, sam=unused, features=one) for view, one in zip(views, features)]

    def batch(self, step: int, images: int = IMAGES_A_STEP, short_share: float = 0.35) -> Batch:
        """The batch of one step, a pure function of its number."""
        if not self.scenes:  # a run that goes on behind this phase never asks
            self._fill()
        rng = np.random.default_rng([step, 3, images])
        kinds, examples = referring.all_kinds(self.world), []
        for index in rng.choice(len(self.scenes), images, replace=False):
            scene = self.scenes[index]
            pairs = referring.expressions(scene.objects, kinds, rng, short_share=short_share)
            ids = [self.tokenizer.encode(text) for text, _ in pairs]
            examples.append(
                replace(self.views[index], ids=ids, targets=torch.from_numpy(referring.targets(scene, pairs)))
            )
        return Batch.collate(examples)


class Labeller(nn.Module):
    """Name and colour of every pixel of a half patch from the image features; thrown away after the first phase."""

    def __init__(self, world: World) -> None:
        super().__init__()
        unnamed = {looks[0].kind.name for looks in world.cutouts.unnamed}
        self.names = ["", *sorted({"object", *unnamed, *world.cutouts.named})]
        self.classes = (len(self.names), len(COLOURS) + 2)  # background, and no colour that prevails
        self.head = nn.Conv2d(CONFIG.sam_image_encoder.out_chans, SHARES**2 * sum(self.classes), 1)
        self.views: list[torch.Tensor] = []  # in half precision, for the sake of memory
        self.maps: list[torch.Tensor] = []

    def forward(self, features: torch.Tensor, names: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
        """The loss of features B x C x h x w against labels B x SHARES h x SHARES w (-1: outside of the picture)."""
        logits = F.pixel_shuffle(self.head(features), SHARES).split(self.classes, dim=1)
        losses = []
        for part, labels in zip(logits, (names, colours)):
            weight = torch.ones(part.shape[1])
            weight[0] = 0.3
            losses.append(F.cross_entropy(part.float(), labels, weight, ignore_index=-1))
        return losses[0] + losses[1]

    def batch(self, world: World, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Views B x 3 x S x S, names and colours as `forward` takes them, of scenes of a pool; decided by the step."""
        if not self.views:  # a run that goes on behind this phase never asks
            rng = np.random.default_rng(0)
            for _ in range(WARMUP_POOL):
                self._add(referring.random_scene(world, rng))
        chosen = np.random.default_rng([step, 0]).choice(WARMUP_POOL, WARMUP_IMAGES, replace=False)
        maps = torch.stack([self.maps[index] for index in chosen]).long()
        return torch.stack([self.views[index] for index in chosen]).float(), maps[:, 0], maps[:, 1]

    def _add(self, scene: Scene) -> None:
        side = CONFIG.sam_image_encoder.img_size
        view, inner = sam_view(scene.image, side)
        names = {item.id: self.names.index(item.name) for item in scene.objects}
        colours = {item.id: ("", *COLOURS).index(item.colour) + 1 for item in scene.objects}
        both = torch.from_numpy(np.stack([_label_map(scene, names), _label_map(scene, colours)]))[None].float()
        fitted = F.interpolate(both, size=inner, mode="nearest-exact")
        padded = F.pad(fitted, (0, side - inner[1], 0, side - inner[0]), value=-1)
        scale = SHARES / CONFIG.sam_image_encoder.patch_size
        self.views.append(view.half())
        self.maps.append(F.interpolate(padded, scale_factor=scale, mode="nearest-exact")[0].to(torch.int16))


class Pointer(nn.Module):
    """What an expression says and where in the feature grid it points, read off the prompt; thrown away afterwards.

    Both are linear: the shortest way from words to prompts and from prompts to places, so that prompts mean something
    before the decoder can read them. Without the words, prompts of some ninety names stay alike for a thousand steps.
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


class Stage:
    """A phase with a loop of its own: what it trains, its schedule, and the file that lets it go on."""

    def __init__(self, name: str, file: Path, steps: int, rate: float, modules: dict[str, nn.Module]) -> None:
        self.name, self.file, self.steps, self.first = name, file, steps, 0
        self.parameters = [parameter for module in modules.values() for parameter in module.parameters()]
        optimizer = torch.optim.AdamW(self.parameters, rate, betas=(0.9, 0.98), weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
        self.parts: dict[str, Any] = {**modules, "optimizer": optimizer, "schedule": schedule}
        if file.is_file():
            state = torch.load(file, weights_only=True)
            self.first = state["step"]
            for name, part in self.parts.items():
                part.load_state_dict(state[name])

    def run(self, loss_of: Callable[[int], torch.Tensor]) -> None:
        """All steps that are missing; the loss is a function of the step."""
        started, total = time.monotonic(), 0.0
        for step in range(self.first + 1, self.steps + 1):
            loss = loss_of(step)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.parts["optimizer"].step()
            self.parts["schedule"].step()
            self.parts["optimizer"].zero_grad()
            total += float(loss.detach()) / 50
            if step % 50 == 0:
                pace = (time.monotonic() - started) / (step - self.first)
                print(f"{self.name} {step} loss {total:.4f} s/step {pace:.3f}", flush=True)
                total = 0.0
            if step % 250 == 0 or step == self.steps:
                state = {"step": step, **{name: part.state_dict() for name, part in self.parts.items()}}
                torch.save(state, self.file.with_suffix(".new"))
                self.file.with_suffix(".new").rename(self.file)


def warm_up(world: World, model: EvfSam, work: Path) -> None:
    """First phase: the image encoder learns names and colours, pixel by pixel."""
    encoder, labeller = model.visual_model.image_encoder, Labeller(world)
    modules = {"encoder": encoder, "labeller": labeller}
    stage = Stage("warm-up", work / "encoder.pt", WARMUP_STEPS, WARMUP_RATE, modules)

    def loss(step: int) -> torch.Tensor:
        views, names, colours = labeller.batch(world, step)
        with torch.autocast("cpu", torch.bfloat16):
            return labeller(model.embed_images(views), names, colours)

    stage.run(loss)


def read(model: EvfSam, helper: Pointer, pool: Pool, work: Path) -> None:
    """Second phase: BEiT-3 learns to carry what is said, and where that is, into its prompt; nothing is decoded yet.

    Left to the loss of masks, prompts of some ninety names stay alike for thousands of steps.
    """
    modules = {"beit": model.mm_extractor, "projector": model.text_hidden_fcs, "helper": helper}
    stage = Stage("read", work / "reader.pt", READ_STEPS, READ_RATE, modules)

    def loss(step: int) -> torch.Tensor:
        batch = pool.batch(step, READ_IMAGES, short_share=0.6)
        prompts = model.embed_prompts(batch.beit[batch.owner], batch.ids, batch.padding)
        return helper({"prompts": prompts, "features": batch.features}, batch)

    stage.run(loss)


def initialise(model: EvfSam) -> EvfSam:
    """Small normal values for embeddings, tokens and the position table, which start at zero or at unit variance."""
    for name, parameter in model.named_parameters():
        if name.endswith(("pos_embed", "cls_token")) or "embed_positions" in name or "text_embed" in name:
            nn.init.normal_(parameter, std=0.02 if "text_embed" not in name else 0.1)
    return model


def enlarged(model: EvfSam, config: EvfSamConfig) -> EvfSam:
    """The same weights for another side of SAM's view: only position tables depend on it, and are interpolated."""
    larger = EvfSam(config)
    state = model.state_dict()
    for name, wanted in larger.state_dict().items():
        if name.endswith("image_encoder.pos_embed"):
            grid = wanted.shape[1:3]
            table = F.interpolate(state[name].permute(0, 3, 1, 2), size=grid, mode="bicubic", align_corners=False)
            state[name] = table.permute(0, 2, 3, 1)
        elif name.endswith(("rel_pos_h", "rel_pos_w")):
            state[name] = F.interpolate(state[name].T[None], size=len(wanted), mode="linear")[0].T
    larger.load_state_dict(state)
    return larger


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
    rows: list[tuple[int, float, float]] = []
    rng, kinds = np.random.default_rng([referring.HELD_OUT, seed]), referring.all_kinds(world)
    for _ in range(0, scenes, IMAGES_A_STEP):
        picked = [referring.random_scene(world, rng, unseen) for _ in range(IMAGES_A_STEP)]
        worded = [(scene, referring.expressions(scene.objects, kinds, rng, variety, short_share)) for scene in picked]
        examples = [scene_example(scene, pairs, tokenizer, model.config) for scene, pairs in worded]
        out = forward(model, Batch.collate(examples))
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
    torch.manual_seed(0)
    world = World(Cutouts.load(fetch()))
    if options.report:
        model = load_model(options.out)
        return report(world, model, load_tokenizer(options.out, model.config))
    options.work.mkdir(parents=True, exist_ok=True)
    pieces = options.work / "sentencepiece.bpe.model"
    if not pieces.is_file():
        referring.train_vocabulary(world, pieces)
    tokenizer = Tokenizer(pieces, CONFIG.beit3.max_text_tokens)
    model = initialise(EvfSam(CONFIG))
    warm_up(world, model, options.work)
    best = 0.6

    def after_step(step: int, model: EvfSam) -> None:
        nonlocal best
        if step % 250:
            return
        rows = measure(world, model, tokenizer, 150, 0)
        found = figures(rows, threshold := presence_threshold(rows))
        print(f"held-out {step} {json.dumps({**found, 'threshold': threshold})}", flush=True)
        if found["iou"] > best:
            best = found["iou"]
            model.config = replace(model.config, presence_threshold=threshold)
            save_folder(model, pieces, options.out)

    torch.manual_seed(1)
    helper = Pointer()

    def phase(name: str, model: EvfSam, batches: Callable[[int], Batch], recipe: Recipe) -> None:
        log = lambda line: print(f"{name} {line}", flush=True)  # noqa: E731
        train(model, batches, recipe, options.work / name, after_step, log, helper)

    pool = Pool(world, model, tokenizer)
    read(model, helper, pool, options.work)
    phase("follow", model, pool.batch, FOLLOW)
    phase("together", model, lambda step: fresh_batch(world, step, tokenizer, CONFIG), TOGETHER)
    model = enlarged(model, FINE)
    phase("sharpen", model, lambda step: fresh_batch(world, step, tokenizer, FINE), SHARPEN)
    threshold = presence_threshold(measure(world, model, tokenizer, 600, 1))
    model.config = replace(model.config, presence_threshold=threshold)
    save_folder(model, pieces, options.out)


if __name__ == "__main__":
    main()
