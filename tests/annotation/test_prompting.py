"""Prompts and how answers to them are read."""

import json

import numpy as np
import pytest
from PIL import Image

from saliency_r1 import tasks
from saliency_r1.annotation import prompting
from saliency_r1.annotation.interface import AnnotationError, Subject, Try
from saliency_r1.annotation.local import LocalAnnotator

IDS = np.zeros((40, 60), np.uint16)
IDS[5:15, 5:15], IDS[20:35, 30:55] = 1, 2
GREY = Image.new("RGB", (60, 40), (120, 120, 120))


def subject(task: str) -> Subject:
    if task == "sis":
        objects = [[{"id": 2, "salient": True}, {"id": 1, "salient": True}]]
        return Subject("s", task, [GREY], tasks.get(task).truth([IDS]), objects)
    count = 3 if task == "cosod" else 1
    truth = tasks.get(task).truth([((IDS > 0) * 255).astype(np.uint8)] * count)
    return Subject("s", task, [GREY] * count, truth, [[{"id": 1, "salient": True}]] * count)


def answer(**content: object) -> str:
    return json.dumps({"reasoning": "It stands out."} | content)


@pytest.mark.parametrize(("task", "wanted"), [("sod", "exactly what"), ("sis", "2 strings"), ("cosod", "3 strings")])
def test_prompts_say_how_many_and_end_with_what_was_wrong(task: str, wanted: str) -> None:
    first, again = (prompting.prompt(Try(subject(task), 0, 3, (1,), said)) for said in ("", "Too vague."))
    assert wanted in first
    assert "{" not in first
    assert again.startswith(first)
    assert again.endswith("Too vague.")


def test_instances_are_outlined_and_numbered_in_the_order_of_the_objects() -> None:
    (drawn,) = prompting.outlined(subject("sis"))
    changed = np.asarray(drawn) != np.asarray(GREY)
    assert changed[20, 30:55].any()
    assert changed[5, 5:15].any()
    assert not changed[-3:].any()
    assert np.asarray(GREY).min() == 120, "the image itself is left alone"


