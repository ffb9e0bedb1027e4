"""Stand-ins with the published widths and few layers: a policy that was taught the form of answers, a segmenter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from saliency_r1 import cot, tasks
from saliency_r1.params import Lora
from saliency_r1.plan.shapes import read_config
from saliency_r1.policy import Policy
from saliency_r1.policy.network import freeze_vision
from saliency_r1.segmenter.beit3 import Beit3Config
from saliency_r1.segmenter.evf_sam import EvfSam, EvfSamConfig, ImageEncoderConfig
from saliency_r1.segmenter.loading import save_folder
from saliency_r1.training.optimiser import wrap

GROUP = 5  # images of every group: the answer to a group has as many expressions, and cannot be learnt from its images
# What the published template makes of one turn with images, and the system's turn that it puts before it.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NOUNS = ("bird", "cat", "boat", "person", "sofa", "flower", "dog", "motorbike")
LORA = Lora(r=64, alpha=128, dropout=0.0, targets=r".*\.(q|k|v|o|gate|up|down)_proj", modules_to_save=())


def shape(layers: int) -> dict[str, Any]:
    """Qwen2.5-VL-3B's published configuration, with so many layers of text and of vision."""
    config = read_config("Qwen/Qwen2.5-VL-3B-Instruct", [])
    text = config["text_config"] | {"num_hidden_layers": layers, "layer_types": ["full_attention"] * layers}
    vision = config["vision_config"] | {"depth": layers, "fullatt_block_indexes": [layers - 1]}
    return {**config, "text_config": text, "vision_config": vision}


def untaught(tokenizer: Qwen2Tokenizer, config: Mapping[str, Any], seed: int, dtype: torch.dtype) -> Policy:
    """A policy of random weights with the published image settings."""
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    vision: dict[str, Any] = {
        "patch_size": config["vision_config"]["patch_size"], "temporal_patch_size": 2, "merge_size": 2, "size": size,
    }  # fmt: skip
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**vision),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**vision),
        chat_template=TEMPLATE,
    )
    ids = tokenizer.get_vocab()
    special = {"bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    torch.manual_seed(seed)
    made = Qwen2_5_VLConfig(
        text_config={**config["text_config"], **special},
        vision_config=dict(config["vision_config"]),
        tie_word_embeddings=config["tie_word_embeddings"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.set_default_dtype(dtype)
    try:
        model = Qwen2_5_VLForConditionalGeneration(made)
    finally:
        torch.set_default_dtype(torch.float32)
    freeze_vision(model)
    return Policy(model.eval(), processor)


def answer(task: str, rng: np.random.Generator) -> str:
    """An answer in the form, about nothing in particular."""
    noun = str(rng.choice(NOUNS))
    kind = tasks.get(task).kind
    if task == "sis":
        texts = [f"the {noun} on the {side}" for side in ("left", "right")]
    elif task == "cosod":
        texts = [f"the {noun} in image {number}" for number in range(1, GROUP + 1)]
    else:
        texts = [f"the {noun}"]
    expressions = [cot.Expression(kind, place, text) for place, text in enumerate(texts)]
    return cot.render(f"The {noun} stands out.", expressions)


def lesson(
    policy: Policy, pictures: Sequence[Path], size: int, rng: np.random.Generator, large: float
) -> dict[str, torch.Tensor]:
    """A batch of prompts of one task with answers to them: `size` of small pictures, for speed.

    With the probability `large` it is of fewer prompts, with pictures as large as photographs are: who has learnt the
    form behind sixty tokens of a picture has not learnt it behind six hundred.
    """
    task = str(rng.choice(("sod", "sis", "cosod")))
    count = GROUP if task == "cosod" else 1
    whole = rng.random() < large
    prompts, answers = [], []
    for _ in range((1 if count > 1 else 2) if whole else size):
        side = int(rng.choice((56, 84, 112) if count > 1 else (56, 112, 224)))
        share = rng.uniform(0.5, 1)
        sides = (int(640 * share), int(426 * share)) if whole else (side, side)
        chosen = rng.choice(len(pictures), count, replace=False)
        images = [Image.open(pictures[place]).convert("RGB").resize(sides) for place in chosen]
        prompts.append(policy.prompt(images, tasks.get(task).instruction))
        answers.append(policy.response_ids(answer(task, rng)))
    return policy.collate(prompts, answers)


def teach(
    policy: Policy, pictures: Sequence[Path], steps: int, size: int, lr: float, seed: int
) -> Iterator[tuple[int, float]]:
    """Teach a policy the form; yields each step and its loss. At the end what was learnt is part of the weights.

    The last quarter of the steps has large pictures as well.
    """
    learner = wrap(policy, LORA, seed)
    own = [parameter for parameter in learner.model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(own, lr=lr, weight_decay=0.0)
    learner.model.train()
    rng, late = np.random.default_rng(seed), steps - steps // 4
    for step in range(steps):
        batch = lesson(learner, pictures, size, rng, 2 / 3 if step >= late else 0.0)
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 20) * (1 - 0.9 * step / steps)
        logprobs, mask = learner.logprobs(batch)
        loss = -logprobs.sum() / mask.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        yield step + 1, loss.item()
    policy.model = learner.model.merge_and_unload().eval()


def save(policy: Policy, folder: Path) -> None:
    """As a folder of the hub has it, in bfloat16."""
    policy.model.to(torch.bfloat16).save_pretrained(folder)
    policy.processor.save_pretrained(folder)


def segmenter(layers: int, pieces: Path, folder: Path, seed: int) -> int:
    """An EVF-SAM of the official shapes with so many layers and random weights; returns how many numbers it has.

    `pieces` is a sentencepiece model in the place of BEiT-3's own, which has to be obtained with the weights.
    """
    config = EvfSamConfig(
        beit3=replace(Beit3Config(), num_layers=layers),
        sam_image_encoder=replace(ImageEncoderConfig(), depth=layers, global_attn_indexes=(layers - 1,)),
    )
    torch.manual_seed(seed)
    model = EvfSam(config)
    with torch.no_grad():  # some start at zero, which a trained one does not
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    save_folder(model, pieces, folder)
    return sum(parameter.numel() for parameter in model.parameters())
