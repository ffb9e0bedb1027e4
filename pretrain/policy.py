"""Pretrain the tiny base policy: a real Qwen2.5-VL of about 1.6 M parameters that describes rendered scenes.

    python pretrain/policy.py            # reads the section `policy` of pretrain/params.yaml

Next-token loss on answers, plus an auxiliary loss that teaches the vision tower: a linear head, thrown away
afterwards, names colour, shape, size and tone of what each merged image token shows. Without it shapes are learned
only after thousands of steps, because few words of a description depend on them. Resumes from runs/pretrain-policy/.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import language
import numpy as np
import render as scenes
import torch
import yaml
from torch import Tensor, nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from saliency_r1.policy import Policy, Prompt

TOKEN = 16  # pixels on the side of a merged image token: patch size 8, 2 x 2 merged
ATTRIBUTES = (tuple(scenes.COLOURS), scenes.SHAPES, scenes.SIZES, scenes.TONES)


def build(seed: int, vocabulary: int, runs: Path) -> Policy:
    """The untrained policy with its tokenizer and processor.

    The tokenizer is kept in `runs`: its training breaks ties differently from process to process, and a resumed run
    needs the one it began with.
    """
    if not (runs / "tokenizer").is_dir():
        language.build_tokenizer(seed, vocabulary).save_pretrained(runs / "tokenizer")
    tokenizer = Qwen2Tokenizer.from_pretrained(runs / "tokenizer")
    size = {"shortest_edge": 32 * 32, "longest_edge": 160 * 160}
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
            "hidden_size": 96,
            "intermediate_size": 256,
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


def token_labels(scene: scenes.Scene, columns: int, rows: int) -> Tensor:
    """For each merged token the attribute indices of the object it shows, (rows * columns, 4), -100 on background."""
    width, height = scene.image.size
    labels = np.full((rows * columns, len(ATTRIBUTES)), -100)
    best = np.full(rows * columns, 0.12)
    for item in scene.objects:
        blocks = scene.masks[item.id][: height // rows * rows, : width // columns * columns]
        share = blocks.reshape(rows, height // rows, columns, width // columns).mean((1, 3)).ravel()
        values = (item.colour, item.shape, item.size, item.tone)
        labels[share > best] = [names.index(value) for names, value in zip(ATTRIBUTES, values)]
        best = np.maximum(best, share)
    return torch.from_numpy(labels)


class Material:
    """An endless stream of pretraining examples over a fixed pool of rendered scenes."""

    def __init__(self, policy: Policy, pool: int, seed: int, shares: dict[str, float]) -> None:
        rng = np.random.default_rng(seed)
        makers = (scenes.any_scene, scenes.any_scene, scenes.sod_scene, scenes.sis_scene)
        self.scenes = [makers[i % 4](rng) for i in range(pool)]
        self.scenes += [scene for _ in range(pool // 12) for scene in scenes.cosod_group(rng, 3)]
        self.policy, self.shares = policy, shares
        self.pixels = [policy.processor.image_processor([s.image], return_tensors="pt") for s in self.scenes]

    def example(self, rng: np.random.Generator, style: str) -> tuple[Prompt, list[int], Tensor]:
        """Prompt, response ids and token labels of one random example: of `one` image, of `many`, or `repeat`."""
        count = {"one": 1, "many": int(rng.integers(2, 4)), "repeat": 0}[style]
        chosen = rng.integers(len(self.scenes), size=count)
        if style == "repeat":
            question, answer = language.repetition(rng)
        else:
            question, answer = language.description([list(self.scenes[i].objects) for i in chosen], rng)
        pixels, grids, labels, pads = [], [], [torch.zeros(0, 4, dtype=torch.long)], []
        for i in chosen:
            grid = self.pixels[i]["image_grid_thw"]
            rows, columns = (grid[0, 1:] // 2).tolist()
            pixels.append(self.pixels[i]["pixel_values"])
            grids.append(grid)
            labels.append(token_labels(self.scenes[i], columns, rows))
            pads.append("<|vision_start|>" + "<|image_pad|>" * (rows * columns) + "<|vision_end|>")
        text = f"<|im_start|>user\n{''.join(pads)}{question}<|im_end|>\n<|im_start|>assistant\n"
        shown = {"pixel_values": torch.cat(pixels), "image_grid_thw": torch.cat(grids)} if pixels else {}
        prompt = Prompt(torch.tensor(self.policy.tokenizer(text).input_ids), shown)
        return prompt, self.policy.response_ids(answer), torch.cat(labels)

    def batches(self, size: int, seed: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Batches of one style each, for ever; batch k depends on (seed, k) alone, so that a run can be resumed."""
        step = 0
        while True:
            rng = np.random.default_rng((seed, step))
            style = str(rng.choice(list(self.shares), p=list(self.shares.values())))
            rows = size // 2 if style == "many" else size
            prompts, answers, labels = zip(*(self.example(rng, style) for _ in range(rows)))
            yield self.policy.collate(prompts, answers), torch.cat(labels)
            step += 1


