"""CGPO beside the other algorithms and beside controls, at equal generated responses, over several seeds.

    python -m saliency_r1.runtime.launch --nproc-per-node 2 benchmarks/cgpo_vs_grpo.py       # everything, five seeds
    python -m saliency_r1.runtime.launch --nproc-per-node 2 benchmarks/cgpo_vs_grpo.py --arms cgpo
    python benchmarks/cgpo_vs_grpo.py --show                       # the table and docs/cgpo-vs-grpo.png once more

Needs artifacts/download, annotate and sft (`dvc repro sft`). Every run starts from the same SFT adapter; a seed decides
the order of prompts and what is sampled. An update samples as many responses in every arm, but for
`grpo-equal-prompts`, which has as many prompts as CGPO and eight times the responses. What is judged are greedy
answers to the test samples, paired with those of the start. Runs are written down one by one; a further call goes on
where the last one stopped.
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from saliency_r1.names import TASKS
from saliency_r1.params import Cgpo, Params, parse_params
from saliency_r1.policy import Policy
from saliency_r1.report.calibration import expected_calibration_error, last_rollouts, reliability
from saliency_r1.rollout.environment import Environment
from saliency_r1.runtime import processes
from saliency_r1.runtime.files import write_json
from saliency_r1.runtime.stage import prepare_torch
from saliency_r1.training import cgpo, sft
from saliency_r1.yaml_loader import load_yaml

DOWNLOAD, ANNOTATE, ADAPTER = Path("artifacts/download"), Path("artifacts/annotate"), Path("artifacts/sft/adapter")
MEANS = ("reward", "parse_failures", "sampled_reward", "confidence", "calibration_error", "entropy", "tokens",
         "seconds")  # fmt: skip
SECTIONS = ("seed", "runtime", "policy", "segmenter", "download", "annotate", "sft", "rewards", "cgpo")
Table = list[dict[str, Any]]


def with_column(name: str, change: Callable[[list[float]], list[float]]) -> cgpo.Advantage:
    """The algorithm's advantage of a table in which one column was changed."""

    def advantage(table: Sequence[dict[str, Any]], options: Cgpo) -> torch.Tensor:
        changed = change([row[name] for row in table])
        return cgpo.advantage_of([{**row, name: value} for row, value in zip(table, changed)], options)

    return advantage


without_confidence = with_column("confidence", lambda values: [0.0] * len(values))


def weighted_by_confidence(table: Sequence[dict[str, Any]], options: Cgpo) -> torch.Tensor:
    """r in the form of params.yaml, times a weight of .5 to 1.5: by the rank of c in the task, more for right and
    unsure and for wrong and sure. Another way for c to come in, without what a baseline that knows the response adds.
    """
    rewards = without_confidence(table, options)
    frame = pl.DataFrame({"task": [row["task"] for row in table], "c": [row["confidence"] for row in table]})
    ranks = frame.select((pl.col("c").rank() - 0.5).over("task") / pl.len().over("task")).to_series()
    sure = torch.tensor(ranks.to_list())
    return rewards * torch.where(rewards > 0, 1.5 - sure, 0.5 + sure)


@dataclass(frozen=True)
class Arm:
    """What is changed in the section `cgpo` and, for a control, how its advantage comes about.

    A fraction for a whole number multiplies what stands in params.yaml.
    """

    change: dict[str, Any] = field(default_factory=dict)
    advantage: cgpo.Advantage = cgpo.advantage_of


