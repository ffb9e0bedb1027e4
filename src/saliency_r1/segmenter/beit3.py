"""BEiT-3: one transformer over image patches and words, with separate weights for each (Wang et al., arXiv 2208.10442).

Every projection, feed-forward network and norm exists twice, ``A`` for the vision tokens and ``B`` for the text tokens;
attention alone sees both. Parameter names are those of the released checkpoints, so a state dict loads as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRST_POSITION = 2  # rows 0 and 1 of both position tables are never read: a habit inherited from fairseq


@dataclass(frozen=True)
class Beit3Config:
    """Sizes of the encoder; the defaults are those of BEiT-3-Large at 224 px."""

    img_size: int = 224
    patch_size: int = 16
    vocab_size: int = 64010
    embed_dim: int = 1024
    num_heads: int = 16
    ffn_dim: int = 4096
    num_layers: int = 24
    max_source_positions: int = 1024
    layer_norm_eps: float = 1e-5

    @property
    def patches(self) -> int:
        """Number of image patches."""
        return (self.img_size // self.patch_size) ** 2

    @property
    def max_text_tokens(self) -> int:
        """Longest text, begin and end tokens included."""
        return self.max_source_positions - FIRST_POSITION


class Multiway(nn.Module):
    """The same module twice: ``A`` for the vision stream, ``B`` for the text stream."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.A = make()
        self.B = make()

    def forward(self, vision: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Apply ``A`` to the vision and ``B`` to the text."""
        return self.A(vision), self.B(text)


class Attention(nn.Module):
    """Joint attention of both streams, with a norm between the heads and the output projection (sub-LN)."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        width = config.embed_dim
        self.num_heads = config.num_heads
        self.k_proj = Multiway(lambda: nn.Linear(width, width))
        self.v_proj = Multiway(lambda: nn.Linear(width, width))
        self.q_proj = Multiway(lambda: nn.Linear(width, width))
        self.out_proj = Multiway(lambda: nn.Linear(width, width))
        self.inner_attn_ln = Multiway(lambda: nn.LayerNorm(width, eps=config.layer_norm_eps))

    def _heads(self, streams: tuple[Tensor, Tensor]) -> Tensor:
        joint = torch.cat(streams, dim=1)
        return joint.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(
        self, vision: Tensor, text: Tensor, queries: tuple[Tensor, Tensor], mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attend from ``queries`` (the leading part of each stream) to all of ``vision`` and ``text``.

        ``mask`` is N x 1 x 1 x (vision + text) bool, True where a token may be seen.
        """
        keys, values = self._heads(self.k_proj(vision, text)), self._heads(self.v_proj(vision, text))
        mixed = F.scaled_dot_product_attention(self._heads(self.q_proj(*queries)), keys, values, attn_mask=mask)
        split = (queries[0].shape[1], queries[1].shape[1])
        return self.out_proj(*self.inner_attn_ln(*mixed.transpose(1, 2).flatten(2).split(split, dim=1)))


class FeedForward(nn.Module):
    """Two linear maps, exact GELU and a norm (sub-LN) between them."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.ffn_dim)
        self.fc2 = nn.Linear(config.ffn_dim, config.embed_dim)
        self.ffn_layernorm = nn.LayerNorm(config.ffn_dim, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """N x L x width to the same shape."""
        return self.fc2(self.ffn_layernorm(F.gelu(self.fc1(x))))


class Layer(nn.Module):
    """Pre-norm attention and feed-forward, each with its residual."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)

        self.self_attn = Attention(config)
        self.self_attn_layer_norm = Multiway(norm)
        self.ffn = Multiway(lambda: FeedForward(config))
        self.final_layer_norm = Multiway(norm)

    def forward(self, vision: Tensor, text: Tensor, mask: Tensor, cls_only: bool) -> tuple[Tensor, Tensor]:
        """Both streams one layer further; with ``cls_only`` the class token alone (and no text)."""
        normed = self.self_attn_layer_norm(vision, text)
        if cls_only:
            vision, text = vision[:, :1], text[:, :0]
        queries = (normed[0][:, : vision.shape[1]], normed[1][:, : text.shape[1]])
        attended = self.self_attn(*normed, queries, mask)
        vision, text = vision + attended[0], text + attended[1]
        changed = self.ffn(*self.final_layer_norm(vision, text))
        return vision + changed[0], text + changed[1]


class VisionEmbedding(nn.Module):
    """Patches of the picture behind a class token. ``mask_token`` served pre-training only; checkpoints hold it."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.proj = nn.Conv2d(3, config.embed_dim, config.patch_size, stride=config.patch_size)

    def forward(self, views: Tensor) -> Tensor:
        """N x 3 x S x S to N x (1 + patches) x width."""
        patches = self.proj(views).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(views), -1, -1).to(patches.dtype), patches], dim=1)


class Encoder(nn.Module):
    """Position tables, layers and the last norm."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.embed_positions = nn.ModuleDict(
            {
                "A": nn.Embedding(config.patches + 1 + FIRST_POSITION, config.embed_dim),
                "B": nn.Embedding(config.max_source_positions, config.embed_dim),
            }
        )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.layer_norm = Multiway(lambda: nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps))

    def _positions(self, stream: str, length: int) -> Tensor:
        table = self.embed_positions[stream]
        assert isinstance(table, nn.Embedding)
        return table.weight[FIRST_POSITION : FIRST_POSITION + length]

    def forward(self, vision: Tensor, text: Tensor, padding: Tensor) -> Tensor:
        """Embedded vision and text to the class token, N x width."""
        vision = vision + self._positions("A", vision.shape[1])
        text = (text + self._positions("B", text.shape[1])).masked_fill(padding[..., None], 0.0)
        visible = torch.cat([padding.new_ones(vision.shape[:2]), ~padding], dim=1)[:, None, None, :]
        for number, layer in enumerate(self.layers, start=1):
            # Only the class token is read in the end, so the last layer asks for nothing else.
            vision, text = layer(vision, text, visible, cls_only=number == len(self.layers))
        return self.layer_norm.A(vision[:, 0])


class Beit3(nn.Module):
    """The encoder as EVF-SAM uses it: picture and words in, the class token out."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.config = config
        self.text_embed = nn.Embedding(config.vocab_size, config.embed_dim)
        self.vision_embed = VisionEmbedding(config)
        self.encoder = Encoder(config)

    def forward(self, views: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        """Fuse every picture with its text.

        Args:
            views: N x 3 x S x S, values around [-1, 1], S = ``img_size``.
            ids: N x L token ids, begin and end included, L <= ``max_text_tokens``.
            padding: N x L bool, True where the token is padding.

        Returns:
            N x ``embed_dim``: the vision class token behind the last norm.

        Raises:
            ValueError: the text is longer than the position table.
        """
        if ids.shape[1] > self.config.max_text_tokens:
            raise ValueError(f"{ids.shape[1]} text tokens, but at most {self.config.max_text_tokens} have a position")
        return self.encoder(self.vision_embed(views), self.text_embed(ids), padding)
