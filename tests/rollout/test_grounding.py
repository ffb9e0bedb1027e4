"""From answers to masks where an answer names nothing, or nothing of one image."""

import numpy as np
import pytest
from PIL import Image

from saliency_r1 import tasks
from saliency_r1.rollout.grounding import Answered, ground

GREY = Image.new("RGB", (30, 24), (120, 120, 120))
SIZE = (24, 30)


def unread():
    raise AssertionError("the pictures of an answer that names nothing are not read")


@pytest.mark.parametrize(
    ("task", "answer", "images"), [("sod", "", 1), ("sis", "", 1), ("cosod", "<rg></rg><rg></rg>", 2)]
)
def test_an_answer_that_names_nothing_predicts_nothing(segmenter, task, answer, images):
    text = f"<think>Nothing stands out.</think><answer>{answer}</answer>"
    ((parsed, prediction),) = ground(segmenter, [Answered(text, tasks.get(task), [SIZE] * images, unread, 0)], 4)
    assert parsed.ok
    assert prediction.empty == 1
    assert [map_.shape for map_ in prediction.maps] == [SIZE] * (0 if task == "sis" else images)
    assert not any(map_.any() for map_ in prediction.maps)


def test_an_image_without_the_shared_object_has_an_empty_map_and_the_others_theirs(segmenter):
    text = "<think>because</think><answer><rg>the thing</rg><rg></rg><rg>the thing</rg></answer>"
    answered = Answered(text, tasks.get("cosod"), [SIZE] * 3, lambda: [GREY] * 3, 0)
    ((_, prediction),) = ground(segmenter, [answered], 4)
    first, second, third = prediction.maps
    assert not second.any()
    assert first.any()
    assert np.allclose(first, third, rtol=0, atol=1e-6)  # another place in the batch may round otherwise