OWN, SHARED = {"moments": "own"}, {"moments": "shared"}  # of Adam, for the ISR steps
TASK = {"normalise": "task", "isr": SHARED}
GROUPS = {"algorithm": "grpo", "group_size": 8}
# Twice as many updates with half the responses, and as many ISR steps.
SHORT = {"batch_size": 0.5, "updates": 2.0, "warmup": 2.0, "isr": {"every": 2.0}}
ARMS = {
    "cgpo": Arm({"normalise": "none", "isr": OWN}),  # as shipped
    "cgpo-task": Arm(TASK),
    "cgpo-plain": Arm({"normalise": "none", "isr": SHARED}),
    "cgpo-leave-one-out": Arm({"normalise": "leave_one_out", "isr": SHARED}),
    "cgpo-batch": Arm({"normalise": "batch", "isr": SHARED}),
    # r lies around c; these two lift it above c, so that every advantage is positive, or below, so that none is.
    "cgpo-plain-above": Arm({"normalise": "none"}, with_column("reward", lambda rs: [0.9 + r / 10 for r in rs])),
    "cgpo-plain-below": Arm({"normalise": "none"}, with_column("reward", lambda rs: [r / 2 for r in rs])),
    "reinforce++": Arm({"algorithm": "reinforce_pp"}),
    "rloo": Arm({"algorithm": "rloo", "group_size": 8}),
    "grpo": Arm(GROUPS),
    "grpo-equal-prompts": Arm(GROUPS | {"batch_size": 8.0}),  # as many prompts as cgpo has, eight answers to each
    "grpo-kl-0.04": Arm(GROUPS | {"kl": 0.04}),
    "remax": Arm({"algorithm": "remax", "batch_size": 0.5}),  # its greedy answers are the other half
    "control-no-reward": Arm(advantage=lambda table, options: torch.zeros(len(table))),
    "control-no-confidence": Arm(advantage=without_confidence),
    "control-constant-reward": Arm(advantage=with_column("reward", lambda values: [0.9] * len(values))),
    "control-shuffled-advantage": Arm(advantage=lambda table, options: cgpo.advantage_of(table, options).roll(1)),
    "control-shuffled-confidence": Arm(advantage=with_column("confidence", lambda values: values[1:] + values[:1])),
    "control-compressed-reward": Arm(advantage=with_column("reward", lambda values: [0.6 + 0.4 * r for r in values])),
    "isr-own-moments": Arm({"normalise": "task", "isr": OWN}),
    "isr-own-moments-leave-one-out": Arm({"normalise": "leave_one_out", "isr": OWN}),
    "isr-off": Arm({"isr": {"every": 0}}),
    "isr-twice-as-often": Arm({"isr": {"every": 0.5}}),
    "isr-half-as-often": Arm({"isr": {"every": 2.0}}),
    "isr-weight-0.3": Arm({"isr": {"weight": 0.3}}),
    # The search for a form that beats GRPO; what GRPO can do as well, it does.
    "cgpo-answer": Arm({"confidence": "answer"}),
    "cgpo-weighted": Arm(advantage=weighted_by_confidence),
    "cgpo-two-passes": Arm({"epochs": 2}),
    "grpo-two-passes": Arm(GROUPS | {"epochs": 2}),
    "cgpo-short-updates": Arm(SHORT),
    "grpo-short-updates": Arm(SHORT | GROUPS),
}


def parameters(overrides: Sequence[str], change: dict[str, Any]) -> Params:
    """params.yaml with `section.key=value` overrides and an arm's change of the section `cgpo`."""
    content = load_yaml("params.yaml")
    for override in overrides:
        key, _, value = override.partition("=")
        *parents, last = key.split(".")
        section = content
        for parent in parents:
            section = section[parent]
        section[last] = load_yaml(io.StringIO(value))
    content["cgpo"] = changed(content["cgpo"], change)
    return parse_params(content)


