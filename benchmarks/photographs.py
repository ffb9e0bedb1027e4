"""What a model says to photographs: the share of answers that parse, at once and as `predict` asks, and the S-measure.

    python benchmarks/photographs.py ecssd                                    # images/*.jpg and masks/*.png
    python benchmarks/photographs.py my-photographs --adapter artifacts/sft/adapter --examples seen.png
    python benchmarks/photographs.py groups --task cosod                      # every folder in groups/ is a group

A folder holds `images/` and, optionally, `masks/` with the same names; a folder without `images/` is searched for
pictures as it is. Sizes are those of params.yaml; a group is asked about in parts, as `predict` does, and a share that
parses is one of prompts. Prints one JSON object; `--examples` draws the first answers with their maps.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from saliency_r1.cot import KINDS
from saliency_r1.metrics.saliency import s_measure
from saliency_r1.prediction.formats import alpha
from saliency_r1.prediction.models import load, trained_here
from saliency_r1.prediction.predictor import Answer, PredictError, read_image
from saliency_r1.prediction.work import Prompt, collect, prompts

TILE = 200


def photographs(folder: Path, task: str, chunk: int) -> list[tuple[Prompt, list[Path]]]:
    """The prompts that a folder amounts to, each with where the masks of its pictures would be.

    Raises `SystemExit` where there is no picture.
    """
    own = folder / "images" if (folder / "images").is_dir() else folder
    try:
        found = prompts(collect([own], task, recursive=True), task, chunk)
    except PredictError as error:
        raise SystemExit(str(error)) from None
    return [(prompt, [folder / "masks" / f"{picture.name}.png" for picture in prompt]) for prompt in found]


def seen(path: Path, answer: Answer, index: int) -> Image.Image:
    """A picture of a prompt, what was found in it, and the words."""
    tile = Image.new("RGB", (2 * TILE, TILE + 60), "white")
    tile.paste(read_image(path).resize((TILE, TILE)), (0, 0))
    tile.paste(Image.fromarray(alpha(answer, index)).resize((TILE, TILE)), (TILE, 0))
    said = "; ".join(item.text for item in answer.expressions if item.image == index)
    words = f"(does not parse) {answer.text}" if answer.errors else said
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
    parser.add_argument("--task", choices=list(KINDS), default="sod")
    options = parser.parse_args()
    chosen = trained_here(options.policy, options.adapter, options.segmenter, None)
    predictor = load(chosen)
    parsed: list[bool] = []
    at_once: list[bool] = []
    scores: list[float] = []
    words: Counter[str] = Counter()
    tiles: list[Image.Image] = []
    count = 0
    for folder in options.folders:
        for prompt, masks in photographs(folder, options.task, chosen.settings.chunk):
            answer = predictor.predict([picture.path for picture in prompt], options.task)
            count += len(prompt)
            parsed.append(not answer.errors)
            at_once.append(parsed[-1] and answer.attempts == 1)
            words.update(item.text for item in answer.expressions)
            for map_, mask in zip(answer.maps, masks):  # instances have none, and no S-measure
                if mask.is_file():
                    scores.append(s_measure(map_, np.asarray(Image.open(mask).convert("L")) > 127))
            if options.examples:
                tiles += [seen(picture.path, answer, index) for index, picture in enumerate(prompt)]
    if tiles := tiles[:24]:
        sheet = Image.new("RGB", (4 * 2 * TILE, -(-len(tiles) // 4) * (TILE + 60)), "white")
        for index, tile in enumerate(tiles):
            sheet.paste(tile, (index % 4 * 2 * TILE, index // 4 * (TILE + 60)))
        sheet.save(options.examples)
    found: dict[str, float] = {"photographs": count, "prompts": len(parsed)}
    found |= {key: round(float(np.mean(ok)), 4) for key, ok in (("parsed", parsed), ("at_once", at_once))}
    if scores:
        found["with_masks"], found["S"] = len(scores), round(float(np.mean(scores)), 4)
    print(json.dumps({**found, "commonest": words.most_common(5)}))


if __name__ == "__main__":
    main()
