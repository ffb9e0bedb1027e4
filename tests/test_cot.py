"""The textual interface: render and parse are inverse, and parse is total."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_r1.cot import Expression, answer_start, parse, render

WORDS = st.text(st.characters(exclude_characters="<>", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=12)


def test_parse_reads_what_render_writes():
    expressions = (Expression("rg", 0, "the red circle"), Expression("rg", 0, "the blue ring at the left"))
    parsed = parse(render("Two things stand out.", expressions), "sod")
    assert parsed.ok
    assert parsed.expressions == expressions
    assert parsed.reasoning == "Two things stand out."


def test_cosod_expressions_belong_to_the_images_in_order():
    text = "<think>shared</think><answer><rg>the cat</rg><rg>the cat at the left</rg></answer>"
    assert [item.image for item in parse(text, "cosod", 2).expressions] == [0, 1]


@pytest.mark.parametrize(
    ("text", "task", "images", "error"),
    [
        ("", "sod", 1, "expected <think>"),
        ("There is a red circle.", "sod", 1, "expected <think>"),
        ("<think>a</think><answer></answer>", "sod", 1, "no expression"),
        ("<think> </think><answer><rg>a</rg></answer>", "sod", 1, "no reasoning"),
        ("<think>a</think><answer><rg> </rg></answer>", "sod", 1, "an empty expression"),
        ("<think>a</think><answer><ins>a</ins></answer>", "sod", 1, "expected <rg>"),
        ("<think>a</think><answer><rg>a</rg></answer>", "sis", 1, "expected <ins>"),
        ("<think>a</think><answer><rg>a</rg></answer>", "cosod", 3, "each of 3 images, found 1"),
        ("<think>a</think><answer><rg>a</rg> and more</answer>", "sod", 1, "tagged expressions only"),
        ("<think>a</think><answer><rg>a</ins></answer>", "sod", 1, "tagged expressions only"),
        ("<think>a</think><answer><rg><rg>a</rg></rg></answer>", "sod", 1, "tagged expressions only"),
        ("<think>a<think>b</think><answer><rg>a</rg></answer>", "sod", 1, "nested"),
        ("<think>a</think><answer><rg>a</rg></answer> trailing", "sod", 1, "nothing else"),
    ],
)
def test_malformed_responses_say_why_and_yield_nothing(text, task, images, error):
    parsed = parse(text, task, images)
    assert any(error in message for message in parsed.errors), parsed.errors
    assert parsed.expressions == ()


@given(st.text(), st.sampled_from(["sod", "sis", "cosod"]), st.integers(1, 4))
def test_parse_never_raises(text, task, images):
    parsed = parse(text, task, images)
    assert parsed.ok == bool(parsed.expressions)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=5))
def test_round_trip(reasoning, phrases):
    expressions = tuple(Expression("ins", 0, phrase) for phrase in phrases)
    parsed = parse(render(reasoning, expressions), "sis")
    assert parsed.expressions == expressions


def test_answer_start_splits_reasoning_from_answer():
    text = render("because", [Expression("rg", 0, "a")])
    assert text[: answer_start(text)] == "<think>because</think>"
    assert answer_start("no answer") == len("no answer")
