"""Answers in form, for servers that give them."""

from saliency_r1 import cot

TEST = 11  # test samples of a task in the small world of tests/benchmark


def good(row) -> str:
    """An answer in form, which names something in every image."""
    kind = cot.KINDS[row["task"]]
    images = range(len(row["images"]))
    return cot.render("It stands out.", [cot.Expression(kind, image, "the large object") for image in images])
