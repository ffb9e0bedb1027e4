"""What is expected of each stage's table. One function a stage: the table in, a flat table and expectations out.

Great Expectations sees no lists: whatever is nested is first turned into a number or a yes-or-no column of its own.
It counts no nulls, so a null in what such a column is made of becomes a number out of range or a no: only where nothing
is expected of a row (`kept.then(...)`) the column is null.
"""

import json
import math
from collections.abc import Callable, Collection
from typing import Any, get_args

import polars as pl

from saliency_r1 import cot
from saliency_r1.data.table import subset, validation
from saliency_r1.names import MEASURES, TASKS, TRAINED
from saliency_r1.params import Params, Split, model_names
from saliency_r1.quality.expectations import Expectation, Suite, between, covers, not_null, one_of, true, unique

SPLITS = get_args(Split)
IDENTITY = ("sample_id", "task", "dataset", "split")
E_MOST = 1.01  # an E-measure above 1 that pictures of usual sizes stay below (see `_most_e`)

TEXT, TEXTS, COUNT, COUNTS, NUMBER, YES = (
    pl.String(), pl.List(pl.String), pl.Int64(), pl.List(pl.Int64), pl.Float64(), pl.Boolean()
)  # fmt: skip
_ANSWER = dict.fromkeys(IDENTITY, TEXT) | {"response": TEXT}
COLUMNS: dict[str, dict[str, Any]] = {
    "download": dict.fromkeys(IDENTITY, TEXT) | dict.fromkeys(("images", "masks", "names"), TEXTS)
    | dict.fromkeys(("group", "meta"), TEXT) | dict.fromkeys(("height", "width"), COUNTS),
    "annotate": _ANSWER | {"instruction": TEXT, "objects": COUNT, "expressions": TEXTS, "consistency": NUMBER,
                           "attempts": COUNT, "kept": YES},
    "sft": _ANSWER | {"reward": NUMBER, "parsed": YES},
    "cgpo": _ANSWER | {"parsed": YES} | dict.fromkeys(("rollout_id", "update", "tokens"), COUNT)
    | dict.fromkeys(("reward", "confidence", "advantage"), NUMBER),
    "masks": _ANSWER | {"model": TEXT, "expressions": TEXTS, "parsed": YES, "token_probability": NUMBER,
                        "reward": NUMBER, "names": TEXTS, "height": COUNTS, "width": COUNTS},
    "metrics": dict.fromkeys((*IDENTITY, "model", "name"), TEXT) | dict.fromkeys(MEASURES, NUMBER)
    | dict.fromkeys(("instances", "detections"), COUNT),
}  # fmt: skip


def download(table: pl.DataFrame, samples: pl.DataFrame, params: Params) -> Suite:
    """Every sample is named once and has as many masks, names and sizes as images."""
    images = pl.col("images").list.len().fill_null(0)
    grouped = pl.col("task") == "cosod"
    rows = table.select(
        *IDENTITY,
        id="sample_id",
        path_like_id=pl.col("sample_id").str.starts_with(pl.format("{}/{}/", "dataset", "split")),
        images=images,
        single=images.eq(1) | grouped,
        matched=pl.all_horizontal(
            _filled(name) & (pl.col(name).list.len() == images).fill_null(False)
            for name in ("images", "masks", "names", "height", "width")
        ),
        grouped=pl.col("group").is_not_null() == grouped,
        described=pl.struct("meta", "images").map_elements(_described, return_dtype=pl.Boolean),
        smallest_side=pl.min_horizontal(pl.col(name).list.min().fill_null(0) for name in ("height", "width")),
    )
    return Suite(rows, [
        *_identity(SPLITS),
        unique("sample_id"),
        true("path_like_id", "sample_id is <dataset>/<split>/<name>"),
        covers("dataset", {name.partition("/")[0] for name in params.download.datasets}),
        *between(1, params.download.cosod_chunk, "images"),
        true("single", "one image a sample, except in CoSOD"),
        true("matched", "as many masks, names, heights and widths as images, none of them null"),
        true("grouped", "a group in CoSOD and nowhere else"),
        true("described", "meta is JSON, and its objects, if it has any, are lists, one an image"),
        *between(1, None, "smallest_side"),
    ])  # fmt: skip


