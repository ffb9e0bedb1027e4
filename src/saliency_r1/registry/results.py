"""The table of results on a model's card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


def results(
    scores: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, Sequence[float]]],
    shown: Mapping[str, str],
) -> Iterator[str]:
    """The lines of a Markdown table: the measures `shown`, by what they are called there, of each data set."""
    yield from ("| data set | measure | value | interval |", "|---|---|---:|---|")
    for dataset, values in scores.items():
        for measure, title in shown.items():
            if isinstance(value := values.get(measure), int | float):
                within = "{:.4f} to {:.4f}".format(*ends) if (ends := intervals.get(dataset, {}).get(measure)) else ""
                yield f"| {dataset} | {title} | {value:.4f} | {within} |"
