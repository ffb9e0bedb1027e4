"""CLIPSeg (Lüddecke and Ecker, arXiv 2112.10003) behind the same interface, through transformers.

Coarse and cheap: one map of all that fits the expression, without instances and without a quality score of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

from saliency_r1.inputs.pictures import to_rgb
from saliency_r1.segmenter.interface import Segment, check_pairs


@dataclass(frozen=True)
class ClipSegImage:
    """One picture as CLIPSeg takes it, 3 x S x S, and its own (height, width)."""

    view: Tensor
    size: tuple[int, int]


class ClipSegSegmenter:
    """A CLIPSeg model and its processor.

    Args:
        model: on its device.
        processor: its tokenizer and image processor.
        batch_phrases: (picture, expression) pairs at once.
    """

    def __init__(
        self, model: CLIPSegForImageSegmentation, processor: CLIPSegProcessor, batch_phrases: int = 16
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.batch_phrases = batch_phrases

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu", revision: str = "main") -> ClipSegSegmenter:
        """From a folder or a name on the hub, for example ``CIDAS/clipseg-rd64-refined``."""
        model = CLIPSegForImageSegmentation.from_pretrained(str(folder), revision=revision)
        model.to(torch.device(device))  # type: ignore[arg-type]
        return cls(model, CLIPSegProcessor.from_pretrained(str(folder), revision=revision))

    def encode(self, images: Sequence[Image.Image]) -> list[ClipSegImage]:
        """Prepare pictures of any mode and size. CLIPSeg mixes words in early, so there is nothing more to do once."""
        pictures = [to_rgb(image) for image in images]
        if not pictures:
            return []
        views = self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"].to(self.model.device)
        return [ClipSegImage(view, (image.height, image.width)) for view, image in zip(views, pictures)]

    @torch.inference_mode()
    def segment(self, encoded: Sequence[ClipSegImage], phrases: Sequence[Sequence[str]]) -> list[list[Segment]]:
        """Segment ``phrases[i]`` in ``encoded[i]``; the score is the mean probability inside the mask, 0 if empty."""
        check_pairs(encoded, phrases)
        pairs = [(image, text) for image, row in zip(encoded, phrases) for text in row]
        found: list[Segment] = []
        for start in range(0, len(pairs), self.batch_phrases):
            found += self._segment_batch(pairs[start : start + self.batch_phrases])
        rest = iter(found)
        return [[next(rest) for _ in row] for row in phrases]

    def _segment_batch(self, pairs: Sequence[tuple[ClipSegImage, str]]) -> list[Segment]:
        tokens = self.processor.tokenizer(
            [text for _, text in pairs], padding=True, truncation=True, return_tensors="pt"
        ).to(self.model.device)
        low = self.model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=torch.stack([image.view for image, _ in pairs]),
        ).logits.float()
        low = low.view(len(pairs), 1, *low.shape[-2:])
        segments = []
        for (image, _), logits in zip(pairs, low):
            own = torch.nn.functional.interpolate(logits[None], image.size, mode="bilinear", align_corners=False)[0, 0]
            inside = own[own > 0].sigmoid()
            segments.append(Segment(own.cpu().numpy(), float(inside.mean()) if len(inside) else 0.0))
        return segments
