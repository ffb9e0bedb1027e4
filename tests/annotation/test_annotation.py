"""Output-to-reasoning: what is written parses, and agreement is measured and acted upon."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from saliency_r1 import cot, tasks
from saliency_r1.annotation import OfflineAnnotator, annotate, wording
from saliency_r1.annotation.agreement import agreement
from saliency_r1.annotation.attributes import (
    NAMED_COLOURS,
    category,
    colour_shares,
    dominant_colour,
    measure,
    objects_of,
)
from saliency_r1.annotation.interface import Proposal, Subject, Try
from saliency_r1.data.samples import read_masks
from saliency_r1.segmenter import Segment


@dataclass
class Oracle:
    """A segmenter that answers the n-th expression with the n-th ground truth, or with nothing while `blind` lasts."""

    masks: list
    blind: int = 0

    def encode(self, images):
        return list(images)

    def segment(self, encoded, phrases):
        answers = []
        for index, image in enumerate(encoded):
            empty = np.zeros(image.size[::-1], bool)
            mask = empty if self.blind > 0 else self.masks[index]
            answers.append([Segment(np.where(mask, 9.0, -9.0).astype(np.float32), 1.0)])
        self.blind -= 1
        return answers


def truths(row, folder):
    """The masks an oracle needs for one sample, in the order of the expressions."""
    truth = tasks.get(row["task"]).truth(read_masks(row, folder))
    if row["task"] != "sod":
        return list(truth.masks)
    objects = json.loads(row["meta"])["objects"][0]
    return [truth.masks[0]] * sum(item["salient"] for item in objects)


@pytest.mark.parametrize("index", range(6))
def test_annotations_parse_and_name_every_target(samples, index):
    folder, rows = samples
    row = rows[index]
    (made,) = annotate([row], folder, OfflineAnnotator(0.7), Oracle(truths(row, folder)), 0.7, 3, 0, 1)
    parsed = cot.parse(made.response, row["task"], len(row["images"]))
    assert parsed.ok, parsed.errors
    assert [item.text for item in parsed.expressions] == list(made.expressions)
    assert made.consistency == pytest.approx(1)
    assert made.kept
    assert made.attempts == 1


def test_a_sample_that_is_not_found_is_rewritten_and_at_last_set_aside(samples):
    folder, rows = samples
    second_try, never = Oracle(truths(rows[0], folder), blind=1), Oracle(truths(rows[0], folder), blind=9)
    (made,) = annotate([rows[0]], folder, OfflineAnnotator(0.7), second_try, 0.7, 3, 0, 1)
    assert (made.attempts, made.kept) == (2, True)
    (made,) = annotate([rows[0]], folder, OfflineAnnotator(0.7), never, 0.7, 3, 0, 1)
    assert (made.attempts, made.kept, made.consistency) == (3, False, 0.0)


def test_wording_depends_on_the_sample_alone(samples, segmenter):
    folder, rows = samples
    annotator = OfflineAnnotator(0.7)
    together = list(annotate(rows, folder, annotator, segmenter, 0.5, 2, 3, 6))
    alone = [next(iter(annotate([row], folder, annotator, segmenter, 0.5, 2, 3, 1))) for row in reversed(rows)]
    assert [made.response for made in together] == [made.response for made in reversed(alone)]


def test_an_expression_that_prefers_another_instance_counts_nothing():
    left, right = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    left[:, :3], right[:, 5:] = True, True
    truth = tasks.get("sis").truth([left * 1 + right * 2])
    objects = [[{"id": 1, "salient": True}, {"id": 2, "salient": True}]]
    segments = [Segment(np.where(mask, 9.0, -9.0).astype(np.float32), 1.0) for mask in (left, left)]
    expressions = [cot.Expression("ins", 0, "a"), cot.Expression("ins", 0, "b")]
    assert agreement("sis", objects, expressions, segments, truth) == [1.0, 0.0]


def test_plain_wording_has_no_synonyms(samples):
    _, rows = samples
    objects = json.loads(rows[0]["meta"])["objects"]
    subject = Subject("a", "sod", [], tasks.get("sod").truth([np.ones((2, 2), np.uint8) * 255]), objects)
    for seed in range(20):
        (said,) = OfflineAnnotator(0.0).write([Try(subject, 0, 1, (seed,))])
        for item, expression in zip([o for o in objects[0] if o["salient"]], said.expressions, strict=True):
            assert f"{item['colour']} {item['name']}".strip() in expression.text


def photographs(folder, task, filled):
    """A row of the sample table with one square in the images that are `filled`."""
    for index, full in enumerate(filled):
        pixels, mask = np.full((48, 64, 3), 200, np.uint8), np.zeros((48, 64), np.uint8)
        if full:
            pixels[10:30, 10:30], mask[10:30, 10:30] = (200, 40, 40), 255
        Image.fromarray(pixels).save(folder / f"image{index}.png")
        Image.fromarray(mask).save(folder / f"mask{index}.png")
    places = range(len(filled))
    return {
        "sample_id": "a", "task": task, "group": "cups" if task == "cosod" else None, "meta": "{}",
        "images": [f"image{place}.png" for place in places], "masks": [f"mask{place}.png" for place in places],
    }  # fmt: skip


class Finder:
    """A segmenter that finds whatever is red, and counts what it was asked."""

    asked = 0

    def encode(self, images):
        return [np.asarray(image)[..., 1] < 100 for image in images]

    def segment(self, encoded, phrases):
        self.asked += sum(map(len, phrases))
        return [[Segment(np.where(mask, 9.0, -9.0).astype(np.float32), 1.0) for _ in row]
                for mask, row in zip(encoded, phrases)]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "filled", "expressions"),
    [("sod", [0], 0), ("sis", [0], 0), ("cosod", [1, 0, 1], 2), ("cosod", [0, 0], 0), ("sod", [1], 1)],
)
def test_where_nothing_stands_out_that_is_what_is_said(tmp_path, task, filled, expressions):
    row, finder = photographs(tmp_path, task, filled), Finder()
    (made,) = annotate([row], tmp_path, OfflineAnnotator(0.7, 0.5), finder, 0.7, 3, 0, 1)
    parsed = cot.parse(made.response, task, len(filled))
    assert parsed.ok, parsed.errors
    assert parsed.reasoning
    assert len(made.expressions) == len(parsed.expressions) == finder.asked == expressions
    assert [item.image for item in parsed.expressions] == [index for index, full in enumerate(filled) if full]
    assert (made.objects, made.consistency, made.kept, made.attempts) == (sum(filled), 1, True, 1)


def test_what_is_named_where_nothing_stands_out_does_not_agree():
    found = [Segment(np.full((4, 4), 9.0, np.float32), 1.0)]
    for task, stored in (("sod", np.zeros((4, 4), np.uint8)), ("sis", np.zeros((4, 4), np.uint16))):
        truth, said = tasks.get(task).truth([stored]), [cot.Expression(tasks.get(task).kind, 0, "thing")]
        assert agreement(task, [[]], said, found, truth) == [0.0]
        assert agreement(task, [[]], [], [], truth) == [1.0]


def test_an_annotator_that_says_nothing_of_what_stands_out_is_asked_again(tmp_path):
    class Silent:
        def write(self, tries):
            return [Proposal("Nothing.") for _ in tries]

    (made,) = annotate([photographs(tmp_path, "sod", [1])], tmp_path, Silent(), Finder(), 0.7, 2, 0, 1)
    assert (made.attempts, made.kept, made.response) == (2, False, "")


def test_distractors_are_described_where_nothing_stands_out():
    for said in proposals(
        "sod", [[thing(1, salient=False), thing(2, "right", tone="faint", salient=False)]], variety=0
    ):
        assert said.expressions == ()
        assert "red car at the left" in said.reasoning
        assert said.reasoning.split(". ")[-1].startswith("Nothing ")


def test_a_distractor_is_called_small_or_faint_only_where_it_is():
    for said in proposals("sod", [[thing(1), thing(2, "right", name="ball", salient=False)]], variety=0):
        assert "The red ball is" in said.reasoning
        assert not {"small", "minor", "faint", "blends", "fades"} & set(said.reasoning.split())


def test_a_photograph_without_attributes_is_measured():
    pixels = np.full((60, 90, 3), 200, np.uint8)
    pixels[5:20, 65:85] = (200, 40, 40)
    mask = np.zeros((60, 90), bool)
    mask[5:20, 65:85] = True
    seen = measure(Image.fromarray(pixels), mask, 1)
    assert (seen["colour"], seen["place"], seen["tone"], seen["size"]) == ("red", "top right", "vivid", "large")


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("Cat-02", "cat"), ("n02123394_Persian_cat", "persian cat"), ("motorbike", "motorbike"), ("007", "region"),
        ("group12", "region"), (None, "region"), ("aeroplane3", "aeroplane"),
    ],
)  # fmt: skip
def test_a_group_gives_its_images_their_name(group, name):
    assert category(group) == name


def test_the_colour_of_most_pixels_counts_and_not_their_mean():
    sign = np.array([(205, 30, 30)] * 60 + [(250, 250, 250)] * 40, np.float32)
    assert dominant_colour(sign) == "red"
    assert dominant_colour(np.array([(112, 104, 98)], np.float32)) == "grey", "hardly any hue"


def test_every_pixel_of_a_large_region_has_a_vote():
    red, blue = (
        np.tile(np.array(rgb, np.float32), (count, 1))
        for rgb, count in (((200, 40, 40), 90_000), ((50, 90, 200), 110_000))
    )
    assert dominant_colour(np.concatenate([red, blue])) == "blue"
    shares = colour_shares(np.concatenate([red, blue]))
    assert dict(zip(NAMED_COLOURS, shares.tolist()))["red"] == 0.45
    assert shares.sum() == 1


def test_measured_objects_carry_the_names_and_ids_of_the_annotations():
    mask = np.zeros((2, 30, 30), bool)
    mask[0, :10], mask[1, 20:] = True, True
    meta = json.dumps({"objects": [[{"id": 1, "name": "cat"}, {"id": 4, "phrase": "The wet dog"}]]})
    (found,) = objects_of(meta, [Image.new("RGB", (30, 30), "red")], [{1: mask[0], 4: mask[1]}], None)
    assert [(item["id"], item["place"]) for item in found] == [(1, "top"), (4, "bottom")]
    assert [(item["colour"], item["name"]) for item in found] == [("red", "cat"), ("", "wet dog")]


def test_objects_of_version_0_1_have_a_shape_for_a_name_and_half_known_ones_are_measured():
    mask = np.zeros((30, 30), bool)
    mask[:10] = True
    whole = thing(1) | {"shape": "ring"}
    del whole["name"]
    for item, expected in ((whole, ("red", "ring")), ({"id": 1, "colour": "blue", "name": "cat"}, ("red", "cat"))):
        meta = json.dumps({"objects": [[item]]})
        ((found,),) = objects_of(meta, [Image.new("RGB", (30, 30), "red")], [{1: mask}], None)
        assert (found["colour"], found["name"]) == expected


def test_a_name_is_no_colour_and_no_place():
    rng = np.random.default_rng(0)
    for name in ("orange", "top", "black"):
        assert {wording.noun({"name": name}, rng, 1.0) for _ in range(20)} == {name}
    assert wording.noun({"name": "object"}, rng, 1.0) in wording.SYNONYMS["object"]


def thing(number, place="left", **changes):
    return {"id": number, "colour": "red", "name": "car", "size": "large", "tone": "vivid", "place": place,
            "salient": True, **changes}  # fmt: skip


def proposals(task, objects, **settings):
    subject = Subject("a", task, [], tasks.get("sod").truth([np.ones((2, 2), np.uint8) * 255]), objects)
    annotator = OfflineAnnotator(**settings)
    return [annotator.write([Try(subject, 0, 3, (seed,))])[0] for seed in range(30)]


def shared_words(said):
    """The words that the expressions of all images have in common."""
    return set.intersection(*(set(expression.text.split()) for expression in said.expressions))


def test_instances_that_look_alike_are_told_apart_by_place():
    for said in proposals("sis", [[thing(1), thing(2, "right")]], variety=0.0):
        first, second = (expression.text for expression in said.expressions)
        assert first != second


def test_a_shared_object_is_named_alike_in_every_image_and_a_distractor_is_not():
    objects = [[thing(1, place), thing(2, "top", name="ball", salient=False)] for place in ("left", "right", "bottom")]
    seen = set()
    for said in proposals("cosod", objects, variety=0.7, vagueness=0.4):
        shared = shared_words(said) - {"the"}
        assert len(shared) >= 2, "its colour and its name"
        seen.add(frozenset(shared))
    assert len(seen) > 5, "but not in the same words in every group"


def test_a_colour_that_differs_is_no_part_of_a_shared_name():
    objects = [[thing(1, colour=colour, name="cat")] for colour in ("black", "white")]
    for said in proposals("cosod", objects, variety=0.0):
        assert shared_words(said) >= {"cat"}
        assert not {"black", "white"} & set(said.reasoning.split())


def test_vague_expressions_leave_open_what_it_is_and_the_reasoning_does_not():
    for said in proposals("sod", [[thing(1)]], variety=0.0, vagueness=1.0):
        assert "red object" in said.expressions[0].text
        assert "red car" in said.reasoning
    texts = [said.expressions[0].text for said in proposals("sod", [[thing(1)]], variety=0.0, vagueness=0.5)]
    assert 5 < sum("object" in text for text in texts) < 25


def test_a_thing_of_a_known_family_is_called_by_that_now_and_then():
    car = thing(1, family="vehicle", also=("automobile", "sedan"))
    texts = [said.expressions[0].text for said in proposals("sod", [[car]], variety=0.0, vagueness=1.0)]
    assert all("car" not in text for text in texts)
    for word in ("the vehicle", "red vehicle", "red object"):
        assert any(word in text for text in texts), word
    varied = " ".join(said.expressions[0].text for said in proposals("sod", [[car]], variety=1.0))
    assert "sedan" in varied
    assert "automobile" not in varied, "at full variety the rare word is taken"
    assert "car" not in varied.split()
