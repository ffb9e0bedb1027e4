"""What trainings on a handful of samples are made of."""

import pytest
from handful import WEIGHTS

from saliency_r1.annotation import OfflineAnnotator, annotate
from saliency_r1.rollout.environment import Environment
from saliency_r1.training import sft


@pytest.fixture(scope="module")
def environment(samples, segmenter):
    return Environment(segmenter, samples[0], WEIGHTS, max_new_tokens=24, batch_size=8)


@pytest.fixture(scope="module")
def examples(samples, segmenter):
    folder, rows = samples
    annotations = annotate(rows, folder, OfflineAnnotator(0.5), segmenter, 0.0, 1, 0, 4)
    return sft.Examples(rows, [annotation.response for annotation in annotations])
