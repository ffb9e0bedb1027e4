"""From answers to numbers: grounded by the segmenter of the stage masks, scored by the evaluation of the stage metrics.

Maps are kept part by part under a hash of what decides them, so that a killed run goes on, and what two rows of a table
have in common, such as floors, is computed once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saliency_r1.benchmark.answers import Said
from saliency_r1.benchmark.errors import BenchmarkError
from saliency_r1.benchmark.prompts import Row
from saliency_r1.cot import parse
from saliency_r1.evaluation.detections import read_predictions
from saliency_r1.evaluation.folders import find_maps, match, predicted, score_files
from saliency_r1.evaluation.scores import Scores, finite, of_instances, of_maps
from saliency_r1.evaluation.split import REPLICATES, ModelOnDataset, score
from saliency_r1.metrics.instances import as_regions
from saliency_r1.metrics.truth import MeasureError
from saliency_r1.policy import Response
from saliency_r1.prediction.split import ScoredAnswer, assemble, write_part
from saliency_r1.rollout.environment import Environment
from saliency_r1.runtime.files import atomic_folder
from saliency_r1.runtime.keys import run_key
from saliency_r1.runtime.parts import Parts
from saliency_r1.runtime.stage import progress

_MODEL = "answers"  # the name of the folder of maps, whoever has answered
DIGITS = 6


def key_of(environment: Environment, settings: Mapping[str, Any]) -> str:
    """A hash of what decides maps beside the answers: parameters, samples, the size of a part, the segmenter's files.

    The files of a segmenter are large: one asks once, and not for every data set.
    """
    folder = environment.folder
    inputs = [folder / "report.json", folder / "table.parquet", folder / "models/segmenter"]
    return run_key({**settings, "batch_size": environment.batch_size}, inputs)


def ground(rows: Sequence[Row], texts: Sequence[str], environment: Environment, kept: Path, key: str) -> list[Path]:
    """The parts that hold the maps and instances of some answers, one text a row; those that are there stay.

    `key` is that of `key_of`.
    """
    said = [[row["sample_id"], text] for row, text in zip(rows, texts, strict=True)]
    digest = hashlib.sha256(json.dumps([said, key]).encode()).hexdigest()[:16]
    size = environment.batch_size
    parts = Parts(kept / digest, len(rows), size)
    for number in progress(parts.missing(), label=f"masks, {size} answers each"):
        with parts.writing(number) as folder:
            responses = [Response(text, (), True) for text in parts.of(texts, number)]
            rollouts = environment.score(parts.of(rows, number), responses)
            write_part(folder, _MODEL, [ScoredAnswer(rollout, None) for rollout in rollouts], "segmenter")
    return [parts.path(number) for number in parts.numbers]


def scores(rows: Sequence[Row], download: Path, parts: Sequence[Path], out: Path) -> Scores:
    """Put the parts of one data set together in `out` and score them.

    Raises `BenchmarkError` where the parts are not those of these samples: SIS would score what is missing as nothing.
    """
    with atomic_folder(out) as folder:
        held = [answer["sample_id"] for answer in assemble(folder, parts)]
        if held != [row["sample_id"] for row in rows]:
            place = parts[0].parent if parts else "no folder"
            raise BenchmarkError(
                f"{place} holds the maps of {len(held)} answers that are not those of the {len(rows)} samples of "
                f"{rows[0]['dataset']}; remove it and run again"
            )
    first = rows[0]
    return score(ModelOnDataset(_MODEL, first["dataset"], first["task"], [dict(row) for row in rows], download, out))


def scores_of_folder(rows: Sequence[Row], download: Path, name: str, folder: Path, whole: bool) -> Scores:
    """The scores of maps (for SIS instances) that somebody else has made; `whole`: of all images of the data set.

    Raises `MeasureError`, naming the place of the maps, for one that is missing, and for a surplus one where the data
    set is whole.
    """
    dataset, task = rows[0]["dataset"], rows[0]["task"]
    place = _place(folder, name, dataset, task)
    try:
        return _scores_in(place, rows, download, whole)
    except MeasureError as error:
        raise MeasureError(f"{place} beside the {task} data set {dataset}: {error}") from None


def _scores_in(place: Path, rows: Sequence[Row], download: Path, whole: bool) -> Scores:
    from saliency_r1.data.samples import read_masks

    task = rows[0]["task"]
    if task == "sis":
        ids = {row["names"][0]: read_masks(row, download)[0] for row in rows}
        truths = {image: as_regions(map_) for image, map_ in sorted(ids.items())}
        found = read_predictions(place, truths)
        if not whole:
            found = {image: codes for image, codes in found.items() if image in truths}
        return of_instances(found, truths, REPLICATES)
    paths = {image: download / mask for row in rows for image, mask in zip(row["names"], row["masks"], strict=True)}
    matched, problems = match(find_maps(place), paths)
    if not whole:
        problems.surplus.clear()
    grouped = task == "cosod"
    settings = {"bootstrap": REPLICATES}
    return of_maps(score_files(matched, paths, problems, settings, grouped, may_be_empty=True).evaluator, grouped)


def _place(folder: Path, name: str, dataset: str, task: str) -> Path:
    """Where the maps of a data set lie: under its name, as the stage masks or `predict` writes them, or right here."""
    if not folder.is_dir():
        raise MeasureError(f"{folder} is not a folder; --maps NAME=FOLDER wants one with maps, or one with a folder of "
                           "maps for each data set")  # fmt: skip
    kind, end = ("instances", ".json") if task == "sis" else ("maps", "")
    for place in (folder / f"{dataset}{end}", folder / dataset, folder / kind / name / f"{dataset}{end}"):
        if place.exists():
            return predicted(place)
    return predicted(folder)


def summary(found: Scores) -> dict[str, Any]:
    """Measures and intervals as JSON holds them."""
    return {
        "measures": {key: round(float(value), DIGITS) for key, value in finite(found.measures).items()},
        "intervals": {key: [round(float(end), DIGITS) for end in ends] for key, ends in found.intervals.items()},
    }


def failures(rows: Sequence[Row], answers: Sequence[Said], texts: Sequence[str]) -> dict[str, int]:
    """How many answers are refused, truncated, or do not parse; `texts` are what is scored, one a row."""
    counts = {"refused": 0, "truncated": 0, "unparsed": 0}
    for row, answer, text in zip(rows, answers, texts, strict=True):
        if answer.fault:
            counts[answer.fault] += 1
        elif not parse(text, row["task"], len(row["images"])).ok:
            counts["unparsed"] += 1
    return counts