def changed(section: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A section with an arm's change."""
    section = dict(section)
    for key, value in change.items():
        if isinstance(value, dict):
            section[key] = changed(section[key], value)
        elif isinstance(section[key], int) and isinstance(value, float):
            section[key] = max(1, int(section[key] * value))
        else:
            section[key] = value
    return section


def answers(environment: Environment, policy: Policy, rows: Table) -> pl.DataFrame:
    """Greedy answers to all rows, in order: reward, its components, whether it parses."""

    def records(own: Table) -> Table:
        parts = [environment.greedy(policy, own[start : start + 100]) for start in range(0, len(own), 100)]
        return [
            {"task": rollout.row["task"], "reward": rollout.reward.value, "parsed": rollout.parsed.ok}
            | {name: rollout.reward.components.get(name) for name in ("s_measure", "matched_iou")}
            for part in parts
            for rollout in part
        ]

    return pl.DataFrame(processes.map_sharded(rows, records), infer_schema_length=None)


def interval(differences: np.ndarray, replicates: int = 10_000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired differences (n,)."""
    rng = np.random.default_rng(0)
    means = differences[rng.integers(len(differences), size=(replicates, len(differences)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def summary(
    before: pl.DataFrame, after: pl.DataFrame, updates: Sequence[cgpo.Update], seconds: float
) -> dict[str, Any]:
    """What a run is judged by: its answers, and what it sampled in the last half of its updates."""
    difference = (after["reward"] - before["reward"]).to_numpy()
    low, high = interval(difference)
    rollouts = pl.DataFrame([row for update in updates for row in update.rollouts], infer_schema_length=None)
    late = last_rollouts(rollouts)
    by_task = after.with_columns(gain=pl.Series(difference)).group_by("task", maintain_order=True)
    return {
        "sft": before["reward"].mean(), "reward": after["reward"].mean(),
        "gain": difference.mean(), "low": low, "high": high,
        "tasks": by_task.agg(pl.mean("gain", "reward", "s_measure", "matched_iou")).to_dicts(),
        "parse_failures": (~after["parsed"]).mean(),
        "sampled_reward": late["reward"].mean(), "confidence": late["confidence"].mean(),
        "calibration_error": expected_calibration_error(reliability(late)), "entropy": late["entropy"].mean(),
        "tokens": int(rollouts["tokens"].sum()), "seconds": seconds,
    }  # fmt: skip


class Bench:
    """What all runs share: data, segmenter, the start and its answers."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.overrides = arguments.set
        params = parameters(self.overrides, {})
        self.device, self.dtype = prepare_torch(params.runtime, params.seed)
        self.environment = Environment.load(params, DOWNLOAD, self.device, self.dtype)
        self.prompts, self.examples = sft.read_rows(DOWNLOAD), sft.read_examples(DOWNLOAD, ANNOTATE)
        table = pl.read_parquet(DOWNLOAD / "table.parquet").filter(split=arguments.split)
        self.rows = table.group_by("dataset", maintain_order=True).head(arguments.samples).to_dicts()
        self.before = answers(self.environment, self.start(params, False), self.rows)
        say(f"sft: {self.before.select(pl.mean('reward')).item():.4f} over {len(self.rows)} {arguments.split} samples")

    def start(self, params: Params, trainable: bool) -> Policy:
        """The policy with the SFT adapter."""
        loading = params.policy.loading
        return Policy.load(
            DOWNLOAD / "models/policy", ADAPTER, device=self.device, dtype=self.dtype, trainable=trainable, **loading
        )

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        """Train one arm with one seed and judge it."""
        params = parameters(self.overrides, ARMS[arm].change)
        policy = self.start(params, True)
        began = time.perf_counter()
        options = params.cgpo.model_copy(update={"checkpoint_every": params.cgpo.updates + 1})
        with tempfile.TemporaryDirectory() as runs:
            training = cgpo.train(
                policy, self.environment, self.prompts, self.examples, options, seed, Path(runs), ARMS[arm].advantage
            )
            updates = list(training)
        seconds = time.perf_counter() - began
        after = answers(self.environment, policy, self.rows)
        return {"arm": arm, "seed": seed, **summary(self.before, after, updates, seconds)}


def over_seeds(runs: Table) -> Table:
    """Each arm with the mean of its gains and, from three seeds on, a 95 % interval over them (Student's t)."""
    from scipy.stats import t as student

    rows = []
    for arm in sorted({run["arm"] for run in runs}, key=list(ARMS).index):
        own = [run for run in runs if run["arm"] == arm]
        gains = np.array([run["gain"] for run in own])
        spread = student.ppf(0.975, len(own) - 1) * gains.std(ddof=1) / len(own) ** 0.5 if len(own) > 2 else np.nan
        means = {key: np.mean([run[key] for run in own]) for key in MEANS}
        tasks: dict[str, Any] = {
            task: np.mean([entry["gain"] for run in own for entry in run["tasks"] if entry["task"] == task])
            for task in TASKS
        }
        above = sum(run["low"] > 0 for run in own)
        own_row = {"arm": arm, "seeds": len(own), "gain": gains.mean(), "spread": spread, "above": above}
        rows.append({**own_row, "gains": gains, **tasks, **means})
    return rows


def markdown(rows: Table) -> str:
    """The arms as a Markdown table."""
    head = ("arm", "seeds", "gain", "95 % over seeds", "seeds above 0", "SOD", "SIS", "CoSOD", "unparsed",
            "sampled r", "c", "ECE", "entropy", "tokens", "seconds")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        spread = f"± {row['spread']:.4f}" if row["seeds"] > 2 else ""
        cells = (row["arm"], row["seeds"], f"{row['gain']:+.4f}", spread, row["above"],
                 *(f"{row[task]:+.3f}" for task in TASKS), f"{100 * row['parse_failures']:.1f} %",
                 *(f"{row[key]:.3f}" for key in ("sampled_reward", "confidence", "calibration_error", "entropy")),
                 f"{row['tokens']:,.0f}", f"{row['seconds']:.0f}")  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def draw(rows: Table, path: Path) -> None:
    """Gains of all arms: a point a seed, a bar for the interval over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        kind = row["arm"].partition("-")[0]
        colour = {"cgpo": "#c2255c", "control": "#868e96", "isr": "#868e96"}.get(kind, "#1971c2")
        axes.errorbar(row["gain"], place, xerr=row["spread"], fmt="o", color=colour, capsize=3)
        axes.plot(row["gains"], [place] * len(row["gains"]), "|", color=colour, alpha=0.6, markersize=9)
    axes.axvline(0, color="#adb5bd", linewidth=1)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(range(len(rows)), [row["arm"] for row in reversed(rows)])
    axes.set_xlabel("greedy reward, difference to the SFT start; ticks: seeds, bars: 95 % over seeds")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=120)


def say(text: str) -> None:
    """Print once, however many processes there are."""
    if processes.is_main():
        print(text, flush=True)


def main() -> None:
    """Run what is missing, then show everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--split", default="test", help="what is answered; settings are chosen on val")
    parser.add_argument("--samples", type=int, default=1000, help="samples of each data set at most")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/cgpo-vs-grpo.json"))
    parser.add_argument("--show", action="store_true", help="run nothing; print the table and draw the picture")
    arguments = parser.parse_args()
    # Runs of other settings are not continued: they would stand in one table with these.
    params = parameters(arguments.set, {}).result_settings(*SECTIONS)
    settings = {"split": arguments.split, "samples": arguments.samples, "params": params}
    found = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else None
    if found and json.loads(json.dumps(settings)) != {key: found[key] for key in settings} and not arguments.show:
        parser.error(f"{arguments.out} holds runs with other settings; move it away, or choose another --out")
    runs: Table = found["runs"] if found else []
    if not arguments.show:
        bench = Bench(arguments)
        for seed in range(1, arguments.seeds + 1):
            for arm in arguments.arms:
                if any((run["arm"], run["seed"]) == (arm, seed) for run in runs):
                    continue
                runs.append(bench.run(arm, seed))
                done = runs[-1]
                say(f"{arm}, seed {seed}: {done['gain']:+.4f} [{done['low']:+.4f}, {done['high']:+.4f}], "
                    f"{100 * done['parse_failures']:.1f} % unparsed, {done['seconds']:.0f} s")  # fmt: skip
                if processes.is_main():
                    write_json(arguments.out, settings | {"runs": runs})
    if processes.is_main():
        rows = over_seeds(runs)
        print(markdown(rows))
        if arguments.out == parser.get_default("out"):
            draw(rows, Path("docs/cgpo-vs-grpo.png"))


if __name__ == "__main__":
    main()
