"""Stage masks: greedy answers and their masks for every sample of a split, by the models that `masks.models` names.

    python stages/masks.py

These are the base, the SFT and the CGPO model, and any others that are named with a folder or a server.

Reads artifacts/download/, the adapters of artifacts/sft/ and artifacts/cgpo/, for worked examples artifacts/annotate/,
and the section `masks` of params.yaml;
writes artifacts/masks/: maps/<model>/<dataset>/<name>.png (8-bit, as the field's toolboxes read them),
instances/<model>/<dataset>.json (COCO results) and table.parquet.

Answers are kept batch by batch in runs/masks/, so that a killed run goes on, and a new CGPO adapter, or a further
model, does not make the others answer again.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import own_tree  # noqa: F401
import polars as pl

from saliency_r1.benchmark.prompts import prompts_for
from saliency_r1.benchmark.speakers import scored, speaker
from saliency_r1.params import PACE, Asked, Params, model_names
from saliency_r1.policy.adapters import Policies
from saliency_r1.prediction.split import ScoredAnswer, answers, assemble, write_part
from saliency_r1.rollout.environment import Environment, Row
from saliency_r1.runtime import processes
from saliency_r1.runtime.files import atomic_folder
from saliency_r1.runtime.keys import run_key, stage_code
from saliency_r1.runtime.parts import Parts, keep_only, share
from saliency_r1.runtime.stage import prepare_torch, progress, run_stage
from saliency_r1.runtime.versions import write_versions

DOWNLOAD = Path("artifacts/download")
ANNOTATIONS = Path("artifacts/annotate/table.parquet")
SERVED = Path("runs/masks/answers")  # what servers have answered
ADAPTERS = {"base": None, "sft": Path("artifacts/sft/adapter"), "cgpo": Path("artifacts/cgpo/adapter")}


def main(params: Params) -> None:
    """Predict with every model that the parameters name."""
    device, dtype = prepare_torch(params.runtime, params.seed)
    options = params.masks
    samples: list[Row] = list(pl.read_parquet(DOWNLOAD / "table.parquet").filter(split=options.split).to_dicts())
    environment = Environment.load(params, DOWNLOAD, device, dtype)
    policies = Policies(DOWNLOAD / "models/policy", device=device, dtype=dtype, **params.policy.loading)
    names = dict.fromkeys(row["task"] for row in samples)
    kept = []
    for entry, model in zip(options.models, model_names(options.models), strict=True):
        parts = Parts(runs(params, entry), len(samples), options.batch_size)
        kept.append(parts)
        if not (missing := parts.missing()):
            print(f"masks of {model}: as they were, nothing that decides them has changed")
            continue
        if mine := own_share(entry, missing):
            with answering(entry, names, policies, environment) as answer:
                for number in progress(mine, label=f"masks of {model}, parts"):
                    with parts.writing(number) as folder:
                        write_part(folder, model, answer(parts.of(samples, number)), options.score)
        processes.wait()  # those without a share too
    if not processes.is_main():
        return
    with atomic_folder("artifacts/masks") as folder:
        rows = assemble(folder, [parts.path(number) for parts in kept for number in parts.numbers])
        write_versions(folder)
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "table.parquet")
    keep_only([*(parts.folder for parts in kept), SERVED])


def own_share(entry: str | Asked, missing: Sequence[int]) -> Sequence[int]:
    """The parts that this process makes; all of a server's fall to process 0.

    The budget, the pace and `concurrency` of an endpoint are those of a run, and each process would keep its own.
    """
    if isinstance(entry, str) or entry.endpoint is None:
        return share(missing)
    return missing if processes.is_main() else []


@contextlib.contextmanager
def answering(
    entry: str | Asked, names: Iterable[str], policies: Policies, environment: Environment
) -> Iterator[Callable[[Sequence[Row]], list[ScoredAnswer]]]:
    """What answers samples of the tasks `names`: a model trained here, or one that is told the grammar and examples."""
    if isinstance(entry, str):
        with policies.using(ADAPTERS[entry]) as policy:
            yield lambda rows: answers(policy, environment, rows)
        return
    prompts = prompts_for(DOWNLOAD, names, ANNOTATIONS, entry.shots)
    section = f"masks.models, {entry.name}: endpoint"
    who = speaker(entry, prompts, environment, policies.loading, SERVED, section, probabilities=True)
    yield lambda rows: scored(who, environment, rows)


def runs(params: Params, entry: str | Asked) -> Path:
    """Where the answers of a model are kept: under a hash of what decides them, its adapter among it."""
    settings = params.result_settings("seed", "runtime", "policy", "segmenter", "rewards", "masks")
    inputs = [DOWNLOAD / "report.json", DOWNLOAD / "table.parquet", DOWNLOAD / "models"]
    if isinstance(entry, str):
        name = entry
        more = [ADAPTERS[entry]]
    else:
        name = entry.name
        more = [Path(entry.model) if entry.endpoint is None else None, ANNOTATIONS if entry.shots else None]
    inputs += [path for path in more if path and path.exists()]
    own = entry if isinstance(entry, str) else entry.model_dump(exclude={"endpoint": set(PACE)})
    key = run_key(settings | {"masks": settings["masks"] | {"models": own}}, inputs, stage_code("masks"))
    return Path("runs/masks") / f"{name}-{key}"


if __name__ == "__main__":
    run_stage(main)