def annotate(table: pl.DataFrame, samples: pl.DataFrame, params: Params) -> Suite:
    """Every sample that was to be annotated stands once; what is kept parses and agrees with its ground truth."""
    wanted = subset(samples, params.annotate.splits, params.annotate.limit)
    images = samples.select("sample_id", images=pl.col("images").list.len())
    kept = pl.when("kept")
    rows = (
        _expected(wanted.select(IDENTITY), table, "sample_id")
        .join(images, on="sample_id", how="left")
        .with_columns(parses=pl.struct("response", "task", "images").map_elements(_parses, return_dtype=pl.Boolean))
        .select(
            *IDENTITY, "occurrences", "instruction", "objects", "response", "attempts", "kept",
            id="sample_id",
            well_formed=kept.then("parses"),
            stated=kept.then(
                _filled("expressions")
                & ((pl.col("expressions").list.len() > 0) == (pl.col("objects") > 0)).fill_null(False)
            ),
            consistency="consistency",
            kept_consistency=kept.then(pl.col("consistency").fill_null(-1)),
        )
    )  # fmt: skip
    share = params.checks.consistency_share
    return Suite(rows, [
        *_identity(params.annotate.splits),
        *between(1, 1, "occurrences"),
        *not_null("instruction", "response", "attempts", "kept", "objects"),
        *between(0, 1, "consistency"),
        *between(params.checks.consistency, 1, "kept_consistency", share=share),
        *between(1, params.annotate.attempts, "attempts"),
        true("stated", "a kept response names something exactly where something stands out"),
        true("well_formed", "a kept response parses"),
        true("kept", "the annotation is kept", params.checks.kept_share),
    ])  # fmt: skip


def sft(table: pl.DataFrame, samples: pl.DataFrame, params: Params) -> Suite:
    """One greedy response for each validation sample that is drawn for it, with its reward."""
    wanted = validation(samples, params.sft.evaluate_samples, params.seed).select(IDENTITY)
    rows = _expected(wanted, table, "sample_id").select(
        *IDENTITY, "occurrences", "response", "reward", "parsed", id="sample_id"
    )
    return Suite(rows, [
        *_identity(["val"]),
        *between(1, 1, "occurrences"),
        *not_null("response", "reward", "parsed"),
        *between(0, 1, "reward"),
        true("parsed", "the response parses", 1 - params.checks.sft_parse_failures),
    ])  # fmt: skip


