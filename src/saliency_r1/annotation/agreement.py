"""Agreement of expressions and ground truth, measured with the segmenter and not hoped for.

Every expression goes through the frozen segmenter. A sample whose expressions do not find their masks again is written
anew, more plainly each time; after `attempts` tries the best version is kept if it passes the threshold, else the
sample is set aside (`kept = False`), counted and gated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saliency_r1 import cot, tasks
from saliency_r1.annotation.attributes import objects_of
from saliency_r1.annotation.offline import OfflineAnnotator
from saliency_r1.data.samples import read_images, read_masks
from saliency_r1.segmenter import Encoded, Segment, Segmenter
from saliency_r1.tasks.instances import pairwise_iou


@dataclass(frozen=True)
class Annotation:
    """One sample's annotated response. `consistency` is the mean IoU over its expressions, in [0, 1]."""

    sample_id: str
    response: str
    expressions: tuple[str, ...]
    consistency: float
    attempts: int
    kept: bool


@dataclass
class _Draft:
    """A sample on its way: what is known about it and the best version so far."""

    row: Mapping[str, Any]
    truth: tasks.Truth
    objects: list[list[dict[str, Any]]]
    encoded: list[Encoded]
    best: Annotation | None = None


def annotate(
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    annotator: OfflineAnnotator,
    segmenter: Segmenter,
    threshold: float,
    attempts: int,
    seed: int,
    batch_size: int,
) -> Iterator[Annotation]:
    """Annotate rows of the sample table (paths relative to `folder`), `batch_size` samples at a time, in order.

    A sample's wording depends on (seed, its id, the attempt) alone, so neither order nor batch size changes it.
    """
    for start in range(0, len(rows), batch_size):
        drafts = _prepare(rows[start : start + batch_size], folder, segmenter)
        for attempt in range(attempts):
            open_drafts = [draft for draft in drafts if draft.best is None or draft.best.consistency < threshold]
            if not open_drafts:
                break
            variety = annotator.variety * (1 - attempt / attempts)
            _attempt(open_drafts, annotator, segmenter, variety, attempt, seed)
        for draft in drafts:
            assert draft.best is not None
            kept = draft.best.consistency >= threshold
            yield Annotation(**{**vars(draft.best), "kept": kept})


def _prepare(rows: Sequence[Mapping[str, Any]], folder: Path, segmenter: Segmenter) -> list[_Draft]:
    """Read images and ground truth of a batch and encode each image once."""
    images: list[list[Image.Image]] = [read_images(row, folder) for row in rows]
    encoded = iter(segmenter.encode([image for group in images for image in group]))
    drafts = []
    for row, group in zip(rows, images):
        truth = tasks.get(row["task"]).truth(read_masks(row, folder))
        masks = [truth.masks] if row["task"] == "sis" else [[mask] for mask in truth.masks]
        drafts.append(_Draft(row, truth, objects_of(row["meta"], group, masks), [next(encoded) for _ in group]))
    return drafts


def _attempt(
    drafts: Sequence[_Draft],
    annotator: OfflineAnnotator,
    segmenter: Segmenter,
    variety: float,
    attempt: int,
    seed: int,
) -> None:
    """Write every draft once, segment all expressions in one call, keep what is better than before."""
    written = []
    for draft in drafts:
        rng = np.random.default_rng((seed, crc32(draft.row["sample_id"].encode()), attempt))
        written.append(annotator.write(draft.row["task"], draft.objects, rng, variety))
    encoded = [draft.encoded[e.image] for draft, (_, expressions) in zip(drafts, written) for e in expressions]
    phrases = [[e.text] for _, expressions in written for e in expressions]
    segments = iter(found[0] for found in segmenter.segment(encoded, phrases))
    for draft, (reasoning, expressions) in zip(drafts, written):
        mine = [next(segments) for _ in expressions]
        consistency = float(np.mean(agreement(draft.row["task"], draft.objects, expressions, mine, draft.truth)))
        if draft.best is None or consistency > draft.best.consistency:
            draft.best = Annotation(
                draft.row["sample_id"],
                cot.render(reasoning, expressions),
                tuple(e.text for e in expressions),
                consistency,
                attempt + 1,
                False,
            )
        else:
            draft.best = Annotation(**{**vars(draft.best), "attempts": attempt + 1})


def agreement(
    task: str,
    objects: Sequence[Sequence[Mapping[str, Any]]],
    expressions: Sequence[cot.Expression],
    segments: Sequence[Segment],
    truth: tasks.Truth,
) -> list[float]:
    """IoU of what the expressions find with what they should: by instance (SIS), else by image (regions united).

    An instance's expression that prefers another instance counts 0.
    """
    if isinstance(truth, tasks.InstanceTruth):
        ious = pairwise_iou([segment.mask for segment in segments], truth.masks)
        ids = [item["id"] for item in objects[0] if item["salient"]]
        order = {int(value): column for column, value in enumerate(np.unique(truth.ids[truth.ids > 0]))}
        columns = [order[value] for value in ids]
        return [float(row[column]) if row.argmax() == column else 0.0 for row, column in zip(ious, columns)]
    united: list[NDArray[np.bool_]] = [np.zeros(size, bool) for size in truth.sizes]
    for expression, segment in zip(expressions, segments):
        united[expression.image] |= segment.mask
    return [float(pairwise_iou([mask], [true])[0, 0]) for mask, true in zip(united, truth.masks)]
