"""Where the numbers of an evaluation may be written: not over what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saliency_r1.inputs.find import SUFFIXES
from saliency_r1.metrics.truth import MeasureError

PLOTS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Refuse, before any work, a picture of curves in a format that is not written. Raises `MeasureError`."""
    if path.suffix.lower() not in PLOTS:
        raise MeasureError(f"{path}: curves are written as {', '.join(PLOTS)}")


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Refuse, before any work, outputs that would replace an input, become one, replace one another or have no folder.

    `inputs` are the folders and files that are scored. A folder with a JSON file in it would be read as COCO results
    from then on. Raises `MeasureError`.
    """
    seen: dict[Path, Path] = {}
    for output in outputs:
        place = output.resolve()
        if first := seen.get(place):
            raise MeasureError(f"{first} and {output} are one file; give each output its own")
        seen[place] = output
        if output.is_dir():
            raise MeasureError(f"{output} is a folder, expected the name of a file to write")
        if not output.parent.is_dir():
            raise MeasureError(f"{output}: there is no folder {output.parent}; make it, or name another")
        for given in inputs:
            whole = given.resolve()
            inside = output.suffix.lower() in SUFFIXES and place.is_relative_to(whole)
            inside |= output.suffix.lower() == ".json" and place.parent == whole
            if place == whole or inside or (output.exists() and given.exists() and output.samefile(given)):
                raise MeasureError(
                    f"{output} would be written over or between the inputs in {given}; name another file"
                )
