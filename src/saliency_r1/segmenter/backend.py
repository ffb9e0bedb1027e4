"""EVF-SAM behind the interface: pictures and expressions in batches, masks at the pictures' own size out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from saliency_r1.inputs.pictures import to_rgb
from saliency_r1.segmenter.evf_sam import EvfSam
from saliency_r1.segmenter.interface import Segment, check_pairs
from saliency_r1.segmenter.preprocess import beit_view, full_size, sam_view
from saliency_r1.segmenter.tokenizer import Tokenizer, pad


@dataclass(frozen=True)
class EncodedImage:
    """One picture: SAM's features C x h x w, BEiT-3's view 3 x S x S, and the two sizes that lead back."""

    features: Tensor
    view: Tensor
    inner: tuple[int, int]
    size: tuple[int, int]


class EvfSamSegmenter:
    """The segmenter of this project.

    Args:
        model: the network, on its device.
        tokenizer: the one that belongs to its weights.
        dtype: arithmetic of the two encoders: float32, bfloat16 or float16. SAM's neck, prompt encoder and mask decoder
            and the logits are float32 in any case.
        batch_images: pictures through SAM's image encoder at once.
        batch_phrases: (picture, expression) pairs through BEiT-3 and the decoder at once.
    """

    def __init__(
        self,
        model: EvfSam,
        tokenizer: Tokenizer,
        dtype: torch.dtype = torch.float32,
        batch_images: int = 16,
        batch_phrases: int = 64,
    ) -> None:
        self.model = lower_precision(model.eval().requires_grad_(False), dtype)
        self.tokenizer = tokenizer
        self.dtype = dtype
        self.batch_images = batch_images
        self.batch_phrases = batch_phrases

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    @property
    def presence_threshold(self) -> float:
        """The score below which these weights mean "not there"; 0 where they were never taught to."""
        return self.model.config.presence_threshold

    def _arithmetic(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> list[EncodedImage]:
        """Run SAM's image encoder once a picture; pictures of any mode and size (see ``inputs.pictures.to_rgb``)."""
        config = self.model.config
        encoded = []
        for chunk in _chunks(images, self.batch_images):
            pictures = [to_rgb(image) for image in chunk]
            views, inner = zip(*(sam_view(picture, config.sam_image_encoder.img_size) for picture in pictures))
            with self._arithmetic():
                features = self.model.embed_images(torch.stack(views).to(self.device))
            for index, picture in enumerate(pictures):
                view = beit_view(picture, config.beit3.img_size).to(self.device)
                encoded.append(EncodedImage(features[index], view, inner[index], (picture.height, picture.width)))
        return encoded

    @torch.inference_mode()
    def segment(self, encoded: Sequence[EncodedImage], phrases: Sequence[Sequence[str]]) -> list[list[Segment]]:
        """Segment ``phrases[i]`` in ``encoded[i]``.

        Batches mix pictures and expressions; padded text is masked, so the answer is that of one expression at a time.
        An empty expression is a prompt without words; one that is too long is cut at the tokenizer's ``max_tokens``.

        Returns:
            One list a picture with one :class:`Segment` an expression, score = SAM's predicted IoU clipped to [0, 1].

        Raises:
            ValueError: lists of different lengths, or ``[semantic]`` with weights that do not know it.
        """
        check_pairs(encoded, phrases)
        pairs = [(image, self.tokenizer.encode(text)) for image, row in zip(encoded, phrases) for text in row]
        answers: list[Segment | None] = [None] * len(pairs)
        # Neighbours in length share a batch, so that little of it is padding.
        by_length = sorted(range(len(pairs)), key=lambda index: len(pairs[index][1]))
        for chunk in _chunks(by_length, self.batch_phrases):
            for index, segment in zip(chunk, self._segment_batch([pairs[index] for index in chunk])):
                answers[index] = segment
        rest = iter(answers)
        return [[next(rest) for _ in row] for row in phrases]  # type: ignore[misc]

    def _segment_batch(self, pairs: Sequence[tuple[EncodedImage, list[int]]]) -> Iterator[Segment]:
        ids, padding = (tensor.to(self.device) for tensor in pad([ids for _, ids in pairs]))
        with self._arithmetic():
            prompts = self.model.embed_prompts(torch.stack([image.view for image, _ in pairs]), ids, padding)
        low, scores = self.model.decode(torch.stack([image.features for image, _ in pairs]), prompts)
        side = self.model.config.sam_image_encoder.img_size
        for (image, _), logits, score in zip(pairs, low, scores.clamp(0, 1).tolist()):
            yield Segment(full_size(logits[None], side, image.inner, image.size)[0].cpu().numpy(), score)


def lower_precision(model: EvfSam, dtype: torch.dtype) -> EvfSam:
    """Store the matrices of the two encoders in ``dtype``; norms, positions, SAM's neck and decoder keep float32."""
    image_encoder = model.visual_model.image_encoder
    for part in (image_encoder.patch_embed, image_encoder.blocks, model.mm_extractor, model.text_hidden_fcs):
        for module in part.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(dtype)
    return model


def _chunks(items: Sequence, size: int) -> Iterator[Sequence]:
    return (items[start : start + size] for start in range(0, len(items), size))
