"""Agreement of expressions and ground truth, measured with the segmenter and not hoped for.

Every expression goes through the frozen segmenter. A sample whose expressions do not find their masks again is written
anew, more plainly each time; after `attempts` tries the best version is kept if it passes the threshold, else the
sample is set aside (`kept = False`), counted and gated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saliency_r1 import cot, tasks
from saliency_r1.annotation.attributes import objects_of
from saliency_r1.annotation.interface import Annotator, Proposal, Subject, Try
from saliency_r1.data.samples import read_images, read_masks
from saliency_r1.metrics.saliency import iou
from saliency_r1.tasks.instances import pairwise_iou
from saliency_r1.tasks.saliency import AS_PREDICTED

if TYPE_CHECKING:
    import polars as pl

    from saliency_r1.segmenter import Encoded, Segment, Segmenter


@dataclass(frozen=True)
class Annotation:
    """One sample's annotated response.

    `objects` is the number of its instances (SIS) or of its images in which something stands out; where it is 0 there
    is nothing to be named. `consistency` is the mean of `agreement`, in [0, 1].
    """

    sample_id: str
    objects: int
    response: str
    expressions: tuple[str, ...]
    consistency: float
    attempts: int
    kept: bool


@dataclass
class _Draft:
    """A sample on its way: what is known about it, the best version so far, what was wrong with the last one."""

    subject: Subject
    encoded: list[Encoded]
    best: Annotation
    feedback: str = ""


def annotate(
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    annotator: Annotator,
    segmenter: Segmenter,
    threshold: float,
    attempts: int,
    seed: int,
    batch_size: int,
) -> Iterator[Annotation]:
    """Annotate rows of the sample table (paths relative to `folder`), `batch_size` samples at a time, in order.

    The seed of a sample's wording depends on (seed, its id, the attempt) alone, so neither order nor batch size
    changes it. Raises what the annotator raises when it cannot go on.
    """
    for start in range(0, len(rows), batch_size):
        drafts = _prepare(rows[start : start + batch_size], folder, segmenter)
        for attempt in range(attempts):
            unsettled = [draft for draft in drafts if not draft.best.response or draft.best.consistency < threshold]
            tries = [_try(draft, attempt, attempts, seed) for draft in unsettled]
            if tries:
                _consider(unsettled, annotator.write(tries), segmenter, threshold)
        for draft in drafts:
            kept = bool(draft.best.response) and draft.best.consistency >= threshold
            yield replace(draft.best, kept=kept)


def tabulate(samples: pl.DataFrame, annotations: Iterable[Annotation]) -> pl.DataFrame:
    """The annotations table: one row for each sample, which must have one annotation."""
    import polars as pl

    identity = samples.select("sample_id", "task", "dataset", "split").with_columns(
        instruction=pl.col("task").replace_strict({name: task.instruction for name, task in tasks.TASKS.items()})
    )
    written = pl.DataFrame([asdict(one) for one in annotations])
    return identity.join(written, on="sample_id", how="left", maintain_order="left", validate="1:1")


def read_parts(parts: Sequence[Path]) -> Iterator[Annotation]:
    """The annotations that folders hold as `annotations.json`, in order."""
    for part in parts:
        for entry in json.loads((part / "annotations.json").read_text(encoding="utf-8")):
            yield Annotation(**entry | {"expressions": tuple(entry["expressions"])})


def _prepare(rows: Sequence[Mapping[str, Any]], folder: Path, segmenter: Segmenter) -> list[_Draft]:
    """Read images and ground truth of a batch and encode each image once."""
    images: list[list[Image.Image]] = [read_images(row, folder) for row in rows]
    encoded = iter(segmenter.encode([image for group in images for image in group]))
    drafts = []
    for row, group in zip(rows, images):
        subject = subject_of(row, folder, group)
        nothing = Annotation(row["sample_id"], subject.truth.objects, "", (), 0.0, 0, False)
        drafts.append(_Draft(subject, [next(encoded) for _ in group], nothing))
    return drafts


def subject_of(row: Mapping[str, Any], folder: Path, images: Sequence[Image.Image]) -> Subject:
    """A row of the sample table (paths relative to `folder`) with its images, as annotators see it."""
    truth = tasks.get(row["task"]).truth(read_masks(row, folder))
    objects = objects_of(row["meta"], images, _regions(truth), row["group"])
    return Subject(row["sample_id"], row["task"], images, truth, objects)


def _regions(truth: tasks.Truth) -> list[dict[int, NDArray[np.bool_]]]:
    """For each image its regions by id: the instances of an instance map, or the one salient region."""
    if isinstance(truth, tasks.InstanceTruth):
        return [dict(zip(truth.numbers, truth.masks))]
    return [{1: mask} for mask in truth.masks]


def _try(draft: _Draft, attempt: int, attempts: int, seed: int) -> Try:
    own = (seed, crc32(draft.subject.sample_id.encode()), attempt)
    return Try(draft.subject, attempt, attempts, own, draft.feedback)


def _consider(drafts: Sequence[_Draft], proposals: Sequence[Proposal], segmenter: Segmenter, threshold: float) -> None:
    """Segment the expressions of all proposals in one call and keep what is better than before."""
    encoded = [draft.encoded[e.image] for draft, said in zip(drafts, proposals) for e in said.spoken]
    phrases = [[e.text] for said in proposals for e in said.spoken]
    segments = iter([found[0] for found in segmenter.segment(encoded, phrases)] if phrases else [])
    for draft, said in zip(drafts, proposals):
        draft.best = replace(draft.best, attempts=draft.best.attempts + 1)
        mine = [next(segments) for _ in said.spoken]
        if said.fault or (not said.spoken and draft.best.objects):
            draft.feedback = said.fault or "There was no expression."
            continue
        subject = draft.subject
        ious = agreement(subject.task, subject.objects, said.spoken, mine, subject.truth)
        draft.feedback = _feedback(said.expressions, ious, threshold)
        if not draft.best.response or np.mean(ious) > draft.best.consistency:
            draft.best = replace(
                draft.best,
                response=cot.render(said.reasoning, said.expressions),
                expressions=tuple(e.text for e in said.spoken),
                consistency=float(np.mean(ious)),
            )


def _feedback(expressions: Sequence[cot.Expression], ious: Sequence[float], threshold: float) -> str:
    """What a segmenter made of expressions that it did not understand, in words for the next attempt.

    Instances have an IoU for each expression, other tasks one for each image.
    """
    if len(ious) == len(expressions):
        weak = [(f"{e.text!r}", iou) for e, iou in zip(expressions, ious) if iou < threshold]
    else:
        weak = [("the expressions together", iou) for iou in ious if iou < threshold]
    return " ".join(f"A segmenter given {what} found a region with an overlap of {iou:.2f} only." for what, iou in weak)


def agreement(
    task: str,
    objects: Sequence[Sequence[Mapping[str, Any]]],
    expressions: Sequence[cot.Expression],
    segments: Sequence[Segment],
    truth: tasks.Truth,
) -> list[float]:
    """IoU of what the expressions find with what they should: by instance (SIS), else by image (regions united).

    An instance's expression that prefers another instance counts 0. Where nothing stands out, to find nothing is 1.
    """
    if isinstance(truth, tasks.InstanceTruth):
        if not truth.objects:
            return [0.0 for _ in expressions] or [1.0]
        ious = pairwise_iou([segment.mask for segment in segments], truth.masks)
        ids = [item["id"] for item in objects[0] if item["salient"]]
        order = {value: column for column, value in enumerate(truth.numbers)}
        columns = [order[value] for value in ids]
        return [float(row[column]) if row.argmax() == column else 0.0 for row, column in zip(ious, columns)]
    prediction = tasks.get(task).predict(cot.Parsed("", tuple(expressions), ()), segments, truth.sizes)
    return [float(value) for value in iou(prediction.masks, truth.masks, AS_PREDICTED)]