@torch.no_grad()
def evaluate(policy: Policy, count: int, seed: int) -> dict[str, float]:
    """Share of held-out scenes whose greedy description names each attribute of every object rightly."""
    rng = np.random.default_rng(seed)
    held_out = [scenes.any_scene(rng) for _ in range(count)]
    prompts = [policy.prompt([scene.image], language.DESCRIBE_ONE[0]) for scene in held_out]
    answers = [
        response.text for start in range(0, count, 50) for response in policy.generate(prompts[start : start + 50], 90)
    ]
    return score_descriptions(answers, held_out)


def score_descriptions(answers: list[str], held_out: list[scenes.Scene]) -> dict[str, float]:
    """Per attribute, the share of scenes in which the words read in order equal the truth; `all` = all of them."""
    from saliency_r1.annotation.wording import SYNONYMS

    canonical = {s: word for word, options in SYNONYMS.items() for s in options}
    hits = dict.fromkeys(("count", "colour", "shape", "size", "tone", "place", "all"), 0)
    for answer, scene in zip(answers, held_out):
        parts = answer.removeprefix("There is ").removesuffix(".").replace(" and ", ", ").split(", ")
        said: dict[str, list[str]] = {key: [] for key in ("colour", "shape", "size", "tone", "place")}
        for part in parts:
            looks, _, place = part.partition(" at the ")
            words = [canonical.get(word, word) for word in looks.split()]
            for key, names in zip(("colour", "shape", "size"), ATTRIBUTES):
                said[key].append(next((word for word in words if word in names), ""))
            said["tone"].append("faint" if "faint" in words else "vivid")
            said["place"].append(canonical.get(place, place))
        right = {key: values == [getattr(item, key) for item in scene.objects] for key, values in said.items()}
        right["count"] = len(parts) == len(scene.objects)
        for key, value in right.items():
            hits[key] += value
        hits["all"] += all(right.values())
    return {key: value / len(held_out) for key, value in hits.items()}


def train(policy: Policy, options: dict[str, Any], runs: Path) -> None:
    """The training loop, resumable from `runs`."""
    torch.set_num_threads(options["threads"])
    material = Material(policy, options["pool"], options["seed"] + 1, options["shares"])
    model = policy.model
    heads = nn.ModuleList(nn.Linear(128, len(names)) for names in ATTRIBUTES)
    seen: list[Tensor] = []
    model.model.visual.merger.register_forward_hook(lambda module, inputs, output: seen.append(output))
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=options["lr"], weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options["lr"], total_steps=options["steps"], pct_start=0.1, cycle_momentum=False
    )
    checkpoint, first = runs / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
    model.train()
    started = time.time()
    stream = material.batches(options["batch_size"], options["seed"])
    for step, (batch, labels) in enumerate(stream, start=1):
        if step <= first:
            continue
        seen.clear()
        # The head alone is evaluated on the answers' positions: prompt positions carry no loss.
        hidden = model.model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False).last_hidden_state
        targets = batch["labels"][:, 1:]
        mask = targets != -100
        language_loss = nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][mask]), targets[mask])
        visual_loss = torch.zeros(())
        if labels.numel():
            for head, column in zip(heads, labels.T):
                visual_loss = visual_loss + nn.functional.cross_entropy(head(seen[0]), column)
        loss = language_loss + options["visual_weight"] * visual_loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            pace = (time.time() - started) / (step - first)
            print(f"step {step} loss {language_loss:.4f} visual {visual_loss:.4f} {pace:.2f} s/step", flush=True)
        if step % options["checkpoint_every"] == 0 or step == options["steps"]:
            runs.mkdir(parents=True, exist_ok=True)
            state = {"model": model.state_dict(), "heads": heads.state_dict(), "optimiser": optimiser.state_dict(),
                     "schedule": schedule.state_dict(), "step": step}  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
            print(json.dumps(evaluate(policy, 100, options["seed"] + 2)), flush=True)
        if step >= options["steps"]:
            break


def export(policy: Policy, folder: Path) -> None:
    """Write the ordinary Hugging Face folder, weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    policy.model.eval().to(torch.float16).save_pretrained(folder)
    policy.processor.save_pretrained(folder)


def main() -> None:
    """Build, train, export and measure."""
    options = yaml.safe_load(Path("pretrain/params.yaml").read_text())["policy"]
    runs = Path("runs/pretrain-policy")
    policy = build(options["seed"], options["vocabulary"], runs)
    print(f"{sum(p.numel() for p in policy.model.parameters()):,} parameters", flush=True)
    train(policy, options, runs)
    export(policy, Path("embedded/models/policy"))
    shipped = Policy.load("embedded/models/policy")
    scores = evaluate(shipped, 500, options["seed"] + 3)
    Path("pretrain/policy.json").write_text(json.dumps(scores, indent=1) + "\n")
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
