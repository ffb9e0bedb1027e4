"""From prompts to scored responses: generate, parse, segment, predict, reward; for training and evaluation alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from saliency_r1 import cot, tasks
from saliency_r1.data.errors import DataError
from saliency_r1.data.samples import read_images, read_masks
from saliency_r1.params import Params
from saliency_r1.policy import Policy, Prompt, Response
from saliency_r1.rollout.batches import buckets
from saliency_r1.rollout.grounding import Answered, ground
from saliency_r1.segmenter import Segmenter
from saliency_r1.segmenter import load as load_segmenter

Row = Mapping[str, Any]
PROMPT_CACHE = 1 << 28  # bytes of encoded prompts kept in memory: the last ones used; others are encoded again


@dataclass(frozen=True)
class Rollout:
    """One response to one sample with everything that follows from it."""

    row: Row
    response: Response
    parsed: cot.Parsed
    prediction: tasks.Prediction
    reward: tasks.Reward
    objects: int  # of the ground truth: instances (SIS), images in which something stands out (SOD, CoSOD)

    def record(self) -> dict[str, Any]:
        """The columns that every table of responses has."""
        return {
            **{key: self.row[key] for key in ("sample_id", "task", "dataset", "split")},
            "response": self.response.text,
            "parsed": self.parsed.ok,
            "reward": self.reward.value,
        }


@dataclass
class Seconds:
    """Where the time of a batch of rollouts went."""

    generate: float = 0.0
    segment: float = 0.0
    reward: float = 0.0


@dataclass
class Environment:
    """What answers are tried in: the segmenter, the samples' folder and the reward's weights for each task."""

    segmenter: Segmenter
    folder: Path
    weights: Mapping[str, Mapping[str, float]]
    max_new_tokens: int
    batch_size: int
    seconds: Seconds = field(default_factory=Seconds)
    _prompts: dict[str, Prompt] = field(default_factory=dict)
    _room: int = PROMPT_CACHE

    @classmethod
    def load(cls, params: Params, folder: Path, device: torch.device, dtype: torch.dtype) -> Environment:
        """The environment of the stages, from the folder of the stage download."""
        return cls(
            load_segmenter(folder / "models/segmenter", device, dtype, **params.segmenter.model_dump()),
            folder,
            params.rewards.model_dump(),
            params.policy.max_new_tokens,
            params.policy.batch_size,
        )

    def check(self, rows: Sequence[Row]) -> None:
        """Raise `DataError` for samples whose images or masks are gone, before any work is spent on the others."""
        gone = [(row["sample_id"], name) for row in rows for name in (*row["images"], *row["masks"])
                if not (self.folder / name).is_file()]  # fmt: skip
        if gone:
            names = ", ".join(f"{sample_id} ({name})" for sample_id, name in gone[:10])
            raise DataError(
                f"{len(gone)} files of the training samples are not in {self.folder}: {names}. "
                "`dvc checkout` puts them back, `dvc repro -f download` imports them again"
            )

    def prompts(self, policy: Policy, rows: Sequence[Row]) -> list[Prompt]:
        """The encoded prompts of rows of the sample table; all policies of a run share one processor."""
        return [self._prompt(policy, row) for row in rows]

    def _prompt(self, policy: Policy, row: Row) -> Prompt:
        """Kept or encoded. All of a small data set fit, epoch after epoch; of a large one those of the update at hand,
        which a group of answers, or a sampled and a greedy one, ask for more than once."""
        prompt = self._prompts.pop(row["sample_id"], None)
        if prompt is None:
            prompt = policy.prompt(read_images(row, self.folder), tasks.get(row["task"]).instruction)
            self._room -= prompt.nbytes
        self._prompts[row["sample_id"]] = prompt  # behind all others
        while self._room < 0:
            self._room += self._prompts.pop(next(iter(self._prompts))).nbytes
        return prompt

    def respond(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        seeds: Sequence[int] | None = None,
        temperature: float = 1.0,
    ) -> list[Response]:
        """One response a prompt, in order, greedy or sampled; prompts of like length are generated together."""
        start = time.perf_counter()
        responses: dict[int, Response] = {}
        for positions in buckets([len(prompt.input_ids) for prompt in prompts], self.batch_size):
            batch = [prompts[position] for position in positions]
            own = None if seeds is None else [seeds[position] for position in positions]
            responses.update(zip(positions, policy.generate(batch, self.max_new_tokens, own, temperature)))
        self.seconds.generate += time.perf_counter() - start
        return [responses[position] for position in range(len(prompts))]

    def score(self, rows: Sequence[Row], responses: Sequence[Response]) -> list[Rollout]:
        """Parse, segment and predict (`grounding.ground`), then reward.

        A failure of the segmenter raises: it never turns into a reward of 0.
        """
        start = time.perf_counter()
        truths = [tasks.get(row["task"]).truth(read_masks(row, self.folder)) for row in rows]
        answers = [
            Answered(
                response.text, tasks.get(row["task"]), truth.sizes, partial(read_images, row, self.folder),
                row["sample_id"],
            )
            for row, response, truth in zip(rows, responses, truths, strict=True)
        ]  # fmt: skip
        grounded = ground(self.segmenter, answers, self.batch_size)
        segmented = time.perf_counter()
        rollouts = []
        for row, response, truth, (parsed, prediction) in zip(rows, responses, truths, grounded, strict=True):
            task = tasks.get(row["task"])
            reward = task.reward(parsed, prediction, truth, self.weights[task.name])
            rollouts.append(Rollout(row, response, parsed, prediction, reward, truth.objects))
        self.seconds.segment += segmented - start
        self.seconds.reward += time.perf_counter() - segmented
        return rollouts

    def greedy(self, policy: Policy, rows: Sequence[Row]) -> list[Rollout]:
        """Greedy responses to rows, scored."""
        return self.score(rows, self.respond(policy, self.prompts(policy, rows)))
