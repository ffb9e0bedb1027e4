"""The page for the person on call: what it says was tried by a test was tried by one that exists."""

import re

from flows.pipeline import ROOT

TRIED = re.compile(r"`(tests/\S+\.py) -k ('[^']+'|\w+)`")


def test_every_situation_was_tried() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition("\n## When ...\n")[2]
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 12
    for row in rows:
        cell = row.rstrip("| ").rpartition(" | ")[2]
        found = TRIED.findall(cell)
        assert found or cell.startswith("by hand"), row
        for file, words in found:
            names = re.findall(r"^def (test_\w+)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
            for word in words.strip("'").split(" or "):
                assert any(word in name for name in names), f"{file} has no test that -k {word} would run"