@pytest.mark.parametrize(
    ("task", "text", "fault"),
    [
        ("sod", "the red disc", "not the JSON"),
        ("sod", f'So {{"pixels": {"1" * 5000}}}', "not the JSON"),
        ("sod", answer(expressions=[]), "expressions"),
        ("sod", answer(expressions=["a"], more=1), "more"),
        ("sod", answer(expressions=["<rg>a</rg>"]), "expressions.0"),
        ("sod", answer(expressions=["a"], reasoning="</think>"), "reasoning"),
        ("sis", answer(expressions=["a"]), "It had 1 expressions, 2 were asked for"),
        ("cosod", answer(expressions=["a"] * 3), "shared"),
        ("cosod", answer(expressions=["a"] * 2, shared="a"), "It had 2 expressions, 3"),
        ("cosod", answer(expressions=["the cup", "a cup", "the mug"], shared="Cup"), "'the mug' does not name"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(task: str, text: str, fault: str) -> None:
    said = prompting.read(text, subject(task))
    assert fault in said.fault
    assert not said.expressions


def test_good_answers() -> None:
    fenced = f"Here you are:\n```json\n{answer(expressions=[' the ring ', 'the cup'])}\n```"
    assert [e.text for e in prompting.read(fenced, subject("sis")).expressions] == ["the ring", "the cup"]
    group = prompting.read(answer(expressions=["the Cup", "a cup", "the cup left"], shared="cup"), subject("cosod"))
    assert [(e.kind, e.image) for e in group.expressions] == [("rg", 0), ("rg", 1), ("rg", 2)]


def test_a_picture_of_many_instances_can_be_answered() -> None:
    """Every one of them is asked for, so that a limit below their number would refuse each answer."""
    ids = np.arange(1, 81, dtype=np.uint16).reshape(8, 10)
    objects = [[{"id": number, "salient": True} for number in range(1, 81)]]
    crowd = Subject("s", "sis", [GREY.resize((10, 8))], tasks.get("sis").truth([ids]), objects)
    said = prompting.read(answer(expressions=[f"person {number}" for number in range(80)]), crowd)
    assert (said.fault, len(said.expressions)) == ("", 80)


def test_a_draft_within_the_thinking_is_no_answer() -> None:
    """A template may open the thinking, and then the answer holds nothing of it but the end."""
    draft, last = answer(expressions=["the draft"]), answer(expressions=["the ring"])
    said = prompting.read(f"Perhaps {draft}? No.\n</think>\n\n{last}", subject("sod"))
    assert [e.text for e in said.expressions] == ["the ring"]


def lacking(task: str, *empty: int) -> Subject:
    """The subject with nothing salient in some of its images."""
    whole = subject(task)
    objects = [[] if index in empty else items for index, items in enumerate(whole.objects)]
    return Subject("s", task, whole.images, whole.truth, objects)


@pytest.mark.parametrize(("task", "images"), [("sod", 1), ("sis", 1), ("cosod", 3)])
def test_where_nothing_stands_out_a_reasoning_is_all_that_is_asked_for(task: str, images: int) -> None:
    nothing = lacking(task, *range(images))
    text = prompting.prompt(Try(nothing, 0, 3, (1,)))
    assert "{" not in text
    assert "outline" not in text
    assert list(prompting.schema(nothing)["properties"]) == ["reasoning"]
    said = prompting.read(answer(), nothing)
    assert said.reasoning == "It stands out."
    assert [(e.image, e.text) for e in said.expressions] == ([(n, "") for n in range(3)] if task == "cosod" else [])
    assert "expressions" in prompting.read(answer(expressions=["a"]), nothing).fault


def test_an_image_without_the_shared_thing_has_an_empty_expression() -> None:
    group = lacking("cosod", 1)
    assert list(prompting.schema(group)["properties"]) == ["expressions", "reasoning", "shared"], "reasoning after them"
    said = prompting.read(answer(expressions=["the cup", "", "a cup"], shared="cup"), group)
    assert [(e.image, e.text) for e in said.expressions] == [(0, "the cup"), (1, ""), (2, "a cup")]
    for expressions, number in ((["the cup"] * 3, 2), (["", "", "a cup"], 1)):
        assert f"Expression {number} was" in prompting.read(answer(expressions=expressions, shared="cup"), group).fault
    assert "Expression 3 was ''" in prompting.read(answer(expressions=["a cup", "a cup", ""], shared="cup"),
                                                   subject("cosod")).fault  # fmt: skip


def test_a_local_model_that_cannot_be_asked_is_named(tmp_path) -> None:
    import shutil

    import torch
    from rendered import EMBEDDED

    text_only = tmp_path / "text-only"
    text_only.mkdir()
    (text_only / "config.json").write_text('{"model_type": "gpt2"}')
    mute = tmp_path / "mute"
    shutil.copytree(EMBEDDED / "models/policy", mute, ignore=shutil.ignore_patterns("*.jinja"))
    for folder, why in ((text_only, "cannot be read, expected a vision-language"), (mute, "has no chat template")):
        with pytest.raises(AnnotationError, match=rf"annotate\.model = '{folder}' {why}"):
            LocalAnnotator(str(folder), 12, torch.device("cpu"), torch.float32, 0.7)


def test_a_local_model_is_asked_and_its_answer_read() -> None:
    """The embedded policy cannot write JSON: what comes back is a fault, and the whole path has run."""
    import torch
    from rendered import EMBEDDED

    model = str(EMBEDDED / "models/policy")
    annotator = LocalAnnotator(model, 12, torch.device("cpu"), torch.float32, 0.7)
    said = annotator.write([Try(subject(task), number, 2, (1,)) for number, task in enumerate(("sod", "cosod"))])
    assert all("not the JSON" in one.fault for one in said)


def test_further_attempts_differ_whatever_the_checkpoint_says_of_sampling(tmp_path) -> None:
    """As Qwen's do, whose temperature of 1e-6 is greedy."""
    import shutil

    import torch
    from rendered import EMBEDDED

    said = {}
    for name, habits in (("plain", {}), ("qwen", {"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.05})):
        shutil.copytree(EMBEDDED / "models/policy", tmp_path / name)
        ends = {"eos_token_id": [2], "pad_token_id": 0}
        (tmp_path / name / "generation_config.json").write_text(json.dumps(ends | habits))
        annotator = LocalAnnotator(str(tmp_path / name), 12, torch.device("cpu"), torch.float32, 1.5)
        said[name] = [annotator._answer(Try(subject("sod"), number, 4, (1,))) for number in range(4)]
    assert said["qwen"] == said["plain"]
    assert len(set(said["plain"])) == 4
    annotator.temperature = 0.0
    assert annotator._answer(Try(subject("sod"), 1, 4, (1,))) == said["plain"][0]


def test_a_tokenizer_puts_no_second_beginning_before_that_of_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Gemma's would, whose template writes <bos> itself."""
    import torch
    from rendered import EMBEDDED
    from tokenizers.processors import TemplateProcessing

    annotator = LocalAnnotator(str(EMBEDDED / "models/policy"), 1, torch.device("cpu"), torch.float32, 0.7)
    words = annotator.processor.tokenizer
    first = words("a", add_special_tokens=True).input_ids
    begin = words.convert_ids_to_tokens(words.pad_token_id)
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, words.pad_token_id)]
    )
    assert words("a").input_ids == [words.pad_token_id, *first]
    asked, generate = [], annotator.model.generate

    def listen(**inputs: torch.Tensor) -> torch.Tensor:
        asked.append(inputs["input_ids"])
        return generate(**inputs)

    monkeypatch.setattr(annotator.model, "generate", listen)
    annotator.write([Try(subject("sod"), 0, 2, (1,))])
    assert words.pad_token_id not in asked[0]
