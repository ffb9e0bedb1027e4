"""The memory of one device, part by part: what stays, and what comes and goes.

Weights and moments are counted; graphs, caches and passing tensors are bounded by the longest prompt and the longest
answer, padding included. All sizes are bytes; GB are 1e9 of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from saliency_r1.params import Params
from saliency_r1.plan.prompts import longest_prompt
from saliency_r1.plan.shapes import PolicyShape, SegmenterShape

FLOAT32 = 4
# Float32 copies of a step's logits, from forward to gradient: benchmarks/step_memory.py measured 2.1 and, of bfloat16
# ones, 1.3.
LOGIT_COPIES = {"float32": 2.1, "bfloat16": 1.3}
# Copies of the next token's logits while sampling: the scores, and those that suppression, temperature and noise make.
SCORE_COPIES = 6
# Float32 copies in an attention of the segmenter with relative positions: the products and their softmax.
ATTENTION_COPIES = 2


@dataclass(frozen=True)
class Part:
    """One thing in memory and what makes it smaller."""

    name: str
    size: float
    smaller: str


@dataclass(frozen=True)
class Memory:
    """What stays on a device, and phases that follow each other, of which the largest counts."""

    stays: list[Part]
    passes: list[Part]

    @property
    def peak(self) -> float:
        """Bytes at the worst moment."""
        return sum(part.size for part in self.stays) + max(part.size for part in self.passes)


def memory(
    params: Params, policy: PolicyShape, segmenter: SegmenterShape, gpus: int = 1, split: bool = False
) -> Memory:
    """The memory of each of `gpus` devices in CGPO, the stage that holds most; `split`: weights and moments by FSDP."""
    wide = FLOAT32 if params.runtime.dtype == "float32" else 2
    share = gpus if split else 1
    stays = [
        Part("policy, weights", policy.parameters * wide / share, "FSDP on more devices"),
        *(
            Part(name, copies * policy.trained * FLOAT32 / share, smaller)
            for name, copies, smaller in trained_copies(params, policy.shared)
            if copies
        ),
        Part("segmenter, weights", segmenter.resident, "runtime.dtype: bfloat16"),
    ]
    whole = policy.parameters * wide if split and gpus > 1 else 0
    return Memory(stays, [
        Part("sampling", whole + sampling(params, policy, wide), "policy.batch_size, policy.max_pixels"),
        Part("segmenting", segmenting(params, segmenter), "segmenter.batch_images, segmenter.batch_phrases"),
        Part(
            "a step's graph",
            whole / max(1, policy.text.num_hidden_layers) + step(params, policy, wide, gpus),
            "cgpo.micro_batch, sft.micro_batch, policy.gradient_checkpointing, policy.max_pixels",
        ),
    ])  # fmt: skip


def trained_copies(params: Params, shared: bool) -> list[tuple[str, int, str]]:
    """How often the trained parameters stand in memory, in float32, and as what."""
    looks_back = bool(params.cgpo.drift_every or params.cgpo.kl)
    own = params.cgpo.isr.moments == "own"
    return [
        ("trained, weights", 0 if shared else 1, "sft.lora.r"),
        ("trained, gradients", 1, "sft.lora.r"),
        ("trained, gradient of ISR kept", 1 if params.cgpo.isr.every else 0, "cgpo.isr.every: 0"),
        ("trained, moments", 4 if own else 2, "sft.lora.r, cgpo.isr.moments: shared"),
        ("trained, copy to look back at", 1 if looks_back else 0, "cgpo.drift_every: 0 and cgpo.kl: 0"),
        ("trained, running average", 1 if params.cgpo.average or params.sft.average else 0, "cgpo.average: 0"),
    ]


def sampling(params: Params, policy: PolicyShape, wide: int) -> float:
    """Keys and values, the next token's scores, and one layer's tensors while prompts are read."""
    rows, prompt = params.policy.batch_size, longest_prompt(params, policy.unit)
    cache = cache_per_token(policy, wide) * rows * (prompt.tokens + params.policy.max_new_tokens)
    scores = SCORE_COPIES * FLOAT32 * rows * policy.vocabulary
    return cache + scores + reading(policy, rows * prompt.tokens, rows * prompt.images_tokens, wide)


def cache_per_token(policy: PolicyShape, wide: int) -> int:
    """Bytes of keys and values of a token, all layers."""
    text = policy.text
    head = text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * head * wide


def reading(policy: PolicyShape, tokens: int, images_tokens: int, wide: int) -> float:
    """What one layer needs for a moment without a graph: of the vision tower, or later of the language model."""
    patches = images_tokens * policy.vision.spatial_merge_size**2
    pixels = (
        FLOAT32 * patches * policy.vision.in_channels * policy.vision.temporal_patch_size * policy.vision.patch_size**2
    )
    vision = wide * patches * (2 * policy.vision.hidden_size + 3 * policy.vision.intermediate_size)
    text = wide * tokens * (2 * policy.text.hidden_size + 3 * policy.text.intermediate_size)
    return pixels + max(vision, text)


def step(params: Params, policy: PolicyShape, wide: int, gpus: int) -> float:
    """The graph of a micro-batch, its logits included, and reading its images."""
    rows = max(
        min(params.cgpo.micro_batch, -(-params.cgpo.batch_size // gpus)),
        min(params.sft.micro_batch, -(-params.sft.batch_size // gpus)),
    )
    prompt = longest_prompt(params, policy.unit)
    answers = rows * params.policy.max_new_tokens
    tokens = rows * prompt.tokens + answers
    copies = LOGIT_COPIES["bfloat16" if params.policy.autocast else params.runtime.dtype]
    logits = copies * FLOAT32 * answers * policy.vocabulary
    layers = policy.text.num_hidden_layers
    layer = tokens * layer_per_token(params, policy, wide)
    kept = (
        layer + tokens * policy.text.hidden_size * wide * layers
        if params.policy.gradient_checkpointing
        else layer * layers
    )
    return kept + logits + reading(policy, 0, rows * prompt.images_tokens, wide)


def layer_per_token(params: Params, policy: PolicyShape, wide: int) -> float:
    """Bytes that a decoder layer with an adapter keeps of a token for the backward pass.

    The layer itself keeps two norms with their float32 inputs, queries, keys and values before and after their
    rotation, the attention's result, and four tensors of the width of the MLP. The adapter keeps the input of every
    projection in float32, twice where there is dropout.
    """
    text = policy.text
    hidden, inner = text.hidden_size, text.intermediate_size
    narrow = text.num_key_value_heads * (hidden // text.num_attention_heads)
    own = wide * (3 * hidden + 2 * (hidden + 2 * narrow) + 4 * inner) + FLOAT32 * 2 * hidden
    if params.sft.lora is None:
        return own
    # Where the base is float32 the adapter reads what is kept already, unless dropout makes a tensor of its own.
    inputs = 6 * hidden + inner
    dropout = inputs * (FLOAT32 + 1) if params.sft.lora.dropout else 0
    return own + (inputs * FLOAT32 if wide != FLOAT32 else 0) + dropout


def segmenting(params: Params, segmenter: SegmenterShape) -> float:
    """The largest attention of the image encoder, or what decoding all expressions of a batch takes."""
    vision = segmenter.config.sam_image_encoder
    side = vision.img_size // vision.patch_size
    attention = ATTENTION_COPIES * FLOAT32 * vision.num_heads * side**4
    mlp = FLOAT32 * side**2 * vision.embed_dim * (2 + vision.mlp_ratio)
    # The decoder's masks have four times the features' side, in two layers of channels, before they become logits.
    phrase = FLOAT32 * (4 * side) ** 2 * (vision.out_chans // 4 + vision.out_chans // 8 + 4)
    features = FLOAT32 * 3 * vision.out_chans * side**2
    return max(params.segmenter.batch_images * (attention + mlp), params.segmenter.batch_phrases * (phrase + features))
