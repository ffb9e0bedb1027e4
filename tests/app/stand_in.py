"""Models that speak by rote, and the page with them: `python stand_in.py PORT`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from saliency_r1.app.turns import Models, Speaker
from saliency_r1.segmenter import Segment

EVIL = "<img src=x onerror=alert(1)>"
SAID = {
    None: "I see nothing of note.",
    "plain": f"<think>Two halves. {EVIL} & more</think><answer><rg>top</rg><rg>bottom</rg></answer>",
    "ins": "<think>Two.</think><answer><ins>top</ins><ins>all</ins></answer>",
    "half": "<think>One of them.</think><answer><rg>top</rg><rg></rg></answer>",
}
ROWS = {"top": slice(0, 12), "bottom": slice(12, 24), "all": slice(0, 24), "nothing": slice(0, 0)}


class Policies:
    """Answers by the name of the adapter."""

    @contextlib.contextmanager
    def using(self, adapter: Path | None) -> Iterator[Any]:
        said = SAID[str(adapter) if adapter else None]
        yield SimpleNamespace(
            prompt=lambda images, instruction: instruction,
            generate=lambda prompts, most, *sampled: [SimpleNamespace(text=said) for _ in prompts],
        )


class Segmenter:
    """Knows four phrases; any other is the left half."""

    def encode(self, images: list[Image.Image]) -> list[tuple[int, int]]:
        return [(image.height, image.width) for image in images]

    def segment(self, encoded: list[tuple[int, int]], phrases: list[list[str]]) -> list[list[Segment]]:
        return [[self._draw(size, phrase) for phrase in row] for size, row in zip(encoded, phrases, strict=True)]

    def _draw(self, size: tuple[int, int], phrase: str) -> Segment:
        logits = np.full(size, -9, np.float32)
        if phrase in ROWS:
            logits[ROWS[phrase]] = 9
        else:
            logits[:, : size[1] // 2] = 9
        return Segment(logits, 0.5 if phrase == "all" else 0.75)


def models() -> Models:
    named = {"plain": Path("plain"), "ins": Path("ins"), "half": Path("half"), "base": None}
    policies, segmenter = Policies(), Segmenter()
    return Models({name: Speaker(policies, adapter, segmenter, 64) for name, adapter in named.items()})  # type: ignore[arg-type]


if __name__ == "__main__":
    from saliency_r1.app.page import serve

    serve(models(), 3, int(sys.argv[1]))
