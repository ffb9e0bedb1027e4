"""A small artifacts folder as the stages before the report would leave it: drawn scenes, noisy predictions."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

MODELS = {"base": 0.0, "sft": 0.7, "cgpo": 0.9}  # how often a model is right
COLOURS = {"red": (214, 60, 50), "blue": (50, 90, 200), "green": (40, 150, 80)}
HOSTILE = "<think>look <script>alert('x')</script> & see</think><answer><rg>the <b>red</b> disc</rg></answer>"
NOT_A_RESPONSE = "A large red disc at the left and a small blue disc on <script>alert(1)</script> grey ground."


# (task, data set, splits), in the order of the sample table.
SCENES = [
    (task, f"scenes-{task}{suffix}", splits)
    for task in ("sod", "sis", "cosod")
    for suffix, splits in (("", ("train", "test")), ("-unseen", ("test",)))
]
Datasets = Sequence[tuple[str, str, tuple[str, ...]]]


def build(root: Path, samples: int = 4, datasets: Datasets = SCENES) -> Path:
    """Write the whole folder under `root` and return it."""
    download(root, samples, datasets)
    predict(root)
    training(root)
    return root


def download(root: Path, samples: int, datasets: Datasets = SCENES) -> None:
    """Scenes of two discs: the large one is salient, and shared by the images of a group."""
    rng = np.random.default_rng(0)
    rows = []
    for task, dataset, splits in datasets:
        for split in splits:
            rows += [_sample(root, rng, task, dataset, split, number) for number in range(samples)]
    pl.DataFrame(rows).write_parquet(root / "download" / "table.parquet")


def _sample(root: Path, rng: np.random.Generator, task: str, dataset: str, split: str, number: int) -> dict[str, Any]:
    folder = root / "download" / "datasets" / dataset / split
    group = f"group{number}" if task == "cosod" else None
    names = [f"{group}/{index}" for index in range(3)] if group else [f"{number:04}"]
    width, height = int(rng.integers(72, 120)), int(rng.integers(72, 120))
    for name in names:
        for kind, picture in zip(("images", "masks"), _scene(rng, task, width, height)):
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    paths = {kind: [f"datasets/{dataset}/{split}/{kind}/{name}.png" for name in names] for kind in ("images", "masks")}
    return {
        "sample_id": f"{dataset}/{split}/{group or names[0]}",
        "task": task, "dataset": dataset, "split": split, **paths, "names": names, "group": group, "meta": "{}",
        "height": [height] * len(names), "width": [width] * len(names),
    }  # fmt: skip


def _scene(rng: np.random.Generator, task: str, width: int, height: int) -> tuple[Image.Image, Image.Image]:
    noise = rng.normal(0, 4, (height, width, 1)) + np.full(3, 150)
    image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    ids = Image.new("I" if task == "sis" else "L", (width, height))
    colours = list(COLOURS.values())
    for number, (left, size) in enumerate([(0.08, 0.42), (0.6, 0.3 if task == "sis" else 0.14)], 1):
        top = rng.uniform(0.1, 0.5)
        box = [left * width, top * height, left * width + size * width, top * height + size * width]
        ImageDraw.Draw(image).ellipse(box, fill=colours[number])
        if task == "sis" or number == 1:
            ImageDraw.Draw(ids).ellipse(box, fill=number if task == "sis" else 255)
    return image, Image.fromarray(np.array(ids).astype(np.uint16 if task == "sis" else np.uint8))


def predict(root: Path) -> None:
    """Predictions of three models for every test sample: the truth, shifted or forgotten."""
    from faster_coco_eval import mask as rle

    rng = np.random.default_rng(1)
    samples = pl.read_parquet(root / "download" / "table.parquet").filter(split="test")
    rows, results = [], {}
    for model, skill in MODELS.items():
        for sample in samples.iter_rows(named=True):
            parsed = model != "base" and (rng.random() < 0.5 + skill / 2)
            right = rng.random() < skill
            for name, mask in zip(sample["names"], _masks(root, sample)):
                shifted = np.roll(mask, 2 if right else 19, axis=1)
                if sample["task"] == "sis":
                    found = [shifted == value for value in np.unique(shifted[shifted > 0])] if parsed else []
                    result = results.setdefault((model, sample["dataset"]), [])
                    for region in found[: 2 if right else 1]:
                        encoded = rle.encode(np.asfortranarray(region, np.uint8))
                        segmentation = {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
                        result.append(
                            {"image_id": name, "category_id": 1, "segmentation": segmentation, "score": rng.random()}
                        )
                else:
                    path = root / "masks" / "maps" / model / sample["dataset"] / f"{name}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray((shifted * parsed).astype(np.uint8)).save(path)
            response = _response(sample, parsed)
            rows.append(
                {
                    **{key: sample[key] for key in ("sample_id", "task", "dataset", "split")},
                    "model": model, "response": response, "expressions": ["the large disc"] if parsed else [],
                    "parsed": parsed, "token_probability": 0.5 + skill / 2.5,
                    "reward": float(parsed * (0.9 if right else 0.3)) + 0.05 * rng.random(),
                    **{key: sample[key] for key in ("names", "height", "width")},
                }
            )  # fmt: skip
    (root / "masks").mkdir(exist_ok=True)
    pl.DataFrame(rows).write_parquet(root / "masks" / "table.parquet")
    for (model, dataset), found in results.items():
        path = root / "masks" / "instances" / model / f"{dataset}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))


def _masks(root: Path, sample: dict[str, Any]) -> Iterator[np.ndarray]:
    for path in sample["masks"]:
        yield np.array(Image.open(root / "download" / path))


def _response(sample: dict[str, Any], parsed: bool) -> str:
    if not parsed:
        return NOT_A_RESPONSE
    if sample["task"] == "sod" and sample["sample_id"].endswith("0000"):
        return HOSTILE
    thought = "A large disc fills the left part; the small one is of little weight."
    kind = "ins" if sample["task"] == "sis" else "rg"
    said = [f"<{kind}>the large {colour} disc</{kind}>" for colour in list(COLOURS)[: len(sample["images"])]]
    return f"<think>{thought}</think><answer>{''.join(said)}</answer>"


def training(root: Path) -> None:
    """What annotate, sft, cgpo and the gates leave behind."""
    rng = np.random.default_rng(2)
    samples = pl.read_parquet(root / "download" / "table.parquet").filter(split="train")
    identity = samples.select("sample_id", "task", "dataset", "split")
    consistency = np.clip(rng.normal(0.9, 0.06, len(samples)), 0, 1)
    annotated = identity.with_columns(
        instruction=pl.lit("What stands out?"), objects=pl.lit(1), response=pl.lit("..."),
        expressions=pl.lit(["the disc"]), consistency=pl.Series(consistency),
        attempts=pl.lit(1), kept=pl.Series(consistency > 0.8),
    )  # fmt: skip
    for stage in ("annotate", "sft", "cgpo", "checks"):
        (root / stage).mkdir(parents=True, exist_ok=True)
    annotated.write_parquet(root / "annotate" / "table.parquet")
    steps = np.arange(1, 101)
    pl.DataFrame(
        {"step": steps, "loss": 3 * np.exp(-steps / 20) + 0.3, "lr": 5e-4 * (1 - steps / 100),
         "grad_norm": rng.gamma(2, 0.4, 100)}
    ).write_csv(root / "sft" / "curves.csv")  # fmt: skip
    noise = rng.normal(0, 0.03, 100)
    pl.DataFrame(
        {"update": steps, "reward": 0.6 + 0.2 * steps / 100 + noise, "confidence": 0.7 + 0.1 * steps / 100,
         "advantage_positive": np.full(100, 0.5), "parse_failures": 0.1 * np.exp(-steps / 30),
         "entropy": 1 - steps / 200, "isr_loss": [None if step % 16 else 0.4 for step in steps], "note": ["text"] * 100,
         "seconds_train": rng.random(100), "novel": noise}
    ).write_csv(root / "cgpo" / "curves.csv")  # fmt: skip
    drawn = rng.random(400)
    pl.DataFrame(
        {"rollout_id": np.arange(400), "update": np.arange(400) // 4 + 1, "sample_id": [samples["sample_id"][0]] * 400,
         "response": [HOSTILE] * 400, "reward": drawn, "confidence": 0.5 + 0.5 * rng.random(400),
         "advantage": drawn - 0.75}
    ).write_parquet(root / "cgpo" / "table.parquet")  # fmt: skip
    expectations = [
        {"column": "sample_id", "expectation": "unique", "rows": 12, "unexpected": 0},
        {"column": "reward", "expectation": "in [0, 1]", "rows": 12, "unexpected": 0},
        {"column": "parsed", "expectation": "the response parses in at least 80.0% of the rows", "rows": 12,
         "unexpected": 1},
    ]  # fmt: skip
    for stage in ("download", "annotate", "sft", "cgpo", "masks", "metrics"):
        report = {"stage": stage, "rows": 12, "expectations": expectations}
        (root / "checks" / f"{stage}.json").write_text(json.dumps(report))
