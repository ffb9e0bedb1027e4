"""Pretrain the tiny base policy: a real Qwen2.5-VL of some two million parameters that describes rendered scenes.

    python pretrain/world/pool.py && python pretrain/policy.py      # section `policy` of pretrain/params.yaml

First the vision tower alone: a linear head, thrown away afterwards, names what each merged image token shows (name,
colour, size and tone). Without it names are learned only after thousands of steps, because few words of a description
depend on them. Then all of the model: the loss of the next token of answers, and of the tower's head beside it. Takes
the accelerator that is there. Goes on where it was stopped, from runs/pretrain-policy/.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import language
import numpy as np
import torch
import yaml
from ahead import Ahead, half_on_cpu
from material import Batch, Material, attributes
from torch import Tensor, nn
from tower import EqualPictures, layout, patches, token_labels, visual_loss
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from world.cutouts import Cutouts, fetch
from world.pool import Pool, asked
from world.scenes import SceneObject, World, stored

from saliency_r1.annotation.wording import SYNONYMS
from saliency_r1.policy import Policy

PHASES = ("look", "describe")


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


@torch.no_grad()
def evaluate(policy: Policy, world: World, count: int, seed: int) -> dict[str, float]:
    """How greedy descriptions of held-out scenes compare with the truth, see `score_descriptions`."""
    rng = np.random.default_rng(seed)
    held_out = [world.anything(rng) for _ in range(count)]
    prompts = [policy.prompt([stored(scene.image, 82)], language.DESCRIBE_ONE[0]) for scene in held_out]
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


class Training:
    """Heads, optimiser and schedule beside the model, kept in one checkpoint."""

    def __init__(self, policy: Policy, world: World, options: dict[str, Any], runs: Path) -> None:
        self.policy, self.model, self.options, self.checkpoint = policy, policy.model, options, runs / "checkpoint.pt"
        self.visual = self.model.model.visual
        self.equal_pictures = EqualPictures(self.visual, compiled=policy.device.type == "cpu")
        self.ends = [int(end) for end in np.cumsum([options[f"{phase}_steps"] for phase in PHASES])]
        width = self.visual.config.out_hidden_size
        self.heads = nn.ModuleList(nn.Linear(width, len(names)) for names in attributes(world)).to(policy.device)
        processor = policy.processor.image_processor
        self.mean, self.std = (
            torch.tensor(values, device=policy.device) * 255 for values in (processor.image_mean, processor.image_std)
        )
        self.parameters = [*self.model.parameters(), *self.heads.parameters()]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=options["lr"], weight_decay=0.01, betas=(0.9, 0.98))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self.rate)
        self.step = 0
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True, map_location=policy.device)
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.step = state["step"]

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "heads": self.heads, "optimiser": self.optimiser, "schedule": self.schedule}

    def phase(self, step: int) -> int:
        """The number of the phase a step belongs to."""
        return sum(step >= end for end in self.ends[:-1])

    def rate(self, step: int) -> float:
        """Each phase warms up and falls along a cosine, the last one to nothing, the one before to a third."""
        phase = self.phase(step)
        start, low = [0, *self.ends][phase], 0.0 if phase == len(PHASES) - 1 else 0.3
        length = self.ends[phase] - start
        done = (step - start) / length
        return min(1.0, (step - start + 1) / (0.05 * length)) * (low + (1 - low) * (1 + math.cos(math.pi * done)) / 2)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of the words, if there are any, and of what the pictures' tokens show, if there are any."""
        batch = {name: tensor.to(self.policy.device, non_blocking=True) for name, tensor in batch.items()}
        shown = features = torch.zeros((), device=self.policy.device)
        if "images" in batch:
            sizes = layout(self.visual, *batch["images"].shape[:3], self.policy.device)
            with self.equal_pictures.installed(), half_on_cpu():
                features = self.visual(patches(batch["images"], self.mean, self.std), **sizes).pooler_output.float()
            shown = visual_loss(self.heads, features, token_labels(batch["ids"], batch["values"]))
        if "labels" not in batch:
            return torch.zeros_like(shown), shown
        return language_loss(self.policy, batch, features), shown

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


def language_loss(policy: Policy, batch: Batch, features: Tensor) -> Tensor:
    """Mean cross-entropy of the answers' tokens. Prompt positions carry no loss, and the output matrix skips them."""
    model = policy.model
    embeddings = model.get_input_embeddings()(batch["input_ids"])
    if features.ndim:
        embeddings = embeddings.masked_scatter((batch["input_ids"] == policy.image_id)[..., None], features)
    hidden = model.model.language_model(
        inputs_embeds=embeddings,
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        use_cache=False,
    ).last_hidden_state
    said = batch["said"]
    targets = batch["labels"][:, 1:].flatten()[said]
    return nn.functional.cross_entropy(model.lm_head(hidden[:, :-1].flatten(0, 1)[said]).float(), targets)


def train(policy: Policy, world: World, options: dict[str, Any], runs: Path, pool: Pool) -> None:
    """Both phases; resumable."""
    training = Training(policy, world, options, runs)
    material = Material(policy, world, pool, options)
    batches = [Ahead(make, end) for make, end in zip((material.views, material.batch), training.ends)]
    policy.model.train()
    first, started = training.step, time.time()
    sums = torch.zeros(2, device=policy.device)
    while training.step < training.ends[-1]:
        words, shown = training.loss(batches[training.phase(training.step)](training.step))
        training.advance(words, shown)
        sums += torch.stack([words.detach(), shown.detach()]) / options["log_every"]
        if training.step % options["log_every"] == 0:
            pace = (time.time() - started) / (training.step - first)
            said, seen = sums.tolist()
            print(f"step {training.step} loss {said:.4f} visual {seen:.4f} {pace:.3f} s/step", flush=True)
            sums.zero_()
        if training.step % options["checkpoint_every"] == 0 or training.step == training.ends[-1]:
            training.save()
            if training.phase(training.step - 1):
                print(json.dumps(evaluate(policy, world, 100, options["seed"] + 2)), flush=True)
                policy.model.train()


def export(policy: Policy, folder: Path) -> None:
    """Write the ordinary Hugging Face folder, weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    policy.model.eval().to(torch.float16).save_pretrained(folder)
    policy.processor.save_pretrained(folder)


def main() -> None:
    """Build, train, export and measure."""
    options = yaml.safe_load(Path("pretrain/params.yaml").read_text())["policy"]
    torch.set_num_threads(options["threads"])
    torch.set_float32_matmul_precision("high")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # batches are made in forks
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    runs = Path("runs/pretrain-policy")
    world = World(Cutouts.load(fetch()))
    policy = build(world, options["seed"], options["vocabulary"], runs)
    policy = Policy(policy.model, policy.processor, device)
    print(f"{sum(p.numel() for p in policy.model.parameters()):,} parameters on {device}", flush=True)
    train(policy, world, options, runs, Pool(recipe=asked()))
    export(policy, Path("embedded/models/policy"))
    shipped = Policy.load("embedded/models/policy", device=device)
    scores = evaluate(shipped, world, 500, options["seed"] + 3)
    Path("pretrain/policy.json").write_text(json.dumps(scores, indent=1) + "\n")
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
