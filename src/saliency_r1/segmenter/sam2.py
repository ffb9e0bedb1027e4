"""EVF-SAM2: the same prompt in front of SAM 2.0 (Hiera-L), whose parts come from transformers' ``Sam2Model``.

Here are its shapes and its data flow; the released file stores SAM 2 under the names of the original repository, and no
map from those to transformers' names is given, so that its weights are not loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Sam2Config, Sam2Model

from saliency_r1.segmenter.beit3 import Beit3Config
from saliency_r1.segmenter.evf_sam import MultimodalExtractor
from saliency_r1.segmenter.preprocess import SAM_MEAN, SAM_STD, pixels, sam_view

HIERA_LARGE = {
    "backbone_config": {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 144,
        "num_attention_heads": 2,
        "blocks_per_stage": [2, 6, 36, 4],
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "window_size_per_stage": [8, 4, 16, 8],
        "global_attention_blocks": [23, 33, 43],
        "window_positional_embedding_background_size": [7, 7],
    },
    "backbone_channel_list": [1152, 576, 288, 144],
}


def hiera_large() -> Sam2Config:
    """SAM 2.0 with the large Hiera encoder."""
    return Sam2Config(vision_config={"model_type": "sam2_vision_model", **HIERA_LARGE})


@dataclass(frozen=True)
class EvfSam2Config:
    """The released EVF-SAM2.

    ``evf-sam2-multitask`` decodes three masks and takes the best by predicted IoU, on pixels stretched before they are
    normalised. ``evf-sam2`` is from before that change: one mask, and a picture fitted and normalised, then stretched.
    """

    beit3: Beit3Config = field(default_factory=Beit3Config)
    sam2: Sam2Config = field(default_factory=hiera_large)
    projector_hidden: int = 1024
    multimask: bool = True
    stretch_pixels: bool = True


class EvfSam2(nn.Module):
    """BEiT-3, projector and SAM 2: views and token ids in, low-resolution logits and predicted IoU out."""

    def __init__(self, config: EvfSam2Config) -> None:
        super().__init__()
        self.config = config
        self.visual_model = Sam2Model(config.sam2)
        self.mm_extractor = MultimodalExtractor(config.beit3)
        width, hidden = config.beit3.embed_dim, config.projector_hidden
        prompt: int = config.sam2.mask_decoder_config.hidden_size  # type: ignore[union-attr]
        self.text_hidden_fcs = nn.ModuleList(
            [nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, prompt))]
        )

    def embed_images(self, views: Tensor) -> list[Tensor]:
        """N x 3 x S x S views to three feature maps, N x 32 x S/4, N x 64 x S/8 and N x 256 x S/16 (both sides)."""
        return self.visual_model.get_image_embeddings(views)

    def embed_prompts(self, views: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        """One prompt per (picture, expression): N x 3 x B x B views, N x L ids and padding to N x C."""
        return self.text_hidden_fcs[0](self.mm_extractor.beit3(views, ids, padding))

    def decode(self, features: list[Tensor], prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of single-token prompts: row i of ``prompts`` N x C in row i of the features.

        Returns:
            Logits N x S/4 x S/4 and predicted IoU N, of the best of three masks or of the single one.
        """
        sam = self.visual_model
        *fine, coarse = features
        dense = sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand_as(coarse)
        masks, scores, _, _ = sam.mask_decoder(
            image_embeddings=coarse,
            image_positional_embeddings=sam.get_image_wide_positional_embeddings().expand_as(coarse),
            sparse_prompt_embeddings=prompts[:, None, None],
            dense_prompt_embeddings=dense,
            multimask_output=self.config.multimask,
            high_resolution_features=fine,
        )
        best = scores[:, 0].argmax(dim=1)
        rows = torch.arange(len(prompts), device=prompts.device)
        return masks[rows, 0, best], scores[rows, 0, best]


def sam2_view(image: Image.Image, side: int, stretch_pixels: bool) -> Tensor:
    """SAM 2's input, 3 x side x side, aspect ratio not kept, from an 8-bit RGB picture; see :class:`EvfSam2Config`."""
    if stretch_pixels:
        raw = F.interpolate(pixels(image)[None], (side, side), mode="bilinear", align_corners=False)[0]
        return (raw - torch.tensor(SAM_MEAN).view(3, 1, 1)) / torch.tensor(SAM_STD).view(3, 1, 1)
    view, (height, width) = sam_view(image, side)
    return F.interpolate(view[None, :, :height, :width], (side, side), mode="bilinear", align_corners=False)[0]


def full_size(low: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits N x h x w stretched to the picture's own (height, width): no crop, since nothing was padded."""
    return F.interpolate(low.float()[:, None], size, mode="bilinear", align_corners=False)[:, 0]
