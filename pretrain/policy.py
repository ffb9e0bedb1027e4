"""Pretrain the tiny base policy: a real Qwen2.5-VL of about 1.6 M parameters that describes rendered scenes.

    python pretrain/policy.py            # reads the section `policy` of pretrain/params.yaml

Next-token loss on answers, plus an auxiliary loss that teaches the vision tower: a linear head, thrown away
afterwards, names colour, shape, size and tone of what each merged image token shows. Without it shapes are learned
only after thousands of steps, because few words of a description depend on them. Resumes from runs/pretrain-policy/.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import language
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from world.cutouts import Cutouts, fetch
from world.scenes import SIZES, TONES, Scene, SceneObject, World, stored

from saliency_r1.annotation.attributes import NAMED_COLOURS
from saliency_r1.annotation.wording import SYNONYMS
from saliency_r1.policy import Policy, Prompt

PHASES = ("look", "describe", "talk")
TOKEN = 16  # pixels on the side of a merged image token: patch size 8, 2 x 2 merged


def build(world: World, seed: int, vocabulary: int, runs: Path) -> Policy:
    """The untrained policy with its tokenizer and processor.

    The tokenizer is kept in `runs`: its training breaks ties differently from process to process, and a resumed run
    needs the one it began with.
    """
    if not (runs / "tokenizer").is_dir():
        language.build_tokenizer(world, seed, vocabulary).save_pretrained(runs / "tokenizer")
    tokenizer = Qwen2Tokenizer.from_pretrained(runs / "tokenizer")
    size = {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}
    vision: dict[str, Any] = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2, "size": size}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**vision),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**vision),
        chat_template=language.CHAT_TEMPLATE,
    )
    ids = tokenizer.get_vocab()
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_heads": 4,
            "patch_size": 8,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 160,
            "fullatt_block_indexes": [0, 1, 2, 3],
            "out_hidden_size": 128,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return Policy(Qwen2_5_VLForConditionalGeneration(config), processor)


def pixel_values(policy: Policy, images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """What the image processor makes of pictures whose sides are multiples of TOKEN: patches of all, n x values."""
    processor = policy.processor.image_processor
    mean, std = (np.array(values, np.float32) * 255 for values in (processor.image_mean, processor.image_std))
    side, parts = TOKEN // 2, []
    for image in images:
        rows, columns = image.shape[0] // TOKEN, image.shape[1] // TOKEN
        patches = ((image - mean) / std).reshape(rows, 2, side, columns, 2, side, 3).transpose(0, 3, 1, 4, 6, 2, 5)
        frame = patches.reshape(rows * columns * 4, 3, 1, side * side)
        parts.append(np.repeat(frame, 2, axis=2).reshape(rows * columns * 4, -1))
    return torch.from_numpy(np.concatenate(parts))


def grids(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """The grid of patches of each picture, (n, 3): time, rows, columns."""
    return torch.tensor([[1, 2 * (image.shape[0] // TOKEN), 2 * (image.shape[1] // TOKEN)] for image in images])


class Material:
    """Endless streams of pretraining examples over a fixed pool of rendered scenes."""

    def __init__(self, policy: Policy, world: World, pool: int, seed: int, shares: dict[str, float]) -> None:
        rng = np.random.default_rng(seed)
        self.policy, self.shares, self.nouns = policy, shares, language.nouns(world)
        self.attributes = attributes(world)
        makers = (world.anything, world.anything, world.anything, world.sod, world.sis)
        self.objects: list[list[SceneObject]] = []
        self.images: list[NDArray[np.uint8]] = []
        self.labels: list[Tensor] = []
        self.features: list[Tensor] = []  # of a tower that learns no more, see `look`
        while len(self.images) < pool:
            maker = makers[len(self.images) % 5]
            for scene in world.group(rng, 3) if len(self.images) % 12 == 0 else [maker(rng)]:
                self.objects.append(list(scene.objects))
                self.images.append(np.array(stored(scene.image, int(rng.integers(75, 98)))))
                self.labels.append(self._token_labels(scene))

    def _token_labels(self, scene: Scene) -> Tensor:
        """For each merged token the attribute indices of the object it shows, (tokens, 4); background: 0, then -100."""
        width, height = scene.image.size
        columns, rows = width // TOKEN, height // TOKEN
        labels = np.full((rows * columns, len(self.attributes)), -100)
        labels[:, 0] = 0
        best = np.full(rows * columns, 0.12)
        for item in scene.objects:
            share = scene.masks[item.id].reshape(rows, TOKEN, columns, TOKEN).mean((1, 3)).ravel()
            values = (item.name, item.colour, item.size, item.tone)
            labels[share > best] = [names.index(value) for names, value in zip(self.attributes, values)]
            best = np.maximum(best, share)
        return torch.from_numpy(labels)

    @torch.no_grad()
    def look(self, visual: nn.Module) -> None:
        """Keep what the tower makes of every picture; from then on it stands for the picture in every example."""
        for image in self.images:
            self.features.append(visual(pixel_values(self.policy, [image]), grid_thw=grids([image])).pooler_output)

    def _shown(self, chosen: Sequence[int]) -> Tensor:
        """Pixel values of some pictures, or the features kept of them."""
        if not len(chosen):
            return torch.zeros(0)
        if self.features:
            return torch.cat([self.features[index] for index in chosen])
        return pixel_values(self.policy, [self.images[index] for index in chosen])

    def example(self, rng: np.random.Generator, style: str) -> tuple[Prompt, list[int], Tensor]:
        """Prompt, response ids and token labels of one random example: of `one` image, of `many`, or `repeat`."""
        count = {"one": 1, "many": int(rng.integers(2, 4)), "repeat": 0}[style]
        chosen = rng.integers(len(self.images), size=count)
        if style == "repeat":
            question, answer = language.repetition(rng, self.nouns)
        else:
            question, answer = language.description([self.objects[i] for i in chosen], rng)
        images = [self.images[i] for i in chosen]
        pads = ["<|vision_start|>" + "<|image_pad|>" * len(self.labels[i]) + "<|vision_end|>" for i in chosen]
        text = f"<|im_start|>user\n{''.join(pads)}{question}<|im_end|>\n<|im_start|>assistant\n"
        shown = {"pixel_values": self._shown(chosen), "image_grid_thw": grids(images)} if images else {}
        prompt = Prompt(torch.tensor(self.policy.tokenizer(text).input_ids), shown)
        labels = [torch.zeros(0, len(self.attributes), dtype=torch.long), *(self.labels[i] for i in chosen)]
        return prompt, self.policy.response_ids(answer), torch.cat(labels)

    def batch(self, step: int, size: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
        """A batch of one style, a function of (seed, step) alone, so that a run can be resumed."""
        rng = np.random.default_rng((seed, step))
        style = str(rng.choice(list(self.shares), p=list(self.shares.values())))
        rows = size // 2 if style == "many" else size
        prompts, answers, labels = zip(*(self.example(rng, style) for _ in range(rows)))
        return self.policy.collate(prompts, answers), torch.cat(labels)

    def views(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pixel values, grids and token labels of `size` pictures, also a function of (seed, step) alone.

        They have equally many tokens: kernels are made for a shape and kept, and every new shape costs time and memory.
        """
        rng = np.random.default_rng((seed, step, 1))
        counts = np.array([len(labels) for labels in self.labels])
        same = np.nonzero(counts == counts[rng.integers(len(counts))])[0]
        chosen = rng.choice(same, size)
        images = [self.images[i] for i in chosen]
        return pixel_values(self.policy, images), grids(images), torch.cat([self.labels[i] for i in chosen])


