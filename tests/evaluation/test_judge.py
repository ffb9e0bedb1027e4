"""Promotion: a real gain passes, chance does not; a spoilt data set or unparsed answers stop it; groups stay whole."""

import importlib
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from saliency_r1.evaluation.judge import as_markdown, judge
from saliency_r1.evaluation.split import EvaluationError
from saliency_r1.params import Judge, load_params
from saliency_r1.runtime.parts import Parts
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[2]
RULES = Judge(minimum_effect=0.01, margin=0.05, parse_failures=0.02, level=0.99)


def answers(rewards: np.ndarray, unparsed: int = 0, per_unit: int = 1) -> pl.DataFrame:
    """Answers to two data sets of equal size with these rewards; `per_unit` neighbours are one group."""
    count = len(rewards)
    return pl.DataFrame(
        {
            "sample_id": [f"s{number:04d}" for number in range(count)],
            "task": "cosod" if per_unit > 1 else "sod",
            "dataset": ["first" if number < count // 2 else "second" for number in range(count)],
            "reward": rewards,
            "parsed": [number >= unparsed for number in range(count)],
            "unit": [f"u{number // per_unit:04d}" for number in range(count)],
        }
    )


@pytest.fixture
def before() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.4, 0.8, 400)


def test_a_gain_everywhere_is_promoted_with_its_numbers(before: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(0.03, 0.05, 400)
    decision = judge(answers(before), answers(before + noise), RULES)
    overall = decision["overall"]
    assert decision["verdict"] == "promote"
    assert overall["difference"] == pytest.approx(noise.mean(), abs=1e-6)
    assert overall["champion"] == pytest.approx(before.mean(), abs=1e-6)
    # 99 % of a mean of 400: 2.576 standard errors on either side.
    half = 2.576 * noise.std() / 20
    assert (overall["high"] - overall["low"]) / 2 == pytest.approx(half, rel=0.15)
    assert set(decision["datasets"]) == {"first", "second"}


def test_the_same_model_is_kept_out(before: np.ndarray) -> None:
    decision = judge(answers(before), answers(before), RULES)
    assert decision["verdict"] == "keep"
    assert "below the minimum +0.0100" in decision["reasons"][0]


def test_a_large_but_uncertain_gain_is_kept_out(before: np.ndarray) -> None:
    noise = np.where(np.arange(400) == 0, 8.0, 0.0)  # one sample makes all of it
    decision = judge(answers(before), answers(before + noise), RULES)
    assert decision["overall"]["difference"] == pytest.approx(0.02)
    assert decision["verdict"] == "keep"
    assert any("reaches down to" in reason for reason in decision["reasons"])


def test_one_spoilt_data_set_stops_a_gain_overall(before: np.ndarray) -> None:
    after = before + np.where(np.arange(400) < 200, 0.3, -0.06)
    decision = judge(answers(before), answers(after), RULES)
    assert decision["overall"]["difference"] == pytest.approx(0.12)
    assert decision["reasons"] == ["second: may be worse by 0.0600, the margin is 0.0500"]


def test_a_data_set_that_may_be_spoilt_stops_a_gain_overall(before: np.ndarray) -> None:
    """The mean there is a loss that the margin allows; what chance leaves possible is not."""
    rng = np.random.default_rng(3)
    after = before + np.where(np.arange(400) < 200, 0.3, rng.normal(-0.03, 0.3, 400))
    decision = judge(answers(before), answers(after), RULES)
    second = decision["datasets"]["second"]
    assert second["difference"] > -0.05 > second["low"]
    assert decision["reasons"] == [f"second: may be worse by {-second['low']:.4f}, the margin is 0.0500"]


def test_unparsed_answers_stop_a_gain_and_the_first_model(before: np.ndarray) -> None:
    for champion in (answers(before), None):
        decision = judge(champion, answers(before + 0.1, unparsed=9), RULES)
        assert decision["verdict"] == "keep"
        assert decision["reasons"] == ["2.25% of its responses do not parse, at most 2.00% may"]
    assert judge(None, answers(before), RULES)["verdict"] == "promote"


def test_groups_are_drawn_whole(before: np.ndarray) -> None:
    """Eight parts of a group that rise and fall together are one observation: an interval wider by the root of 8."""
    shared = np.repeat(np.random.default_rng(2).normal(0.03, 0.1, 50), 8)
    alone, together = (
        judge(answers(before, per_unit=size), answers(before + shared, per_unit=size), RULES)["overall"]
        for size in (1, 8)
    )
    ratio = (together["high"] - together["low"]) / (alone["high"] - alone["low"])
    assert ratio == pytest.approx(8**0.5, rel=0.15)


def few(difference: list[float], dataset: str = "first", per_unit: int = 1) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers of champion and challenger with these differences in reward, all of one data set."""
    steps = np.array(difference)
    tables = (answers(rewards, per_unit=per_unit) for rewards in (np.full(len(steps), 0.5), 0.5 + steps))
    before, after = (
        table.with_columns(pl.lit(dataset).alias("dataset"), pl.format(dataset + "/{}", "unit").alias("unit"))
        for table in tables
    )
    return before, after


@pytest.mark.parametrize("units", [1, 2, 3, 7, 8])
def test_few_units_cannot_decide(units: int) -> None:
    """All differences have one sign by chance in 2^(1 - n) of the cases; 2^-6 is more than .01, 2^-7 less."""
    decision = judge(*few([0.3] * 6 * units, per_unit=6), RULES)
    reasons = (
        [f"{units} units cannot decide at level 0.99"] if units < 8 else ["it is better overall, and nowhere worse"]
    )
    assert decision["reasons"] == reasons
    assert decision["overall"]["units"] == units
    assert ("low" in decision["overall"]) == (units > 1)
    assert ("none: one unit" in as_markdown(decision, "new", "old")) == (units == 1)


def test_chance_seldom_promotes_whatever_the_number_of_units() -> None:
    rng = np.random.default_rng(0)
    for units in (1, 2, 3, 5, 8):
        verdicts = [judge(*few(rng.normal(0, 0.1, units).tolist()), RULES)["verdict"] for _ in range(100)]
        assert verdicts.count("promote") <= 3


@pytest.mark.parametrize(("step", "verdict"), [(-0.04, "promote"), (-0.06, "keep")])
def test_a_data_set_of_one_unit_is_held_to_its_difference(step: float, verdict: str) -> None:
    large, one = few([0.3] * 20), few([step] * 6, "second", per_unit=6)
    one = tuple(table.with_columns(pl.format("one/{}", "sample_id").alias("sample_id")) for table in one)
    decision = judge(*(pl.concat(pair) for pair in zip(large, one)), RULES)
    assert decision["verdict"] == verdict
    assert "low" not in decision["datasets"]["second"]


def test_other_samples_are_no_comparison(before: np.ndarray) -> None:
    with pytest.raises(EvaluationError, match="did not answer the same samples: s0399"):
        judge(answers(before), answers(before).head(399), RULES)


@pytest.mark.parametrize("wrong", [None, float("nan"), float("inf")])
def test_a_reward_that_is_no_number_decides_nothing(before: np.ndarray, wrong: float | None) -> None:
    good = answers(before)
    bad = answers(before + 0.1).with_columns(
        reward=pl.when(pl.col("sample_id") == "s0007").then(pl.lit(wrong, pl.Float64)).otherwise(pl.col("reward"))
    )
    with pytest.raises(EvaluationError, match="the challenger has no finite reward for s0007"):
        judge(good, bad, RULES)
    with pytest.raises(EvaluationError, match="the challenger"):
        judge(None, bad, RULES)
    with pytest.raises(EvaluationError, match="the champion has no finite reward for s0007"):
        judge(bad, good, RULES)


def test_a_person_can_read_it(before: np.ndarray) -> None:
    text = as_markdown(judge(answers(before), answers(before + 0.1), RULES), "v0.0.2", "v0.0.1")
    assert "**v0.0.2 takes the place of v0.0.1**" in text
    assert "| second | 200 |" in text
    assert "99 % interval" in text


@pytest.mark.parametrize("version", ["this", "another"])
def test_answers_of_the_champion_are_kept_by_what_decides_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    """Its folder and its own sizes, today's data and reward; where all are there, no model is loaded.

    Another version of the project may have made it: its parameters are not today's.
    """
    monkeypatch.syspath_prepend(ROOT / "stages")  # as when it is run
    script = importlib.import_module("stages.judge")
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "prepare_torch", lambda *_: (None, None))
    monkeypatch.setattr(script, "run_key", lambda settings, inputs, code: asked.append((settings, inputs)) or "key")
    monkeypatch.setattr(script, "load_segmenter", lambda *_, **__: pytest.fail("a model was loaded"))
    champion = tmp_path / "champion"
    champion.mkdir()
    content = load_yaml(ROOT / "params.yaml")
    content["policy"]["max_pixels"] += 1
    if version == "another":
        del content["drift"], content["policy"]["autocast"]
        content |= {"gone": {"since": 1}, "cgpo": {}}
        content["policy"]["gone"] = 2
    (champion / "params.yaml").write_text(json.dumps(content))
    params = load_params(ROOT / "params.yaml")
    rows = [{"sample_id": f"s{number}", "reward": number / 250, "parsed": True} for number in range(250)]
    parts = Parts(Path("runs/judge/key"), len(rows), params.masks.batch_size)
    for number in parts.numbers:
        with parts.writing(number) as part:
            (part / "answers.json").write_text(json.dumps(parts.of(rows, number)))
    assert len(parts.numbers) > 1
    assert script.ask(params, champion, rows).to_dicts() == rows
    ((settings, inputs),) = asked
    assert {champion, script.DOWNLOAD / "report.json", script.DOWNLOAD / "table.parquet"} <= set(inputs)
    assert settings["policy"] == params.result_settings("policy")["policy"] | {
        "max_pixels": content["policy"]["max_pixels"]
    }
    assert settings["rewards"] == params.rewards.model_dump()
