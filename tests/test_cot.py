"""The textual interface: render and parse are inverse, and parse is total and linear."""

import re
import time

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
        ("<think></think><answer></answer>", "sod", 1, "no reasoning"),
        ("<answer></answer>", "sod", 1, "expected <think>"),
        ("<think>a</think><answer>nothing</answer>", "sod", 1, "tagged expressions only"),
        ("<think>a</think><answer><ins></ins></answer>", "sis", 1, "an empty expression"),
        ("<think>a</think><answer></answer>", "cosod", 2, "each of 2 images, found 0"),
        ("<think>a</think><answer><rg></rg></answer>", "cosod", 2, "each of 2 images, found 1"),
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
    assert parsed.ok or not parsed.expressions


@pytest.mark.parametrize("task", ["sod", "sis"])
@pytest.mark.parametrize("answer", ["", " ", "\n"])
def test_an_empty_answer_says_that_nothing_stands_out(task, answer):
    parsed = parse(f"<think>Nothing stands out.</think><answer>{answer}</answer>", task)
    assert parsed.ok
    assert parsed.expressions == ()
    assert parsed.reasoning == "Nothing stands out."


def test_an_image_without_the_shared_object_has_an_empty_tag():
    said = (Expression("rg", 0, "the cat"), Expression("rg", 1, ""), Expression("rg", 2, "the cat"))
    parsed = parse(render("The second image lacks it.", said), "cosod", 3)
    assert parsed.ok
    assert parsed.expressions == (said[0], said[2])
    nowhere = parse(render("Nothing is shared.", [Expression("rg", image, "") for image in range(3)]), "cosod", 3)
    assert nowhere.ok
    assert nowhere.expressions == ()


FRAME = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "<rg>a</rg>", "a", "<", " ", "\n", "\x1c", "\u2003"]
)


@given(st.lists(PIECES, max_size=14).map("".join), st.booleans())
def test_the_frame_is_found_as_one_pattern_for_the_whole_would(text, framed):
    """The pattern is the grammar in one line; its time is quadratic, so `parse` does not use it."""
    text = f"<think>{text}</answer>" if framed else text
    parsed, match = parse(text, "sod"), FRAME.fullmatch(text)
    assert any("and nothing else" in error for error in parsed.errors) == (match is None)
    if match:
        assert parsed.reasoning == match[1].strip()
        assert parsed.ok == bool(
            parsed.reasoning
            and not re.search(r"</?(think|answer)>", parsed.reasoning)
            and re.fullmatch(r"\s*(<rg>a</rg>\s*)*", match[2])
        )


@pytest.mark.parametrize(
    ("before", "piece", "after"),
    [
        ("<think>", "</think><answer>", ""),
        ("<think>", "</think><answer>", "</answer> ."),
        ("<think>", "</think><answer>", "</answer>"),
        ("<think>", "</think>   ", "</answer>"),
        ("<think>a</think><answer>", "<rg>a</rg>", "<rg>"),
        ("<think>a</think><answer>", "<rg>", "</answer>"),
        ("<think>a</think><answer><rg>", "a ", "</answer>"),
        ("<think>a</think><answer>", " ", "a</answer>"),
        ("", "<think>", "</answer>"),
        ("", " ", "a"),
    ],
)
def test_the_time_to_parse_grows_with_the_length_alone(before, piece, after):
    """16 times the text takes some 16 times as long, with a quadratic search 256 times."""

    def seconds(length):
        text = before + piece * (length // len(piece)) + after
        best = 1e9
        for _ in range(3):
            start = time.perf_counter()
            parse(text, "sod")
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(64_000) < 80 * max(seconds(4_000), 1e-4)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=5))
def test_round_trip(reasoning, phrases):
    expressions = tuple(Expression("ins", 0, phrase) for phrase in phrases)
    parsed = parse(render(reasoning, expressions), "sis")
    assert parsed.expressions == expressions


def test_answer_start_splits_reasoning_from_answer():
    text = render("because", [Expression("rg", 0, "a")])
    assert text[: answer_start(text)] == "<think>because</think>"
    assert answer_start("no answer") == len("no answer")
