"""Strict is the contract; lenient forgives form and never guesses content."""

import pytest

from saliency_r1 import cot
from saliency_r1.benchmark.lenient import declines, lenient

FINE = "<think>A dog runs.</think><answer><rg>the dog</rg></answer>"


def phrases(text, task="sod", images=1):
    parsed = cot.parse(lenient(text, task, images), task, images)
    return [expression.text for expression in parsed.expressions] if parsed.ok else None


@pytest.mark.parametrize(
    "text",
    [
        FINE,
        FINE.replace("think>", "thinking>"),
        f"```xml\n{FINE}\n```",
        f"Sure! Here it is:\n{FINE}\nAnything else?",
        "<think>A dog runs.</think><rg>the dog</rg>",
        "<think>A dog runs.</think><answer><rg>the dog</rg>",
        "<answer><RG>the  dog</RG></answer>",
        "<think></think><answer><rg>the dog</rg></answer>",
        "<think>x</think><answer><ins>the dog</ins></answer>",
        "<think>Is it <rg>the cat</rg>? No.</think>Then <answer>it is <rg>the dog</rg>.</answer>",
    ],
)
def test_form_is_forgiven(text):
    assert phrases(text) == ["the dog"]


def test_an_answer_in_form_stays_as_it_is():
    assert lenient(FINE, "sod", 1) is FINE


@pytest.mark.parametrize("text", ["", "the dog", "{'region': 'the dog'}", "<rg>the dog", "<answer>a dog</answer>"])
def test_nothing_is_guessed(text):
    assert phrases(text) is None
    assert lenient(text, "sod", 1) == text


def test_saying_that_nothing_stands_out_is_an_answer():
    assert phrases("```<answer> </answer>```") == []


def test_a_group_wants_one_tag_an_image():
    two = "<answer><rg>the dog</rg> and <rg></rg></answer>"
    assert phrases(two, "cosod", 2) == ["the dog"]
    assert phrases(two, "cosod", 3) is None


@pytest.mark.parametrize("text", ["I'm sorry, but I can't help.", "I cannot look at people.", "Sorry. No."])
def test_refusals_in_words(text):
    assert declines(text)
    assert declines(f"<think>Hm.</think> {text}")


@pytest.mark.parametrize("text", [FINE, "A dog.", f"I can't be sure. {FINE}", ""])
def test_what_is_no_refusal(text):
    assert not declines(text)
