"""How a group of images becomes prompts."""

from typing import Any

import pytest

from saliency_r1.data.samples import chunks


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(0, 4, []), (1, 4, [1]), (4, 4, [4]), (5, 4, [3, 2]), (9, 4, [3, 3, 3]), (11, 3, [3, 3, 3, 2]), (3, 1, [1, 1, 1])],
)
def test_a_group_is_cut_evenly_in_its_order(count: int, size: int, expected: list[int]) -> None:
    group: list[Any] = [{"number": number} for number in range(count)]
    parts = chunks(group, size)
    assert [len(part) for part in parts] == expected
    assert [item for part in parts for item in part] == group
