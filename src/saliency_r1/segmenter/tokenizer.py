"""BEiT-3's text tokens: a raw sentencepiece model and the id rule of XLM-RoBERTa's vocabulary layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor

BEGIN, PAD, END, UNKNOWN = 0, 1, 2, 3
SEMANTIC = "[semantic]"


class Tokenizer:
    """Words to ids: 0, every sentencepiece id + 1 (unknown: 3), 2. Padding is 1.

    Args:
        model: the file ``sentencepiece.bpe.model``.
        max_tokens: longest sequence, begin and end included; longer text is cut at its end.
        semantic: id of the token ``[semantic]``, where the checkpoint has one (the multitask weights).
    """

    def __init__(self, model: Path, max_tokens: int, semantic: int | None = None) -> None:
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
        self.max_tokens = max_tokens
        self.semantic = semantic

    def encode(self, text: str) -> list[int]:
        """Ids of one expression, begin and end included.

        An empty text gives begin and end alone. A leading ``[semantic]`` asks for all instances of a class.

        Raises:
            ValueError: ``[semantic]`` with weights that do not know the token.
        """
        head = [BEGIN]
        if text.lstrip().startswith(SEMANTIC):
            if self.semantic is None:
                raise ValueError(f"{SEMANTIC} is known to the multitask weights only; these have no such token")
            head.append(self.semantic)
            text = text.lstrip()[len(SEMANTIC) :]
        unknown = self.pieces.unk_id()
        ids = [UNKNOWN if piece == unknown else piece + 1 for piece in self.pieces.encode(text.strip())]
        return [*[*head, *ids][: self.max_tokens - 1], END]


def pad(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids N x L (int64) filled up on the right, and the padding N x L (bool, True where filled)."""
    length = max(len(ids) for ids in sequences)
    rows = torch.tensor([[*ids, *[PAD] * (length - len(ids))] for ids in sequences])
    lengths = torch.tensor([len(ids) for ids in sequences])
    return rows, torch.arange(length)[None] >= lengths[:, None]
