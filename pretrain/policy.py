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
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from world.cutouts import Cutouts, fetch
from world.scenes import SIZES, TONES, Scene, SceneObject, World, stored

from saliency_r1.annotation.attributes import NAMED_COLOURS
from saliency_r1.annotation.wording import SYNONYMS
from saliency_r1.policy import Policy, Prompt

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
        prompt = Prompt(
            torch.tensor(self.policy.tokenizer(text).input_ids),
            pixel_values(self.policy, images) if images else torch.zeros(0),
            grids(images) if images else torch.zeros(0, 3, dtype=torch.long),
        )
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


def train(policy: Policy, world: World, options: dict[str, Any], runs: Path) -> None:
    """First the vision tower alone names what each token shows, then all of the model describes; resumable."""
    torch.set_num_threads(options["threads"])
    quicken(policy.model.model.visual)
    model, looks, total = policy.model, options["look_steps"], options["look_steps"] + options["steps"]
    heads = nn.ModuleList(nn.Linear(128, len(names)) for names in attributes(world))
    seen: list[Tensor] = []
    model.model.visual.merger.register_forward_hook(lambda module, inputs, output: seen.append(output))
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=options["lr"], weight_decay=0.01, betas=(0.9, 0.98))

    def rate(step: int) -> float:
        """Each phase warms up and falls along a cosine, the first to a third."""
        start, length, low = (0, looks, 0.3) if step < looks else (looks, options["steps"], 0.0)
        done = (step - start) / length
        return min(1.0, (step - start + 1) / (0.05 * length)) * (low + (1 - low) * (1 + math.cos(math.pi * done)) / 2)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    checkpoint, first = runs / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
    material = None
    model.train()
    started, total_language, total_visual = time.time(), 0.0, 0.0
    for step in range(first, total):
        if material is None or step == looks:  # every phase has pictures of its own
            seed = options["seed"] + (1 if step < looks else 4)
            material = Material(policy, world, options["pool"], seed, options["shares"])
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=options["autocast"] and step < looks):
            if step < looks:
                pixels, grid, labels = material.views(step, options["look_batch"], options["seed"])
                model.model.visual(pixels, grid_thw=grid)
                language_loss = torch.zeros(())
            else:
                batch, labels = material.batch(step, options["batch_size"], options["seed"])
                # The output matrix alone is evaluated on the answers' positions: prompt positions carry no loss.
                inputs = {k: v for k, v in batch.items() if k != "labels"}
                hidden = model.model(**inputs, use_cache=False).last_hidden_state
                targets = batch["labels"][:, 1:]
                mask = targets != -100
                logits = model.lm_head(hidden[:, :-1][mask])
                language_loss = nn.functional.cross_entropy(logits.float(), targets[mask])
        shown = visual_loss(heads, seen[0].float(), labels) if labels.numel() else torch.zeros(())
        loss = language_loss + (1.0 if step < looks else options["visual_weight"]) * shown
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        total_language, total_visual = (
            total_language + float(language_loss.detach()),
            total_visual + float(shown.detach()),
        )
        done = step + 1
        if done % 50 == 0:
            pace = (time.time() - started) / (done - first)
            print(
                f"step {done} loss {total_language / 50:.4f} visual {total_visual / 50:.4f} {pace:.2f} s/step",
                flush=True,
            )
            total_language = total_visual = 0.0
        if done % options["checkpoint_every"] == 0 or done == total:
            runs.mkdir(parents=True, exist_ok=True)
            state = {"model": model.state_dict(), "heads": heads.state_dict(), "optimiser": optimiser.state_dict(),
                     "schedule": schedule.state_dict(), "step": done}  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
            if done > looks:
                print(json.dumps(evaluate(policy, world, 100, options["seed"] + 2)), flush=True)
                model.train()


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
