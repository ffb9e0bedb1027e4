"""Scores of a data set: sums over images that merge across processes, with bootstrap intervals and paired
comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_r1.metrics.resampling import Difference, differences, draw, intervals
from saliency_r1.metrics.saliency import Pair
from saliency_r1.metrics.truth import DEFAULT, Array, Floats, MeasureError, Protocol, Truth

Average = Literal["image", "group"]
_SCALARS = ("Sm", "wFm", "MAE", "adpFm", "adpEm", "IoU", "Dice")
_CURVES = ("f", "e", "precision", "recall")
# Replicates are brought up to date so many images at a time, in one matrix product.
_BLOCK = 64


class DatasetCurves(NamedTuple):
    """Means over a data set by threshold: five float64 arrays of equal length."""

    thresholds: Floats
    precision: Floats
    recall: Floats
    F: Floats
    E: Floats


@dataclass
class _Sums:
    images: int
    values: Floats


class SaliencyEvaluator:
    """Accumulates one data set; memory does not grow with the number of images, but for one row of scalars each.

    `weighted=False` leaves out the weighted F-measure, half of the work. `bootstrap` is the number of replicates kept
    for `intervals`; each draws how often an image (with groups: a whole group) occurs from a Poisson distribution
    seeded by its name, so that replicates do not depend on order or on the division of work, and pair two evaluators
    of one data set by themselves (the Poisson bootstrap; Chamandy et al., 2012).
    """

    def __init__(
        self, protocol: Protocol = DEFAULT, *, weighted: bool = True, bootstrap: int = 0, seed: int = 0
    ) -> None:
        self.protocol, self.weighted, self.bootstrap, self.seed = protocol, weighted, bootstrap, seed
        thresholds = protocol.thresholds
        self._kept = len(_SCALARS) + 2 * thresholds  # scalars, F and E have replicates
        self._width = len(_SCALARS) + 4 * thresholds
        self._groups: dict[str | None, _Sums] = {}
        self._names: set[str] = set()
        self._rows: list[tuple[str | None, str | None, tuple[float, ...]]] = []
        self._row_keys: tuple[str, ...] = ()
        self._replicates = np.zeros((bootstrap, self._kept))
        self._weights = np.zeros(bootstrap)
        self._draws: dict[str, Array] = {}
        self._pending: list[tuple[Array, Floats]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def update(self, pred: Array, gt: Array | Truth, name: str | None = None, group: str | None = None) -> None:
        """Add one image; types and errors as in `Pair`.

        Raises MeasureError for a name that was scored before, and without a name where replicates are kept.
        """
        if name is not None and name in self._names:
            raise MeasureError(f"{name} is scored twice")
        if self.bootstrap and name is None:
            raise MeasureError("bootstrap replicates need the names of the images")
        pair = Pair(pred, gt, self.protocol)
        scores, curves = pair.scores(self.weighted), pair.curves
        vector = np.empty(self._width)
        vector[: len(_SCALARS)] = [scores.get(key, np.nan) for key in _SCALARS]
        vector[len(_SCALARS) :] = np.concatenate([getattr(curves, key) for key in _CURVES])

        sums = self._groups.setdefault(group, _Sums(0, np.zeros(self._width)))
        sums.images += 1
        sums.values += vector
        self._row_keys = tuple(scores)
        self._rows.append((name, group, tuple(scores.values())))
        if name is not None:
            self._names.add(name)
        if self.bootstrap:
            self._pending.append((self._draw(name, group), vector[: self._kept]))
            if len(self._pending) == _BLOCK:
                self._flush()

    def merge(self, other: SaliencyEvaluator) -> SaliencyEvaluator:
        """Add what another evaluator has seen, and return this one.

        Raises MeasureError if their settings differ or a name was scored by both.
        """
        if self._settings() != other._settings():
            raise MeasureError(f"evaluators differ: {self._settings()} and {other._settings()}")
        if twice := self._names & other._names:
            raise MeasureError(f"scored twice: {', '.join(sorted(twice)[:10])}")
        for group, theirs in other._groups.items():
            sums = self._groups.setdefault(group, _Sums(0, np.zeros(self._width)))
            sums.images += theirs.images
            sums.values += theirs.values
        self._names |= other._names
        self._rows += other._rows
        self._row_keys = self._row_keys or other._row_keys
        self._flush()
        other._flush()
        self._replicates += other._replicates
        self._weights += other._weights
        return self

    def compute(self, average: Average = "image") -> dict[str, float]:
        """Sm, wFm, MAE, max/mean/adaptive Fm and Em, IoU, Dice of the data set; all in [0, 1] (E up to N / (N - 1)
        of N pixels, see `Curves`), MAE the lower the better.

        `maxFm` and `maxEm` are the maximum of the mean curve; `maxFm_of_PR` is F of the mean precision and recall, the
        other thing called max F. `average="group"` gives every group the same weight. Raises MeasureError without
        images.
        """
        mean = self._mean(average)
        measures = {key: float(value) for key, value in self._measures(mean).items()}
        _, precision, recall, _, _ = self._curves(mean)
        beta2 = self.protocol.beta2
        f = (1 + beta2) * precision * recall / np.maximum(beta2 * precision + recall, np.finfo(float).tiny)
        return measures | {"maxFm_of_PR": float(f.max())}

    def curves(self, average: Average = "image") -> DatasetCurves:
        """Mean precision, recall, F and E by threshold (rising in [0, 1])."""
        return self._curves(self._mean(average))

    def rows(self) -> list[dict[str, Any]]:
        """One dict an image: `name`, `group` and the measures of `Pair.scores`."""
        return [
            {"name": name, "group": group, **dict(zip(self._row_keys, values))} for name, group, values in self._rows
        ]

    def groups(self) -> dict[str | None, dict[str, float]]:
        """The measures of every group by itself, and the number of its images as `images`."""
        return {
            group: {"images": sums.images} | {k: float(v) for k, v in self._measures(sums.values / sums.images).items()}
            for group, sums in self._groups.items()
        }

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Bootstrap interval of every measure, over images or, where there are groups, over groups.

        There is none of a single image or group, nor where all replicates of a few came out empty.
        """
        return intervals(self._replicated(), level)

    def compare(self, other: SaliencyEvaluator) -> dict[str, Difference]:
        """`other` minus this one on the same images, with paired bootstrap intervals.

        Raises MeasureError if the names differ, or settings do, or no replicates are kept.
        """
        if self._settings() != other._settings():
            raise MeasureError(f"evaluators differ: {self._settings()} and {other._settings()}")
        if apart := self._names ^ other._names:
            raise MeasureError(f"not the same images: {', '.join(sorted(apart)[:10])}")
        return differences(self.compute(), other.compute(), self._replicated(), other._replicated(), self._units)

    @property
    def _units(self) -> int:
        """How many things are drawn: groups, and images outside of any."""
        alone = self._groups.get(None)
        return len(self._groups) + (alone.images - 1 if alone else 0)

    def _settings(self) -> tuple[Any, ...]:
        return self.protocol, self.weighted, self.bootstrap, self.seed

    def _mean(self, average: Average) -> Floats:
        if not self._groups:
            raise MeasureError("no image was scored")
        if average == "group":
            return np.mean([sums.values / sums.images for sums in self._groups.values()], axis=0)
        return np.sum([sums.values for sums in self._groups.values()], axis=0) / len(self)

    def _measures(self, means: Floats) -> dict[str, Any]:
        """Measures of mean vectors (... x at least `_kept`), each of shape `...`."""
        n, thresholds = len(_SCALARS), self.protocol.thresholds
        scalars = {key: means[..., i] for i, key in enumerate(_SCALARS)}
        f, e = means[..., n : n + thresholds], means[..., n + thresholds : n + 2 * thresholds]
        measures = {
            "Sm": scalars["Sm"],
            "wFm": scalars["wFm"],
            "MAE": scalars["MAE"],
            "maxFm": f.max(-1),
            "meanFm": f.mean(-1),
            "adpFm": scalars["adpFm"],
            "maxEm": e.max(-1),
            "meanEm": e.mean(-1),
            "adpEm": scalars["adpEm"],
            "IoU": scalars["IoU"],
            "Dice": scalars["Dice"],
        }
        if not self.weighted:
            del measures["wFm"]
        return measures

    def _curves(self, mean: Floats) -> DatasetCurves:
        count = self.protocol.thresholds
        thresholds = np.arange(256) / 255 if count == 256 else np.linspace(0, 1 - 1e-10, count)
        f, e, precision, recall = mean[len(_SCALARS) :].reshape(4, count)
        return DatasetCurves(thresholds, precision, recall, f, e)

    def _draw(self, name: str | None, group: str | None) -> Array:
        """How often each replicate contains the image."""
        if group is not None and group in self._draws:
            return self._draws[group]
        if group is None:
            return draw(self.seed, f"image {name}", self.bootstrap)
        return self._draws.setdefault(group, draw(self.seed, f"group {group}", self.bootstrap))

    def _flush(self) -> None:
        if not self._pending:
            return
        draws = np.array([draw for draw, _ in self._pending], dtype=float)
        self._replicates += draws.T @ np.array([vector for _, vector in self._pending])
        self._weights += draws.sum(0)
        self._pending.clear()

    def _replicated(self) -> dict[str, Floats]:
        if not self.bootstrap:
            raise MeasureError("intervals need replicates: SaliencyEvaluator(bootstrap=1000)")
        if not self._groups:
            raise MeasureError("no image was scored")
        self._flush()
        drawn = self._weights > 0  # a replicate of very few images can come out empty
        if self._units < 2 or not drawn.any():  # what is drawn from one thing never differs
            return {}
        return self._measures(self._replicates[drawn] / self._weights[drawn, None])
