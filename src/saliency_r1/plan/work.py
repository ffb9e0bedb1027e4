"""What a run asks of a machine: prompts, tokens, hours, disk.

How many samples there are is what the catalogue states; a data set whose count it does not state is named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saliency_r1.params import Params
from saliency_r1.plan.memory import FLOAT32, trained_copies
from saliency_r1.plan.prompts import prompt_size
from saliency_r1.plan.shapes import PolicyShape, SegmenterShape

if TYPE_CHECKING:
    from saliency_r1.data.catalogue import Catalogue

CHECKPOINTS = 2  # that training keeps, the newest ones


@dataclass(frozen=True)
class Samples:
    """Prompts by (split, task) and images by split, the data sets of which the catalogue states no number, and how
    many samples are annotated.
    """

    prompts: Mapping[tuple[str, str], int]
    images: Mapping[str, int]
    unknown: tuple[str, ...] = ()
    annotated: int = 0

    def of(self, *splits: str) -> int:
        """Prompts of some splits, all tasks."""
        return sum(count for (split, _), count in self.prompts.items() if split in splits)


@dataclass(frozen=True)
class Stage:
    """The work of one stage: prompts that are answered, tokens that are generated, tokens that are trained on.

    `read` are tokens of forward passes alone. Answers of a server count as prompts, without tokens.
    """

    name: str
    prompts: int
    generated: int = 0
    trained: int = 0
    read: int = 0


@dataclass(frozen=True)
class Speed:
    """Tokens a second of one device: generated, and trained on (forward and backward); None where nobody knows."""

    generate: float | None = None
    train: float | None = None


@dataclass(frozen=True)
class Pictures:
    """The usual size of an image, in pixels, and of stored images and maps, in bytes."""

    width: int = 640
    height: int = 426
    stored: int = 100_000
    map: int = 20_000


def count_samples(params: Params, catalogue: Catalogue) -> Samples:
    """The samples of `download.datasets` as the catalogue counts them."""
    prompts: dict[tuple[str, str], int] = {}
    images: dict[str, int] = {}
    unknown = []
    annotated = 0
    limit = params.download.limit or math.inf
    for dataset, split in catalogue.select(params.download.datasets):
        count = max(dataset.splits[split].count, default=0)
        if not count:
            unknown.append(f"{dataset.name}/{split}")
            continue
        chunk = params.download.cosod_chunk if dataset.task == "cosod" else 1
        number = int(min(limit, -(-count // chunk)))
        key = (split, dataset.task)
        prompts[key] = prompts.get(key, 0) + number
        images[split] = images.get(split, 0) + min(count, number * chunk)
        if split in params.annotate.splits:
            annotated += min(number, params.annotate.limit or number)  # the limit is of each data set and split
    return Samples(prompts, images, tuple(unknown), annotated)


def stages(params: Params, samples: Samples, prompt_tokens: int, answer: int, gpus: int) -> list[Stage]:
    """The work of every stage that asks a model; `answer` are the tokens of an answer."""
    row = prompt_tokens + answer
    cgpo, sft = params.cgpo, params.sft
    validated = min(sft.evaluate_samples, samples.of("val") or sft.evaluate_samples)
    regularising = cgpo.updates // cgpo.isr.every * cgpo.isr.batch_size if cgpo.isr.every else 0
    rollouts = cgpo.updates * cgpo.batch_size
    # Confidences are needed before the first step: more responses than a micro-batch are passed over twice.
    twice = cgpo.micro_batch < -(-cgpo.batch_size // gpus)
    looks = cgpo.updates // cgpo.drift_every if cgpo.drift_every else 0
    compared = rollouts if cgpo.kl else looks * cgpo.batch_size
    asked = samples.of(params.masks.split)
    here = sum(isinstance(model, str) or model.endpoint is None for model in params.masks.models)  # by no server
    greedy = 2 if cgpo.algorithm == "remax" else 1  # beside each sampled answer a greedy one
    return [
        Stage("annotate", samples.annotated),
        Stage("sft", sft.steps * sft.batch_size, validated * answer, sft.steps * sft.batch_size * row),
        Stage(
            "cgpo",
            rollouts // cgpo.group_size,
            rollouts * answer * greedy,
            (rollouts * cgpo.epochs + regularising) * row,
            (rollouts * row if twice else 0) + compared * row,
        ),
        Stage("masks", asked * len(params.masks.models), asked * here * answer),
    ]


def mean_prompt(samples: Samples, params: Params, tokens_each: int) -> int:
    """Tokens of the average training prompt; of one image where nothing is known of the samples."""
    sizes = {
        task: prompt_size(task, params.download.cosod_chunk if task == "cosod" else 1, tokens_each).tokens
        for task in ("sod", "sis", "cosod")
    }
    counts = {task: count for (split, task), count in samples.prompts.items() if split == "train"}
    if not counts:
        return sizes["sod"]
    return round(sum(sizes[task] * count for task, count in counts.items()) / sum(counts.values()))


def hours(stage: Stage, speed: Speed, gpus: int) -> float | None:
    """Hours of a stage on so many devices; None where a speed that it needs is not given.

    A pass without a gradient costs a third of one with it.
    """
    if (stage.generated and speed.generate is None) or (stage.trained and speed.train is None):
        return None
    seconds = stage.generated / speed.generate if speed.generate else 0.0
    if speed.train:
        seconds += (stage.trained + stage.read / 3) / speed.train
    return seconds / 3600 / gpus


def disk(
    params: Params, policy: PolicyShape, segmenter: SegmenterShape, samples: Samples, pictures: Pictures
) -> dict[str, float]:
    """Bytes by what they are for, each counted once; DVC's cache keeps a second copy of all but the checkpoints."""
    copies = {name: number for name, number, _ in trained_copies(params, policy.shared)}
    kept = 1 + copies["trained, moments"] + copies["trained, running average"]
    tests = samples.images.get(params.masks.split, 0)
    return {
        "models": 2.0 * (policy.parameters + segmenter.parameters),
        "images and masks": float(sum(samples.images.values()) * (pictures.stored + pictures.map)),
        "adapters": 2.0 * FLOAT32 * policy.trained,
        "maps": float(tests * len(params.masks.models) * pictures.map),
        "checkpoints": float(CHECKPOINTS * kept * FLOAT32 * policy.trained),
    }
