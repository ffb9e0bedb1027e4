"""EVF-SAM: early vision-language fusion as a prompt of Segment Anything (Zhang et al., arXiv 2406.20076).

BEiT-3 reads the picture together with the expression; its class token, projected, is the single sparse prompt of SAM's
mask decoder. SAM's parts are those of the ``segment-anything`` package. Names of parameters are the official ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from saliency_r1.segmenter.beit3 import Beit3, Beit3Config


@dataclass(frozen=True)
class ImageEncoderConfig:
    """SAM's image encoder; the defaults are ViT-H. ``window_size`` 0 means global attention everywhere."""

    img_size: int = 1024
    patch_size: int = 16
    embed_dim: int = 1280
    depth: int = 32
    num_heads: int = 16
    mlp_ratio: float = 4.0
    window_size: int = 14
    global_attn_indexes: tuple[int, ...] = (7, 15, 23, 31)
    out_chans: int = 256
    use_rel_pos: bool = True
    layer_norm_eps: float = 1e-6


@dataclass(frozen=True)
class MaskDecoderConfig:
    """SAM's mask decoder; ``transformer_dim`` equals the image encoder's ``out_chans``."""

    transformer_dim: int = 256
    transformer_depth: int = 2
    transformer_num_heads: int = 8
    transformer_mlp_dim: int = 2048
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256


@dataclass(frozen=True)
class EvfSamConfig:
    """All sizes of an EVF-SAM; the defaults are the released ViT-H + BEiT-3-Large."""

    beit3: Beit3Config = field(default_factory=Beit3Config)
    sam_image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    sam_mask_decoder: MaskDecoderConfig = field(default_factory=MaskDecoderConfig)
    mask_in_chans: int = 16
    projector_hidden: int = 1024
    presence_threshold: float = 0.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvfSamConfig:
        """Read a ``config.json``: one with explicit sizes, or the official one that names scales.

        Raises:
            ValueError: a scale that EVF-SAM on SAM 1 was never built at.
        """
        if "beit3" not in values:
            return cls._official(values)
        decoder = values["sam_mask_decoder"]
        return cls(
            beit3=_pick(Beit3Config, values["beit3"]),
            sam_image_encoder=_pick(ImageEncoderConfig, values["sam_image_encoder"]),
            sam_mask_decoder=_pick(MaskDecoderConfig, decoder),
            mask_in_chans=values["sam_prompt_encoder"]["mask_in_chans"],
            projector_hidden=values["projector"]["hidden_dim"],
            presence_threshold=values.get("presence_threshold", 0.0),
        )

    @classmethod
    def _official(cls, values: Mapping[str, Any]) -> EvfSamConfig:
        scales = (values.get("sam_scale"), values.get("mm_extractor_scale"))
        if values.get("model_type", "evf") != "evf" or scales != ("huge", "large"):
            raise ValueError(f"SAM scale {scales[0]!r} with BEiT-3 scale {scales[1]!r}; known is 'huge' with 'large'")
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """The content of a ``config.json`` with explicit sizes, as :meth:`from_dict` reads it."""
        return {
            "beit3": asdict(self.beit3),
            "sam_image_encoder": asdict(self.sam_image_encoder),
            "sam_prompt_encoder": {"mask_in_chans": self.mask_in_chans},
            "sam_mask_decoder": asdict(self.sam_mask_decoder),
            "projector": {"hidden_dim": self.projector_hidden},
            "presence_threshold": self.presence_threshold,
        }


