"""Does this run's model take the champion's place? `python stages/judge.py runs/models/<commit>`, or `- ` for none.

Not a stage of the graph: who is champion is a matter of the day. The champion answers today's test split, with its own
bases and sizes and in today's reward; what it has answered is kept in runs/judge/. The answers of this run's model are
those of the stage masks. Writes records/decision.json and records/decision.md, which a night commits.
"""

import sys
from pathlib import Path
from typing import Any

import own_tree  # noqa: F401
import polars as pl

from saliency_r1.evaluation.judge import as_markdown, judge
from saliency_r1.params import Params
from saliency_r1.policy.adapters import Policies
from saliency_r1.prediction.models import packaged
from saliency_r1.prediction.packaged import load_packaged
from saliency_r1.prediction.split import answers
from saliency_r1.registry.package import MODEL
from saliency_r1.rollout.environment import Environment, Row
from saliency_r1.runtime.files import write_json, write_text
from saliency_r1.runtime.keys import run_key, stage_code
from saliency_r1.runtime.parts import Parts, keep_only
from saliency_r1.runtime.stage import prepare_torch, progress, run_stage
from saliency_r1.segmenter import load as load_segmenter

DOWNLOAD = Path("artifacts/download")
RECORDS = Path("records")


def main(params: Params) -> None:
    """Compare and write the decision."""
    folder = None if sys.argv[1] == "-" else Path(sys.argv[1])
    samples = pl.read_parquet(DOWNLOAD / "table.parquet").filter(split=params.masks.split)
    unit = pl.coalesce(pl.format("{}/{}", "dataset", "group"), "sample_id")
    challenger = pl.read_parquet("artifacts/masks/table.parquet").filter(model=MODEL)
    tables = [challenger] if folder is None else [challenger, ask(params, folder, list(samples.to_dicts()))]
    units = samples.select("sample_id", unit=unit)
    mine, *theirs = [table.join(units, on="sample_id", maintain_order="left") for table in tables]
    decision = judge(theirs[0] if theirs else None, mine, params.judge)
    RECORDS.mkdir(exist_ok=True)
    write_json(RECORDS / "decision.json", decision)
    text = as_markdown(decision, "this run's model", None if folder is None else "the champion")
    write_text(RECORDS / "decision.md", text)
    print(text)


def ask(params: Params, folder: Path, samples: list[Row]) -> pl.DataFrame:
    """The champion's answers to the samples: `sample_id, reward, parsed` and what else a rollout's record has."""
    device, dtype = prepare_torch(params.runtime, params.seed)
    theirs = load_packaged(folder / "params.yaml")
    settings = params.result_settings("seed", "runtime", "rewards", "masks") | theirs.deciding
    inputs = [DOWNLOAD / "report.json", DOWNLOAD / "table.parquet", folder]
    key = run_key(settings, inputs, [*stage_code("masks"), Path(__file__)])
    parts = Parts(Path("runs/judge") / key, len(samples), params.masks.batch_size)
    if missing := parts.missing():
        segmenter = load_segmenter(packaged(folder, "segmenter"), device, dtype, **params.segmenter.model_dump())
        environment = Environment(
            segmenter, DOWNLOAD, params.rewards.model_dump(), theirs.policy.max_new_tokens, theirs.policy.batch_size
        )
        policies = Policies(packaged(folder, "policy"), device=device, dtype=dtype, **theirs.policy.loading)
        with policies.using(folder / "adapter") as policy:
            for number in progress(missing, label="the champion's answers, parts"):
                records: list[dict[str, Any]] = [
                    answer.rollout.record() for answer in answers(policy, environment, parts.of(samples, number))
                ]
                with parts.writing(number) as part:
                    write_json(part / "answers.json", records)
        keep_only([parts.folder])
    return pl.concat([pl.read_json(parts.path(number) / "answers.json") for number in parts.numbers])


if __name__ == "__main__":
    run_stage(main)
