"""What CGPO and GRPO make of the same responses: right or wrong, sure or unsure.

    python -m saliency_r1.runtime.launch --nproc-per-node 2 benchmarks/response_types.py
    python benchmarks/response_types.py --prompts 200          # 1,600 responses instead of 8,000

Samples 8 responses to each training prompt with the SFT policy, takes reward r and confidence c of each, and the
advantage that each algorithm would give it: CGPO r - c, GRPO r standardised within the prompt's group. The advantages
are rank-normalised to [-1, 1] over all responses, so that they compare. The four types are the bottom and top 20 % of r
and of c, as in the paper's analysis. A second table asks what c could be made of: a baseline helps if it follows the
mean reward of the prompt, and takes away signal if it follows what is better within a prompt. Prints both tables;
writes benchmarks/response-types.json and docs/response-types.png. Needs artifacts/download and sft (`dvc repro sft`).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from saliency_r1.params import Params, load_params
from saliency_r1.policy import Policy
from saliency_r1.report.calibration import response_types
from saliency_r1.rollout import confidence
from saliency_r1.rollout.environment import Environment
from saliency_r1.rollout.passes import passes
from saliency_r1.runtime import processes
from saliency_r1.runtime.files import write_json
from saliency_r1.runtime.stage import prepare_torch
from saliency_r1.training import advantages, sft
from saliency_r1.training.cgpo import response_seed

DOWNLOAD, ADAPTER = Path("artifacts/download"), Path("artifacts/sft/adapter")
GROUP = 8
AT_ONCE = 25  # prompts, with all their responses


def sample(policy: Policy, environment: Environment, rows: Sequence[Any], params: Params) -> list[list[dict[str, Any]]]:
    """For each row of the sample table its responses: task, reward, confidence and what else confidence could be."""
    groups: list[list[dict[str, Any]]] = []
    for start in range(0, len(rows), AT_ONCE):
        own = [row for row in rows[start : start + AT_ONCE] for _ in range(GROUP)]
        prompts = environment.prompts(policy, own)
        seeds = [response_seed(params.seed, row["place"], place % GROUP) for place, row in enumerate(own)]
        responses = environment.respond(policy, prompts, seeds, params.cgpo.temperature)
        scored = environment.score(own, responses)
        records: list[dict[str, Any]] = [
            {"task": row["task"], "prompt": row["place"], "reward": rollout.reward.value}
            for row, rollout in zip(own, scored)
        ]
        with torch.no_grad():
            for one in passes(policy, prompts, responses, params.cgpo.micro_batch, params.cgpo.temperature):
                for row, place in enumerate(one.positions):
                    logprobs, entropy = one.own(row, one.logprobs).cpu().double(), one.own(row, one.entropy).cpu()
                    response = responses[place]
                    parts = confidence.parts(policy, response)
                    options = params.cgpo
                    counted = confidence.counted(
                        parts, options.confidence, options.confidence_end_token, response.ended
                    )
                    records[place]["confidence"] = logprobs.exp()[counted].mean().item()
                    records[place] |= kinds(logprobs, entropy, parts)
        groups += [records[first : first + GROUP] for first in range(0, len(records), GROUP)]
    return groups


def kinds(logprobs: torch.Tensor, entropy: torch.Tensor, parts: dict[str, torch.Tensor]) -> dict[str, float | None]:
    """What a confidence could be made of, from the log-probabilities and entropies of a response's tokens."""
    means = {f"mean, {part}": logprobs.exp()[own].mean().item() if own.any() else None for part, own in parts.items()}
    return means | {
        "geometric mean": logprobs.mean().exp().item(),
        "least": logprobs.min().exp().item(),
        "whole response": logprobs.sum().item(),
        "minus mean entropy": -entropy.mean().item(),
        "minus greatest entropy": -entropy.max().item(),
    }


def baselines(table: pl.DataFrame) -> pl.DataFrame:
    """For each kind of confidence its correlation with the mean reward of the prompt, and with what is beyond it.

    Within each task, then the mean of the tasks. The square of the first is the share of the variance between prompts
    that such a baseline takes away; the second is signal that it takes away as well.
    """
    names = [name for name in table.columns if name not in ("task", "prompt", "reward")]
    centred = table.with_columns(mean=pl.mean("reward").over("prompt"))
    centred = centred.with_columns(beyond=pl.col("reward") - pl.col("mean"))
    rows = []
    for name in names:
        inner = pl.col(name) - pl.mean(name).over("prompt")
        known = centred.filter(pl.col(name).is_not_null()).with_columns(inner=inner)
        tasks = known.group_by("task").agg(between=pl.corr(name, "mean"), within=pl.corr("inner", "beyond"))
        rows.append({"c": name, "with the prompt's mean": tasks["between"].mean(), "within": tasks["within"].mean()})
    return pl.DataFrame(rows)


