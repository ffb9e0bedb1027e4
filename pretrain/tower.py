"""The vision tower on many pictures of one size at once: what it is shown, and what it is asked.

The library passes over a batch picture by picture, since pictures differ in size. Those of a batch here do not, so that
patches, places and attention of all are one operation each: on an accelerator a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import (
    get_vision_attention_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

TOKEN = 16  # pixels on the side of a merged image token: patch size 8, 2 x 2 merged
SHOWN = 0.12  # share of a token from which it shows an object


def patches(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """What the image processor makes of pictures (uint8 B x H x W x 3), sides multiples of TOKEN: patches x values.

    `mean` and `std` are the processor's, times 255.
    """
    count, height, width, _ = images.shape
    rows, columns, side = height // TOKEN, width // TOKEN, TOKEN // 2
    values = ((images - mean) / std).reshape(count, rows, 2, side, columns, 2, side, 3)
    frame = values.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(count * rows * columns * 4, 3, 1, side * side)
    return frame.expand(-1, -1, 2, -1).reshape(len(frame), -1)


def grid(count: int, height: int, width: int) -> Tensor:
    """The grid of patches of each of `count` pictures, count x 3: time, rows, columns."""
    return torch.tensor([[1, 2 * (height // TOKEN), 2 * (width // TOKEN)]]).expand(count, 3)


def token_labels(ids: Tensor, values: Tensor) -> Tensor:
    """What each merged token shows: of maps B x H x W and a row of attributes an object, tokens x attributes.

    `values` is B x (1 + objects) x attributes; its first row is that of the background. Of several objects on a token
    the one with the largest share counts, from SHOWN on.
    """
    count, height, width = ids.shape
    tiles = ids.reshape(count, height // TOKEN, TOKEN, width // TOKEN, TOKEN)
    shares = torch.stack([(tiles == number).float().mean((2, 4)) for number in range(1, values.shape[1])])
    best, which = shares.max(0)
    shown = torch.where(best > SHOWN, which + 1, 0).reshape(count, -1, 1)
    return values.gather(1, shown.expand(-1, -1, values.shape[2])).flatten(0, 1)


@cache
def layout(visual: nn.Module, count: int, height: int, width: int, device: torch.device) -> dict[str, Any]:
    """Everything the tower derives from the grids of `count` equal pictures, made once."""
    config: Any = visual.config
    cells = grid(count, height, width)
    lengths, longest = get_vision_attention_seqlens(cells, config)
    index, windows = get_vision_window_index(cells, config.spatial_merge_size, config.window_size, config.patch_size)
    made = {
        "grid_thw": cells,
        "position_ids": get_vision_position_ids(cells, config.spatial_merge_size),
        "cu_seqlens": lengths,
        "window_index": index,
        "cu_window_seqlens": windows,
    }
    return {name: tensor.to(device) for name, tensor in made.items()} | {"max_seqlen": longest}


def _attend(module: Any, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: Any, **_: Any) -> Tensor:
    """The attention of `module`, with as many tokens in every picture; in single precision, which CPUs prefer here."""
    count, tokens = len(cu_seqlens) - 1, len(hidden_states)
    query, key, value = module.qkv(hidden_states).float().reshape(tokens, 3, module.num_heads, -1).unbind(1)
    query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
    query, key, value = (
        part.reshape(count, tokens // count, module.num_heads, -1).transpose(1, 2) for part in (query, key, value)
    )
    seen = nn.functional.scaled_dot_product_attention(query, key, value)
    return module.proj(seen.transpose(1, 2).reshape(tokens, -1))


class EqualPictures:
    """While `installed`, a tower takes pictures of one size alone; all of its blocks see the whole picture.

    `compiled`: the blocks are compiled, for each size anew; on a CPU a step of the tower takes two thirds of the time.
    """

    def __init__(self, visual: Any, compiled: bool = False) -> None:
        weight = visual.patch_embed.proj.weight  # of a convolution that is a product
        self.forwards: list[tuple[Any, Any]] = [(block.attn, partial(_attend, block.attn)) for block in visual.blocks]
        self.forwards.append((visual.patch_embed, lambda pixels: nn.functional.linear(pixels, weight.flatten(1))))
        if compiled:
            torch._dynamo.config.recompile_limit = 64  # blocks times sizes
            self.forwards += [(block, torch.compile(block.forward, dynamic=False)) for block in visual.blocks]

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The forward passes of this class instead of the library's."""
        for module, forward in self.forwards:
            module.forward = forward
        try:
            yield
        finally:
            for module, _ in self.forwards:
                del module.forward


def visual_loss(heads: nn.ModuleList, tokens: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every attribute of every merged token; background, which is most, weighs little."""
    weight = torch.ones(heads[0].out_features, device=tokens.device)  # type: ignore[call-overload]
    weight[0] = 0.15
    losses = [
        nn.functional.cross_entropy(head(tokens), column, weight if index == 0 else None)
        for index, (head, column) in enumerate(zip(heads, labels.T))
    ]
    return torch.stack(losses).sum()