def cgpo(table: pl.DataFrame, samples: pl.DataFrame, params: Params) -> Suite:
    """Every rollout of every update has a reward in [0, 1], a confidence in (0, 1] and a finite advantage."""
    components = [column for column in table.columns if column.startswith("reward_")]
    named = ("sample_id", "rollout_id")
    wanted = pl.DataFrame({"rollout_id": range(params.cgpo.updates * params.cgpo.batch_size)})
    wanted = wanted.with_columns(turn=pl.col("rollout_id") // params.cgpo.batch_size + 1)
    counted = table.with_columns(occurrences=pl.len().over("rollout_id"), known=_known(samples))
    there = pl.when(pl.col("occurrences") > 0)
    rows = (
        wanted.join(counted, on="rollout_id", how="full", coalesce=True, maintain_order="left_right")
        .with_columns(pl.col("occurrences").fill_null(0))
        .select(
            *IDENTITY, "occurrences", "response", "parsed", "reward", "confidence", "advantage", "tokens", *components,
            id=pl.format("{} (rollout {})", *(pl.col(key).cast(TEXT).fill_null("?") for key in named)),
            known=there.then("known"),
            in_turn=there.then((pl.col("turn") == pl.col("update")).fill_null(False)),
            finite=pl.col("advantage").is_finite(),
        )
    )  # fmt: skip
    return Suite(rows, [
        *_identity(["train"]),
        *between(1, 1, "occurrences"),
        true("in_turn", "the rollouts of an update are as many as its batch, and numbered on from update to update"),
        true("known", "a sample of the download table"),
        *not_null("response", "parsed", "reward", "confidence", "advantage", "tokens"),
        *between(0, 1, "reward", *components),
        *between(0, 1, "confidence", above=True),
        true("finite", "the advantage is a finite number"),
        *between(1, params.policy.max_new_tokens, "tokens"),
        true("parsed", "the response parses", 1 - params.checks.cgpo_parse_failures),
    ])  # fmt: skip


def masks(table: pl.DataFrame, samples: pl.DataFrame, params: Params) -> Suite:
    """One prediction for every sample of the split and every model, at the size of the ground truth."""
    names = model_names(params.masks.models)
    final = next((name for name in reversed(names) if name in TRAINED), "")
    served = [entry.name for entry in params.masks.models if not isinstance(entry, str) and entry.endpoint]
    truth = samples.select("sample_id", true_names="names", true_height="height", true_width="width")
    there = pl.when(pl.col("occurrences") > 0)
    wanted = samples.filter(pl.col("split") == params.masks.split).select(IDENTITY)
    wanted = wanted.join(pl.DataFrame({"model": model_names(params.masks.models)}), how="cross")
    rows = (
        _expected(wanted, table, "sample_id", "model")
        .join(truth, on="sample_id", how="left")
        .select(
            *IDENTITY, "model", "occurrences", "response", "reward", "token_probability",
            id=pl.format("{}: {}", "model", "sample_id"),
            named=there.then(pl.col("names").eq_missing(pl.col("true_names"))),
            sized=there.then(
                pl.col("height").eq_missing(pl.col("true_height")) & pl.col("width").eq_missing(pl.col("true_width"))
            ),
            parsed="parsed",
            # The base has never seen a tag and SFT is on its way: only the last model trained is held to the form.
            final_parsed=pl.when(pl.col("model") == final).then("parsed"),
            # A server does not say how sure it was.
            sure=pl.col("token_probability").is_not_null() | pl.col("model").is_in(served),
        )
    )  # fmt: skip
    return Suite(rows, [
        *_identity([params.masks.split]),
        one_of("model", model_names(params.masks.models)),
        *between(1, 1, "occurrences"),
        *not_null("response", "reward", "parsed"),
        true("sure", "a token probability, unless a server has answered"),
        *between(0, 1, "reward"),
        *between(0, 1, "token_probability", above=True),
        true("named", "one map an image, under the image's name"),
        true("sized", "as large as the ground truth"),
        true("final_parsed", "the response of the final model parses", 1 - params.checks.masks_parse_failures),
    ])  # fmt: skip


def metrics(table: pl.DataFrame, samples: pl.DataFrame, params: Params) -> Suite:
    """Every prediction is scored once, with the measures of its task."""
    wanted = samples.filter(pl.col("split") == params.masks.split).select(*IDENTITY, "names", "height", "width")
    most_e = _most_e(wanted)
    wanted = wanted.drop("height", "width").explode("names").rename({"names": "name"})
    wanted = wanted.join(pl.DataFrame({"model": model_names(params.masks.models)}), how="cross")
    per_task = pl.when(pl.col("task") == "sis")
    instances, saliency = pl.col("instances", "detections"), pl.col(MEASURES)
    rows = _expected(wanted, table, "sample_id", "model", "name").select(
        *IDENTITY, "model", "name", "occurrences", *MEASURES, "instances", "detections",
        id=pl.format("{}: {} ({})", "model", "sample_id", "name"),
        complete=per_task.then(pl.all_horizontal(instances.is_not_null())).otherwise(
            pl.all_horizontal(saliency.is_not_null())
        ),
    )  # fmt: skip
    return Suite(rows, [
        *_identity([params.masks.split]),
        one_of("model", model_names(params.masks.models)),
        *between(1, 1, "occurrences"),
        *between(0, 1, *(measure for measure in MEASURES if not measure.endswith("Em"))),
        *between(0, most_e, *(measure for measure in MEASURES if measure.endswith("Em"))),
        *between(0, None, "instances", "detections"),
        true("complete", "the measures of its task are there"),
    ])  # fmt: skip


SUITES: dict[str, Callable[[pl.DataFrame, pl.DataFrame, Params], Suite]] = {
    "download": download,
    "annotate": annotate,
    "sft": sft,
    "cgpo": cgpo,
    "masks": masks,
    "metrics": metrics,
}


def remedy(stage: str, columns: Collection[str], params: Params) -> str:
    """What helps where expectations about these columns fail; "" where the complaint says it all."""
    if stage != "annotate" or not {"kept", "kept_consistency"} & set(columns):
        return ""
    ways = [
        f"accept less: annotate.threshold ({params.annotate.threshold:g}) with checks.consistency "
        f"({params.checks.consistency:g}), checks.kept_share ({params.checks.kept_share:g})",
        f"more attempts: annotate.attempts ({params.annotate.attempts})",
    ]
    if params.annotate.annotator != "offline":
        ways.append(f"a better model than annotate.model = {params.annotate.model}")
    else:
        if params.annotate.vagueness:
            ways.insert(0, f"say what an object is: annotate.vagueness: 0 ({params.annotate.vagueness:g} now)")
        ways.insert(
            0,
            "annotate.annotator: openai (a server) or local (in this process): the offline annotator knows no more "
            "than what the data set says of its objects, which of plain photographs is colour and place",
        )
    return "Too few expressions find their object again. `saliency-r1 annotations` shows them. What helps:" + "".join(
        f"\n  - {way}" for way in ways
    )


def _identity(splits: tuple[str, ...] | list[str]) -> list[Expectation]:
    """What holds in every table: the four columns that say which sample a row is about."""
    return [*not_null(*IDENTITY), one_of("task", TASKS), one_of("split", splits)]


def _filled(name: str) -> pl.Expr:
    """Whether a column of lists has one in this row, without a null in it."""
    return (pl.col(name).list.drop_nulls().list.len() == pl.col(name).list.len()).fill_null(False)


def _known(samples: pl.DataFrame) -> pl.Expr:
    """Whether the row's sample stands in the download table, under this task, data set and split.

    The split that a table names itself is no proof: a test sample labelled as training would be trained on.
    """
    whole = pl.concat_str(IDENTITY, separator="\n")
    return whole.is_in(samples.select(whole).to_series().to_list())


def _expected(wanted: pl.DataFrame, table: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """The rows that are wanted and those that are there, joined; `occurrences` is how often a key is in the table.

    A wanted row that is missing has 0 occurrences, a double one 2. A row nobody asked for keeps nulls where its task
    and split would stand, and so does one under another task, data set or split than the download's: a validation
    sample called one of training would train. Each of them is then an unexpected value with an id.
    """
    counted = table.with_columns(occurrences=pl.len().over(keys))
    same = [*keys, *(column for column in IDENTITY if column not in keys)]
    joined = wanted.join(counted, on=same, how="full", maintain_order="left_right")
    return joined.with_columns(
        *(pl.coalesce(key, f"{key}_right").alias(key) for key in keys), pl.col("occurrences").fill_null(0)
    )


def _most_e(samples: pl.DataFrame) -> float:
    """The largest E-measure of these pictures, at least `E_MOST`.

    It is divided by pixels - 1, as in PySODMetrics, so that a perfect map of N pixels scores N / (N - 1).
    """
    sizes = samples.select(pl.col("height").list.min() * pl.col("width").list.min()).to_series().drop_nulls()
    pixels = max(2, min(sizes.to_list(), default=2))
    return max(E_MOST, math.ceil(10_000 * pixels / (pixels - 1)) / 10_000)


def _described(row: dict[str, Any]) -> bool:
    """Whether `meta` is what the sample table says it is (`data/table.py`)."""
    try:
        meta = json.loads(row["meta"] or "")
    except ValueError:
        return False
    objects = meta.get("objects", [[]] * len(row["images"] or ())) if isinstance(meta, dict) else None
    return (
        isinstance(objects, list)
        and len(objects) == len(row["images"] or ())
        and all(isinstance(one, list) and all(isinstance(item, dict) for item in one) for one in objects)
    )


def _parses(row: dict[str, object]) -> bool:
    """Whether a response parses for its task and number of images; of a row nobody asked for there is no task."""
    return row["task"] is not None and cot.parse(str(row["response"]), str(row["task"]), int(str(row["images"]))).ok