def between_prompts(table: pl.DataFrame) -> dict[str, float]:
    """The share of the variance of r that lies between prompts, by task (one-way analysis of variance)."""
    groups = table.group_by("task", "prompt").agg(mean=pl.mean("reward"), inner=pl.var("reward"))
    tasks = groups.group_by("task", maintain_order=True).agg(outer=pl.var("mean"), inner=pl.mean("inner"))
    shares = {}
    for row in tasks.sort("task").to_dicts():
        between = max(row["outer"] - row["inner"] / GROUP, 0.0)
        shares[row["task"]] = between / (between + row["inner"])
    return shares


def ranked(values: torch.Tensor) -> np.ndarray:
    """Values (n,) by rank, from -1 for the least to 1 for the greatest; equal ones share a rank."""
    from scipy.stats import rankdata

    return np.asarray((rankdata(values.numpy()) - 1) / max(len(values) - 1, 1) * 2 - 1)


def judge(table: pl.DataFrame) -> pl.DataFrame:
    """The table with the rank-normalised advantages of both algorithms, `cgpo` and `grpo`."""
    rewards, confidences = (torch.tensor(table[name].to_list()) for name in ("reward", "confidence"))
    return table.with_columns(
        cgpo=pl.Series(ranked(advantages.cgpo(rewards, confidences))),
        grpo=pl.Series(ranked(advantages.grpo(rewards, GROUP))),
    )


def by_type(table: pl.DataFrame) -> pl.DataFrame:
    """One row for each of the four types: how many responses, their mean reward, confidence and advantages."""
    numbered = table.with_row_index("rollout_id")
    judged = {name: response_types(numbered.with_columns(advantage=name)) for name in ("cgpo", "grpo")}
    return pl.DataFrame(
        {
            "type": row["type"].partition(":")[0],
            **{key: row[key] for key in ("responses", "reward", "confidence")},
            "cgpo": row["advantage"],
            "grpo": other["advantage"],
        }
        for row, other in zip(judged["cgpo"], judged["grpo"])
    )


def draw(types: pl.DataFrame, path: Path) -> None:
    """The mean rank-normalised advantage of each type under both algorithms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(types))
    for shift, name, colour in ((-0.19, "cgpo", "#c2255c"), (0.19, "grpo", "#1971c2")):
        axes.bar(places + shift, types[name].fill_null(0), 0.36, label=name.upper(), color=colour)
    axes.axhline(0, color="#495057", linewidth=1)
    axes.set_xticks(places, [f"{row['type']}\n{row['responses']} responses" for row in types.to_dicts()], fontsize=8)
    axes.set_ylabel("mean advantage by rank")
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Sample, judge, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1000)
    arguments = parser.parse_args()
    params = load_params("params.yaml")
    device, dtype = prepare_torch(params.runtime, params.seed)
    policy = Policy.load(DOWNLOAD / "models/policy", ADAPTER, device=device, dtype=dtype, **params.policy.loading)
    environment = Environment.load(params, DOWNLOAD, device, dtype)
    order = np.random.default_rng(params.seed).permutation(len(rows := sft.read_rows(DOWNLOAD)))
    chosen = [{**rows[place], "place": int(place)} for place in order[: arguments.prompts]]
    groups = processes.map_sharded(chosen, lambda own: sample(policy, environment, own, params))
    if not processes.is_main():
        return
    records = pl.DataFrame([record for group in groups for record in group], infer_schema_length=None)
    table = judge(records)
    types = by_type(table)
    with pl.Config(
        tbl_cols=-1, tbl_rows=-1, tbl_width_chars=120, tbl_formatting="MARKDOWN", tbl_hide_column_data_types=True
    ):
        print(types)
        print(kinds_of_c := baselines(records))
    correlation = np.corrcoef(table["reward"].rank(), table["confidence"].rank())[0, 1]
    agreement = np.corrcoef(table["cgpo"], table["grpo"])[0, 1]
    print(f"{len(table)} responses; rank correlation of r and c {correlation:+.3f}, of the advantages {agreement:+.3f}")
    shares = between_prompts(records)
    print("of the variance of r lies between prompts:", ", ".join(f"{k} {v:.2f}" for k, v in shares.items()))
    content = {"responses": len(table), "r_and_c": correlation, "cgpo_and_grpo": agreement, "types": types.to_dicts()}
    content |= {"between_prompts": shares, "kinds_of_c": kinds_of_c.to_dicts()}
    write_json(Path("benchmarks/response-types.json"), content)
    draw(types, Path("docs/response-types.png"))


if __name__ == "__main__":
    main()