def attributes(world: World) -> tuple[tuple[str, ...], ...]:
    """The words for an object's name ("" is the background), colour, size and tone."""
    names = sorted({looks[0].kind.name for looks in world.cutouts.unnamed} | set(world.cutouts.named) | {"object"})
    return ("", *names), ("", *NAMED_COLOURS), SIZES, TONES


@torch.no_grad()
def evaluate(policy: Policy, world: World, count: int, seed: int) -> dict[str, float]:
    """How greedy descriptions of held-out scenes compare with the truth, see `score_descriptions`."""
    rng = np.random.default_rng(seed)
    held_out = [world.anything(rng) for _ in range(count)]
    prompts = [policy.prompt([scene.image], language.DESCRIBE_ONE[0]) for scene in held_out]
    answers = [
        response.text for start in range(0, count, 50) for response in policy.generate(prompts[start : start + 50], 90)
    ]
    return score_descriptions(answers, [scene.objects for scene in held_out])


def score_descriptions(answers: Sequence[str], scenes: Sequence[Sequence[SceneObject]]) -> dict[str, float]:
    """The share of scenes with the right `count`; of their objects, read in order, that with each attribute right.

    Where the count is wrong, every object of the scene counts as wrong. `colour` speaks of objects that have one.
    """
    canonical = {said: word for word, options in SYNONYMS.items() for said in options}
    hits: dict[str, list[bool]] = {key: [] for key in ("count", "name", "colour", "size", "tone", "place")}
    for answer, objects in zip(answers, scenes):
        parts = answer.removeprefix("There is ").removesuffix(".").replace(" and ", ", ").split(", ")
        hits["count"].append(len(parts) == len(objects))
        for part, item in zip(parts if hits["count"][-1] else [""] * len(objects), objects):
            looks, _, place = part.partition(" at the ")
            words = [canonical.get(word, word) for word in looks.split()]
            hits["name"].append(words[-1:] in [[item.name], *([other] for other in item.also)])
            if item.colour:
                hits["colour"].append(item.colour in words[:-1])
            hits["size"].append(item.size in words)
            hits["tone"].append(bool(part) and ("faint" in words) is (item.tone == "faint"))
            hits["place"].append(canonical.get(place, place) == item.place)
    return {key: round(float(np.mean(values)), 4) for key, values in hits.items()}


