"""A small world in which every gate is met: the tables of a run on six samples, made by hand."""

from pathlib import Path

import polars as pl

from saliency_r1.params import Params, model_names

RESPONSE = {
    "sod": "<think>It is bright.</think><answer><rg>the red disc</rg></answer>",
    "sis": "<think>It is bright.</think><answer><ins>the red disc</ins></answer>",
    "cosod": "<think>Both show it.</think><answer><rg>the red disc</rg><rg>the disc</rg></answer>",
}
SAMPLES = [(task, split, number) for task in RESPONSE for split in ("train", "val", "test") for number in range(2)]


def tables(params: Params) -> dict[str, pl.DataFrame]:
    """All six tables by stage."""
    samples = pl.DataFrame([_sample(*sample) for sample in SAMPLES])
    identity = samples.select("sample_id", "task", "dataset", "split")
    responses = identity.with_columns(response=pl.col("task").replace_strict(RESPONSE))
    annotated = responses.filter(pl.col("split").is_in(params.annotate.splits)).with_columns(
        instruction=pl.lit("What stands out?"),
        objects=pl.lit(1),
        expressions=pl.concat_list(pl.lit("the red disc")),
        consistency=pl.lit(0.9),
        attempts=pl.lit(1),
        kept=pl.lit(True),
    )
    scored = responses.with_columns(reward=pl.lit(0.8), parsed=pl.lit(True))
    rollouts = scored.filter(split="train").with_columns(
        rollout_id=pl.int_range(pl.len()),
        update=pl.int_range(pl.len()) // params.cgpo.batch_size + 1,
        confidence=pl.lit(0.7),
        advantage=pl.lit(0.1),
        tokens=pl.lit(20),
        reward_format=pl.lit(1.0),
    )
    models = pl.DataFrame({"model": model_names(params.masks.models)})
    predictions = (
        scored.filter(split="test")
        .with_columns(token_probability=pl.lit(0.7), expressions=pl.concat_list(pl.lit("the red disc")))
        .join(samples.select("sample_id", "names", "height", "width"), on="sample_id")
        .join(models, how="cross")
        .with_columns(parsed=pl.col("model") != "base")
    )
    per_image = predictions.explode("names").rename({"names": "name"})
    saliency = pl.when(pl.col("task") != "sis").then(0.8)
    instances = pl.when(pl.col("task") == "sis").then(2)
    measured = per_image.select(
        "sample_id", "task", "dataset", "split", "model", "name",
        *(saliency.alias(measure) for measure in ("Sm", "MAE", "wFm", "adpFm", "adpEm", "maxFm", "maxEm", "IoU")),
        instances=instances, detections=instances,
    )  # fmt: skip
    return {
        "download": samples,
        "annotate": annotated,
        "sft": scored.filter(split="val"),
        "cgpo": rollouts,
        "masks": predictions,
        "metrics": measured,
    }


def write(tables: dict[str, pl.DataFrame], artifacts: Path) -> None:
    """Put the tables where the stages would."""
    for stage, table in tables.items():
        (artifacts / stage).mkdir(parents=True, exist_ok=True)
        table.write_parquet(artifacts / stage / "table.parquet")


def _sample(task: str, split: str, number: int) -> dict[str, object]:
    images = 2 if task == "cosod" else 1
    return {
        "sample_id": f"scenes-{task}/{split}/{number:04}",
        "task": task,
        "dataset": f"scenes-{task}",
        "split": split,
        "images": [f"images/{number}-{image}.jpg" for image in range(images)],
        "masks": [f"masks/{number}-{image}.png" for image in range(images)],
        "names": [f"{number}-{image}" for image in range(images)],
        "group": "discs" if task == "cosod" else None,
        "meta": "{}",
        "height": [112] * images,
        "width": [96] * images,
    }
