"""Pretraining batches of the tiny base policy, out of the pool of rendered scenes; each a function of its step."""

from __future__ import annotations

from copy import copy
from typing import Any

import language
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tower import TOKEN, grid
from world.pool import Pool
from world.scenes import SIZES, TONES, World

from saliency_r1.annotation.attributes import NAMED_COLOURS
from saliency_r1.policy import Policy, Prompt

Batch = dict[str, Tensor]


def attributes(world: World) -> tuple[tuple[str, ...], ...]:
    """The words for an object's name ("" is the background), colour, size and tone."""
    return world.words(), ("", *NAMED_COLOURS), SIZES, TONES


class Material:
    """Batches of pictures alone, and of pictures with what is said of them; those of a batch have one size."""

    def __init__(self, policy: Policy, world: World, pool: Pool, options: dict[str, Any]) -> None:
        self.policy = copy(policy)
        self.policy.device = torch.device("cpu")  # where batches are made; the model stays where it is
        self.pool, self.options, self.nouns = pool, options, language.nouns(world)
        self.values = _values(pool, attributes(world))
        sizes, which = np.unique(pool.sizes, axis=0, return_inverse=True)
        self.of_size = [np.nonzero(which == number)[0] for number in range(len(sizes))]
        self.shares = np.array([len(group) for group in self.of_size]) / len(pool)
        self.names = world.names
        self.shown = [frozenset(item.name for item in objects) & set(self.names) for objects in pool.objects]
        self.showing = [
            {name: [i for i in group if name in self.shown[i]] for name in self.names} for group in self.of_size
        ]

    def _size(self, rng: np.random.Generator) -> int:
        """The number of a size, drawn so that all pictures are equally likely."""
        return int(rng.choice(len(self.of_size), p=self.shares))

    def _pictures(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Numbers of pictures of one size, all pictures being equally likely."""
        return np.asarray(rng.choice(self.of_size[self._size(rng)], count))

    def _shown(self, chosen: NDArray[np.int64]) -> Batch:
        """Pictures, their maps and the attributes of their objects."""
        return {
            "images": torch.from_numpy(np.stack([self.pool.image(index) for index in chosen])),
            "ids": torch.from_numpy(np.stack([self.pool.ids(index) for index in chosen])),
            "values": self.values[torch.from_numpy(chosen)],
        }

    def views(self, step: int) -> Batch:
        """`look_batch` pictures."""
        rng = np.random.default_rng((self.options["seed"], step, 1))
        return self._shown(self._pictures(rng, self.options["look_batch"]))

    def batch(self, step: int) -> Batch:
        """Examples of one style with their pictures, if any: input ids, mask, places and labels, rows x length.

        `said` numbers the positions, of rows x (length - 1), whose next token is said: to count them on an accelerator
        is to wait for it.
        """
        rng = np.random.default_rng((self.options["seed"], step))
        shares = self.options["shares"]
        style = str(rng.choice(list(shares), p=list(shares.values())))
        count = {"one": 1, "many": int(rng.integers(2, 4)), "compare": int(rng.integers(2, 5)), "repeat": 0}[style]
        rows = self.options["batch_size"] // max(1, count)
        if style == "compare":
            groups, shared = self._alike(rng, rows, count)
            chosen = groups.flatten()
            pairs = [self._compared(rng, own, name) for own, name in zip(groups, shared)]
        else:
            chosen = self._pictures(rng, rows * count) if count else np.zeros(0, np.int64)
            pairs = [self._example(rng, own) for own in chosen.reshape(rows, count)]
        batch = self.policy.collate(*zip(*pairs))
        size = tuple(self.pool.sizes[chosen[0]]) if count else (0, 0)
        batch["said"] = (batch["labels"][:, 1:] != -100).flatten().nonzero()[:, 0]
        batch["position_ids"] = self._places(batch, grid(count, *size))
        return batch | (self._shown(chosen) if count else {})

    def _alike(self, rng: np.random.Generator, rows: int, count: int) -> tuple[NDArray[np.int64], list[str]]:
        """Rows of pictures of one size that share things of one name and of no other, rows x count, and the names.

        Raises `ValueError` where no name is shown by so many pictures.
        """
        showing = self.showing[self._size(rng)]
        names = [name for name, pictures in showing.items() if len(pictures) >= count]
        if not names:
            raise ValueError(f"the pool has no {count} pictures of one size that show the same; render more")
        groups: list[NDArray[np.int64]] = []
        shared: list[str] = []
        while len(groups) < rows:
            name = names[rng.integers(len(names))]
            group = rng.choice(showing[name], count, replace=False)
            if frozenset.intersection(*(self.shown[i] for i in group)) == {name}:
                groups.append(group)
                shared.append(name)
        return np.stack(groups), shared

    def _compared(self, rng: np.random.Generator, chosen: NDArray[np.int64], shared: str) -> tuple[Prompt, list[int]]:
        """Prompt and response ids of a comparison; what is given of the answer belongs to the prompt."""
        groups = [list(self.pool.objects[i]) for i in chosen]
        question, given, answer = language.comparison(groups, shared, self.names, rng)
        return self._asked(chosen, question, given), self.policy.response_ids(f" {answer}" if given else answer)

    def _example(self, rng: np.random.Generator, chosen: NDArray[np.int64]) -> tuple[Prompt, list[int]]:
        """Prompt, without its pictures, and response ids about some pictures; of none: a repetition."""
        if len(chosen):
            question, answer = language.description([list(self.pool.objects[i]) for i in chosen], rng)
        else:
            question, answer = language.repetition(rng, self.nouns)
        return self._asked(chosen, question), self.policy.response_ids(answer)

    def _asked(self, chosen: NDArray[np.int64], question: str, given: str = "") -> Prompt:
        """Prompt of pictures and a question, without the pictures, and what is given of the answer."""
        tokens = [int(self.pool.sizes[i].prod()) // TOKEN**2 for i in chosen]
        pads = ["<|vision_start|>" + "<|image_pad|>" * count + "<|vision_end|>" for count in tokens]
        text = f"<|im_start|>user\n{''.join(pads)}{question}<|im_end|>\n<|im_start|>assistant\n{given}"
        return Prompt(torch.tensor(self.policy.tokenizer(text).input_ids), {})

    def _places(self, batch: Batch, cells: Tensor) -> Tensor:
        """Positions 3 x rows x length: those of the longest row for all, whose pictures stand where its own do."""
        rows, length = batch["input_ids"].shape
        if not len(cells):
            return torch.arange(length).expand(3, rows, length)
        longest = int(batch["attention_mask"].sum(1).argmax())
        ids, kinds = (batch[name][longest][None] for name in ("input_ids", "mm_token_type_ids"))
        return self.policy.model.model.get_rope_index(ids, kinds, cells)[0].expand(3, rows, length)


def _values(pool: Pool, words: tuple[tuple[str, ...], ...]) -> Tensor:
    """Of every picture a row of attribute indices an object, pictures x (1 + objects) x 4; the first: background."""
    index = [{word: number for number, word in enumerate(column)} for column in words]
    most = max(len(objects) for objects in pool.objects)
    values = np.full((len(pool), 1 + most, len(words)), -100)
    values[:, 0, 0] = 0
    for row, objects in zip(values, pool.objects):
        for item in objects:
            said = (item.name, item.colour, item.size, item.tone)
            row[item.id] = [numbers[word] for numbers, word in zip(index, said)]
    return torch.from_numpy(values)
