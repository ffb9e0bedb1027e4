"""Qwen's tokenizer from its ranks: one line a token, its bytes in base64 and its rank."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import Qwen2Tokenizer

# In the order of their ids, which follow those of the ranks.
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip


def read_ranks(path: Path) -> dict[bytes, int]:
    """The rank of every token."""
    lines = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def merges(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The two tokens that each token of more than a byte is put together from, by rank."""
    pairs = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _last_two(token, ranks, rank)
            pairs.append((left, right))
    return pairs


def _last_two(token: bytes, ranks: Mapping[bytes, int], rank: int) -> list[bytes]:
    """What is left of a token's bytes when all pairs of a rank below its own are merged, the lowest first."""
    parts = [bytes([value]) for value in token]
    while len(parts) > 2:
        found = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        lowest = min(found)
        if lowest >= rank:
            break
        place = found.index(lowest)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    if len(parts) != 2:
        raise ValueError(f"the ranks do not make {token!r} of two tokens, but of {parts}")
    return parts


def printable_bytes() -> dict[int, str]:
    """The character that stands for each byte in a byte-level vocabulary: itself, or one from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in plain]
    return {value: chr(value) for value in plain} | {value: chr(256 + place) for place, value in enumerate(others)}


def build(ranks: Mapping[bytes, int]) -> Qwen2Tokenizer:
    """The tokenizer with Qwen2.5-VL's special tokens."""
    letters = printable_bytes()

    def spelt(token: bytes) -> str:
        return "".join(letters[value] for value in token)

    vocabulary = {spelt(token): rank for token, rank in ranks.items()}
    vocabulary |= {token: len(ranks) + place for place, token in enumerate(SPECIAL)}
    pairs: Any = [(spelt(left), spelt(right)) for left, right in merges(ranks)]  # its annotation says strings
    return Qwen2Tokenizer(
        vocab=vocabulary,
        merges=pairs,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[token for token in SPECIAL if token not in ("<|im_end|>", "<|endoftext|>")],
    )
