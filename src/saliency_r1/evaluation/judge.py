"""Whether a new model takes the place of the champion: both answered the same samples, and are compared in pairs.

    decision = judge(champion_answers, challenger_answers, params.judge)
    decision["verdict"]                 # "promote" or "keep"

An answer is a row with `sample_id, task, dataset, reward, parsed, unit`; `unit` is what the bootstrap draws, the sample
or the group of images that it is a part of. Equal answers give an equal decision: the draws are seeded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from saliency_r1.evaluation.split import DIGITS, EvaluationError, bootstrap_mean, ends
from saliency_r1.params import Judge

Scope = dict[str, float]


def judge(champion: pl.DataFrame | None, challenger: pl.DataFrame, rules: Judge) -> dict[str, Any]:
    """The decision with all its numbers; without a champion the limit on parse failures decides alone.

    Promotion needs, in mean reward: a difference of `minimum_effect` or more over all samples, its interval above zero,
    and no data set on which the challenger may be worse by more than `margin` (the lower end of its interval; of a
    single unit, which has none, the difference itself). Of so few units that by chance alone all their differences have
    one sign more often than `level` allows, none is promoted.
    Raises `EvaluationError` where the two did not answer the same samples, and for rewards that are no numbers.
    """
    for who, answers in (("champion", champion), ("challenger", challenger)):
        if answers is not None:
            _check_rewards(who, answers)
    failures = _failures(challenger)
    decision: dict[str, Any] = {
        "verdict": "keep",
        "reasons": [],
        "overall": None,
        "datasets": {},
        "parse_failures": {"champion": _failures(champion), "challenger": failures, "limit": rules.parse_failures},
        "rules": rules.model_dump(),
    }
    reasons = decision["reasons"]
    if failures is not None and failures > rules.parse_failures:
        reasons.append(f"{failures:.2%} of its responses do not parse, at most {rules.parse_failures:.2%} may")
    if champion is not None:
        pairs = _pairs(champion, challenger)
        decision["overall"] = overall = _compare(pairs, rules.level)
        decision["datasets"] = {
            name: _compare(rows, rules.level) for (name,), rows in pairs.group_by("dataset", maintain_order=True)
        }
        reasons += _objections(overall, decision["datasets"], rules)
    if not reasons:
        decision["verdict"] = "promote"
        reasons.append("it is the first model" if champion is None else "it is better overall, and nowhere worse")
    return decision


def _objections(overall: Scope, datasets: Mapping[str, Scope], rules: Judge) -> list[str]:
    found = []
    if 2.0 ** (1 - overall["units"]) > 1 - rules.level:
        found.append(f"{overall['units']} units cannot decide at level {rules.level:g}")
    if overall["difference"] < rules.minimum_effect:
        found.append(f"the difference {overall['difference']:+.4f} is below the minimum {rules.minimum_effect:+.4f}")
    if overall.get("low", 1) <= 0:
        found.append(f"the interval of the difference reaches down to {overall['low']:+.4f}")
    found += [
        f"{name}: may be worse by {-low:.4f}, the margin is {rules.margin:.4f}"
        for name, scope in datasets.items()
        if (low := scope.get("low", scope["difference"])) < -rules.margin
    ]
    return found


def _check_rewards(who: str, answers: pl.DataFrame) -> None:
    """Every comparison with NaN is false, so that one such reward would pass all the rules."""
    number = answers["reward"].cast(pl.Float64).is_finite().fill_null(False)
    if bad := answers.filter(~number)["sample_id"].to_list():
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise EvaluationError(f"the {who} has no finite reward for {', '.join(sorted(bad)[:10])}{more}; answer again")


def _pairs(champion: pl.DataFrame, challenger: pl.DataFrame) -> pl.DataFrame:
    before, after = (set(table["sample_id"]) for table in (champion, challenger))
    if before != after or len(before) != champion.height or len(after) != challenger.height:
        names = ", ".join(sorted(before ^ after)[:10]) or "some twice"
        raise EvaluationError(f"champion and challenger did not answer the same samples: {names}")
    theirs = champion.select("sample_id", champion="reward")
    return challenger.join(theirs, on="sample_id").sort("sample_id")


def _compare(pairs: pl.DataFrame, level: float) -> Scope:
    difference = (pairs["reward"] - pairs["champion"]).to_numpy()
    values = {
        "champion": pairs["champion"].to_numpy().mean(),
        "challenger": pairs["reward"].to_numpy().mean(),
        "difference": difference.mean(),
        **ends(bootstrap_mean(difference, pairs["unit"], level)),
    }
    counts = {"samples": pairs.height, "units": pairs["unit"].n_unique()}
    return {**counts, **{key: round(float(value), DIGITS) for key, value in values.items()}}


def _interval(scope: Scope) -> str:
    return f"{scope['low']:+.4f} to {scope['high']:+.4f}" if "low" in scope else "none: one unit"


def _failures(answers: pl.DataFrame | None) -> float | None:
    return None if answers is None else round(float((~answers["parsed"]).to_numpy().mean()), DIGITS)


def as_markdown(decision: Mapping[str, Any], challenger: str, champion: str | None) -> str:
    """A decision as a person reads it: the verdict, why, and a table."""
    verdict = {"promote": "takes the place of", "keep": "does not take the place of"}[decision["verdict"]]
    lines = [f"**{challenger} {verdict} {champion or 'nobody'}**", ""]
    lines += [f"- {reason}" for reason in decision["reasons"]]
    if decision["overall"]:
        percent = f"{100 * decision['rules']['level']:g} %"
        lines += ["", f"| mean reward | samples | champion | challenger | difference | {percent} interval |"]
        lines.append("|---|---:|---:|---:|---:|---:|")
        for name, row in {"overall": decision["overall"], **decision["datasets"]}.items():
            lines.append(
                f"| {name} | {row['samples']} | {row['champion']:.4f} | {row['challenger']:.4f} "
                f"| {row['difference']:+.4f} | {_interval(row)} |"
            )
    shares = decision["parse_failures"]
    before = "" if shares["champion"] is None else f"champion {shares['champion']:.2%}, "
    lines += ["", f"Responses that do not parse: {before}challenger {shares['challenger']:.2%}"]
    return "\n".join([*lines, ""])