def quicken(visual: Any) -> None:
    """Let the tower compute its patch embedding as the product that it is, and its attention in single precision.

    On a CPU the convolution takes a third of the tower's time and attention in bfloat16 more than in float32.
    """
    weight = visual.patch_embed.proj.weight
    visual.patch_embed.forward = lambda pixels: nn.functional.linear(pixels, weight.flatten(1))
    plain = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attention(module: nn.Module, *states: Tensor, **options: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return plain(module, *(state.float() for state in states), **options)

    ALL_ATTENTION_FUNCTIONS.register("float32", attention)
    visual.config._attn_implementation = "float32"


def visual_loss(heads: nn.ModuleList, tokens: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every attribute of every merged token; background, which is most, weighs little."""
    weight = torch.ones(heads[0](tokens[:1]).shape[1])
    weight[0] = 0.15
    losses = [
        nn.functional.cross_entropy(head(tokens), column, weight if index == 0 else None)
        for index, (head, column) in enumerate(zip(heads, labels.T))
    ]
    return torch.stack(losses).sum()


class Training:
    """Heads, optimiser and schedule beside the model, kept in one checkpoint.

    Three phases: the vision tower alone names what each token shows; all of the model describes; last the tower learns
    no more, what it makes of every picture is computed once, and a step costs less than half.
    """

    def __init__(self, policy: Policy, world: World, options: dict[str, Any], runs: Path) -> None:
        self.model, self.options, self.checkpoint = policy.model, options, runs / "checkpoint.pt"
        self.ends = [int(end) for end in np.cumsum([options[f"{phase}_steps"] for phase in PHASES])]
        self.heads = nn.ModuleList(nn.Linear(128, len(names)) for names in attributes(world))
        self.seen: list[Tensor] = []
        self.model.model.visual.merger.register_forward_hook(lambda module, inputs, output: self.seen.append(output))
        self.parameters = [*self.model.parameters(), *self.heads.parameters()]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=options["lr"], weight_decay=0.01, betas=(0.9, 0.98))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self.rate)
        self.step = 0
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.step = state["step"]

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "heads": self.heads, "optimiser": self.optimiser, "schedule": self.schedule}

    def phase(self, step: int) -> int:
        """The number of the phase a step belongs to."""
        return sum(step >= end for end in self.ends[:-1])

    def rate(self, step: int) -> float:
        """Each phase warms up and falls along a cosine, the last one to nothing, those before to a third."""
        phase = self.phase(step)
        start, low = [0, *self.ends][phase], 0.0 if phase == 2 else 0.3
        length = self.ends[phase] - start
        done = (step - start) / length
        return min(1.0, (step - start + 1) / (0.05 * length)) * (low + (1 - low) * (1 + math.cos(math.pi * done)) / 2)

    def loss(self, material: Material) -> tuple[Tensor, Tensor]:
        """Of the words and of what the tokens show, at the present step."""
        self.seen.clear()
        phase, seed, words = self.phase(self.step), self.options["seed"], torch.zeros(())
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options["autocast"] and phase == 0):
            if phase == 0:
                pixels, grid, labels = material.views(self.step, self.options["look_batch"], seed)
                self.model.model.visual(pixels, grid_thw=grid)
            else:
                batch, labels = material.batch(self.step, self.options["batch_size"], seed)
                words = language_loss(self.model, batch)
        shown = visual_loss(self.heads, self.seen[0].float(), labels) if self.seen and labels.numel() else None
        return words, torch.zeros(()) if shown is None else shown

    def advance(self, words: Tensor, shown: Tensor) -> None:
        """One step of the optimiser."""
        self.optimiser.zero_grad()
        (words + shown).backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.schedule.step()
        self.step += 1

    def save(self) -> None:
        """Write the checkpoint aside, then in its place."""
        state = {name: part.state_dict() for name, part in self._parts().items()} | {"step": self.step}
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").rename(self.checkpoint)


def language_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy of the answers' tokens. Prompt positions carry no loss, and the output matrix skips them."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    hidden = model.model(**inputs, use_cache=False).last_hidden_state
    targets = batch["labels"][:, 1:]
    mask = targets != -100
    return nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][mask]).float(), targets[mask])


def train(policy: Policy, world: World, options: dict[str, Any], runs: Path) -> None:
    """All phases, each on pictures of its own but the last, which has those of the one before; resumable."""
    torch.set_num_threads(options["threads"])
    visual = policy.model.model.visual
    quicken(visual)
    training = Training(policy, world, options, runs)
    policy.model.train()
    first, started, sums, material, looked = training.step, time.time(), np.zeros(2), None, visual.forward
    while training.step < training.ends[-1]:
        phase = training.phase(training.step)
        if material is None or training.step == training.ends[0]:
            material = Material(policy, world, options["pool"], options["seed"] + (4 if phase else 1), options["shares"])
        if phase == 2 and not material.features:
            material.look(visual)
            visual.forward = lambda features, grid_thw, **_: BaseModelOutputWithPooling(pooler_output=features)
        words, shown = training.loss(material)
        training.advance(words, shown)
        sums += (float(words.detach()), float(shown.detach()))
        if training.step % 50 == 0:
            pace = (time.time() - started) / (training.step - first)
            print(f"step {training.step} loss {sums[0] / 50:.4f} visual {sums[1] / 50:.4f} {pace:.2f} s/step", flush=True)
            sums[:] = 0
        if training.step % options["checkpoint_every"] == 0 or training.step == training.ends[-1]:
            training.save()
            if phase:
                kept, visual.forward = visual.forward, looked
                print(json.dumps(evaluate(policy, world, 100, options["seed"] + 2)), flush=True)
                visual.forward = kept
                policy.model.train()
    visual.forward = looked


def export(policy: Policy, folder: Path) -> None:
    """Write the ordinary Hugging Face folder, weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    policy.model.eval().to(torch.float16).save_pretrained(folder)
    policy.processor.save_pretrained(folder)


def main() -> None:
    """Build, train, export and measure."""
    options = yaml.safe_load(Path("pretrain/params.yaml").read_text())["policy"]
    runs = Path("runs/pretrain-policy")
    world = World(Cutouts.load(fetch()))
    policy = build(world, options["seed"], options["vocabulary"], runs)
    print(f"{sum(p.numel() for p in policy.model.parameters()):,} parameters", flush=True)
    train(policy, world, options, runs)
    export(policy, Path("embedded/models/policy"))
    shipped = Policy.load("embedded/models/policy")
    scores = evaluate(shipped, world, 500, options["seed"] + 3)
    Path("pretrain/policy.json").write_text(json.dumps(scores, indent=1) + "\n")
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
