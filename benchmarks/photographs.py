"""What a model says to photographs: the share of answers that parse, at once and as `predict` asks, and the S-measure.

    python benchmarks/photographs.py ecssd                                    # images/*.jpg and masks/*.png
    python benchmarks/photographs.py my-photographs --adapter artifacts/sft/adapter --examples seen.png

A folder holds `images/` and, optionally, `masks/` with the same stems; a folder without `images/` is searched for
pictures as it is. Sizes are those of params.yaml. Prints one JSON object; `--examples` draws the first answers with
their maps.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from saliency_r1.inputs.find import pictures_below
from saliency_r1.metrics.saliency import s_measure
from saliency_r1.prediction.models import load, trained_here
from saliency_r1.prediction.predictor import Answer, read_image

TILE = 200


def photographs(folder: Path) -> list[tuple[Path, Path | None]]:
    """Every picture of a folder with its mask, if there is one. Raises `SystemExit` where there is no picture."""
    own = folder / "images" if (folder / "images").is_dir() else folder
    found = sorted(pictures_below(own))
    if not found:
        raise SystemExit(f"{own}: no picture in it")
    masks = (folder / "masks" / f"{path.stem}.png" for path in found)
    return [(path, mask if mask.is_file() else None) for path, mask in zip(found, masks)]


def seen(path: Path, answer: Answer) -> Image.Image:
    """A picture, the map found for it, and the words."""
    tile = Image.new("RGB", (2 * TILE, TILE + 60), "white")
    tile.paste(read_image(path).resize((TILE, TILE)), (0, 0))
    tile.paste(Image.fromarray((answer.maps[0] * 255).astype(np.uint8)).resize((TILE, TILE)), (TILE, 0))
    words = "; ".join(item.text for item in answer.expressions) or f"(does not parse) {answer.text}"
    ImageDraw.Draw(tile).text((4, TILE + 4), textwrap.fill(words, 64)[:250], fill="black")
    return tile


def main() -> None:
    """Answer every photograph and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--policy", type=Path, default=Path("artifacts/download/models/policy"))
    parser.add_argument("--segmenter", type=Path, default=Path("artifacts/download/models/segmenter"))
    parser.add_argument("--adapter", type=Path, default=Path("artifacts/cgpo/adapter"))
    parser.add_argument("--examples", type=Path, help="a PNG to draw the first 24 answers into")
    options = parser.parse_args()
    predictor = load(trained_here(options.policy, options.adapter, options.segmenter, None))
    parsed: list[bool] = []
    at_once: list[bool] = []
    scores: list[float] = []
    words: Counter[str] = Counter()
    tiles: list[Image.Image] = []
    for path, mask in (pair for folder in options.folders for pair in photographs(folder)):
        answer = predictor.predict([path], "sod")
        parsed.append(not answer.errors)
        at_once.append(parsed[-1] and answer.attempts == 1)
        words.update(item.text for item in answer.expressions)
        if mask is not None:
            scores.append(s_measure(answer.maps[0], np.asarray(Image.open(mask).convert("L")) > 127))
        if options.examples and len(tiles) < 24:
            tiles.append(seen(path, answer))
    if tiles:
        sheet = Image.new("RGB", (4 * 2 * TILE, -(-len(tiles) // 4) * (TILE + 60)), "white")
        for index, tile in enumerate(tiles):
            sheet.paste(tile, (index % 4 * 2 * TILE, index // 4 * (TILE + 60)))
        sheet.save(options.examples)
    found: dict[str, float] = {"photographs": len(parsed)}
    found |= {key: round(float(np.mean(ok)), 4) for key, ok in (("parsed", parsed), ("at_once", at_once))}
    if scores:
        found["with_masks"], found["S"] = len(scores), round(float(np.mean(scores)), 4)
    print(json.dumps({**found, "commonest": words.most_common(5)}))


if __name__ == "__main__":
    main()
