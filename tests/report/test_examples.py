"""What is shown of a sample: its own masks, from files that are read once."""

from pathlib import Path

import numpy as np
import pytest

from saliency_r1.data.samples import read_masks
from saliency_r1.evaluation.detections import read_predictions
from saliency_r1.inputs.regions import decode
from saliency_r1.report import read
from saliency_r1.report.examples import examples


def test_instances_are_those_of_the_sample_and_their_file_is_read_once(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[Path] = []
    honest = read.read_results
    monkeypatch.setattr(read, "read_results", lambda file, *more: files.append(file) or honest(file, *more))
    shown = examples(read.Artifacts(artifacts), "sis", 3)
    assert len(shown) == 3
    assert len(files) == len(set(files))
    for one in shown:
        (name,) = one.sample["names"]
        (truth,) = read_masks(one.sample, artifacts / "download")
        for answer in one.answers:
            file = artifacts / "masks/instances" / answer.model / f"{one.sample['dataset']}.json"
            alone = [decode(code) for code, _ in read_predictions(file, {name: truth})[name]]
            ((*masks,),) = answer.masks
            assert len(masks) == len(alone)
            assert all(map(np.array_equal, masks, alone))