class VisualModel(nn.Module):
    """Segment Anything: the three parts of the ``segment-anything`` package under their official names."""

    def __init__(self, config: EvfSamConfig) -> None:
        super().__init__()
        vision, decoder = config.sam_image_encoder, config.sam_mask_decoder
        grid = vision.img_size // vision.patch_size
        self.image_encoder = ImageEncoderViT(
            img_size=vision.img_size,
            patch_size=vision.patch_size,
            embed_dim=vision.embed_dim,
            depth=vision.depth,
            num_heads=vision.num_heads,
            mlp_ratio=vision.mlp_ratio,
            out_chans=vision.out_chans,
            norm_layer=partial(nn.LayerNorm, eps=vision.layer_norm_eps),
            use_rel_pos=vision.use_rel_pos,
            window_size=vision.window_size,
            global_attn_indexes=vision.global_attn_indexes,
        )
        self.prompt_encoder = PromptEncoder(
            embed_dim=vision.out_chans,
            image_embedding_size=(grid, grid),
            input_image_size=(vision.img_size, vision.img_size),
            mask_in_chans=config.mask_in_chans,
        )
        self.mask_decoder = MaskDecoder(
            transformer_dim=decoder.transformer_dim,
            transformer=TwoWayTransformer(
                depth=decoder.transformer_depth,
                embedding_dim=decoder.transformer_dim,
                num_heads=decoder.transformer_num_heads,
                mlp_dim=decoder.transformer_mlp_dim,
            ),
            num_multimask_outputs=decoder.num_multimask_outputs,
            iou_head_depth=decoder.iou_head_depth,
            iou_head_hidden_dim=decoder.iou_head_hidden_dim,
        )


class MultimodalExtractor(nn.Module):
    """The shell that gives BEiT-3 its official prefix ``mm_extractor.beit3``."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.beit3 = Beit3(config)


class EvfSam(nn.Module):
    """The network: views and token ids in, low-resolution logits and predicted IoU out."""

    def __init__(self, config: EvfSamConfig) -> None:
        super().__init__()
        self.config = config
        self.visual_model = VisualModel(config)
        self.mm_extractor = MultimodalExtractor(config.beit3)
        width, prompt = config.beit3.embed_dim, config.sam_mask_decoder.transformer_dim
        hidden = config.projector_hidden
        self.text_hidden_fcs = nn.ModuleList(
            [nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, prompt))]
        )

    def embed_images(self, views: Tensor) -> Tensor:
        """SAM's features: N x 3 x S x S views to N x C x S/patch x S/patch float32.

        The neck always runs in float32: in half precision it may overflow.
        """
        encoder = self.visual_model.image_encoder
        tokens = encoder.patch_embed(views)
        if encoder.pos_embed is not None:
            tokens = tokens + encoder.pos_embed
        for block in encoder.blocks:
            tokens = block(tokens)
        with torch.autocast(views.device.type, enabled=False):
            return encoder.neck(tokens.permute(0, 3, 1, 2).float())

    def embed_prompts(self, views: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        """One prompt per (picture, expression): N x 3 x B x B views, N x L ids and padding to N x C."""
        return self.text_hidden_fcs[0](self.mm_extractor.beit3(views, ids, padding))

    def decode(self, embeddings: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of single-token prompts, each with its own picture's features, in float32.

        SAM's decoder repeats one picture for all prompts; here rows are independent, so that a batch may mix pictures.
        Only mask token 0 (the single-mask output) is upscaled.

        Args:
            embeddings: N x C x h x w, from :meth:`embed_images`.
            prompts: N x C, from :meth:`embed_prompts`.

        Returns:
            Logits N x 4h x 4w and predicted IoU N (unbounded, meant for [0, 1]).
        """
        decoder, prompter = self.visual_model.mask_decoder, self.visual_model.prompt_encoder
        with torch.autocast(embeddings.device.type, enabled=False):
            count, channels, height, width = embeddings.shape
            own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
            tokens = torch.cat([own.expand(count, -1, -1), prompts.float()[:, None]], dim=1)
            source = embeddings.float() + prompter.no_mask_embed.weight.view(1, channels, 1, 1)
            positions = prompter.get_dense_pe().expand(count, -1, -1, -1)
            tokens, source = decoder.transformer(source, positions, tokens)
            features = decoder.output_upscaling(source.transpose(1, 2).view(count, channels, height, width))
            kernel = decoder.output_hypernetworks_mlps[0](tokens[:, 1])
            return torch.einsum("nc,nchw->nhw", kernel, features), decoder.iou_prediction_head(tokens[:, 0])[:, 0]


def _pick(kind: type, values: Mapping[str, Any]) -> Any:
    """An instance of the dataclass ``kind`` from the entries it knows; lists become tuples."""
    known = {entry.name for entry in fields(kind)}
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in known})
