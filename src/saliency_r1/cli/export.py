"""The command `saliency-r1 export`: a trained model as one folder, and onto the hub if asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.cli.errors import command, say

_METRICS = Path("artifacts/metrics")


@command("predict")
def export(
    out: Annotated[Path, typer.Argument(help="folder to write")],
    merge: Annotated[bool, typer.Option("--merge", help="the adapter in the base's weights: one plain model")] = False,
    push: Annotated[str | None, typer.Option(help="owner/name on the hub; private unless --public")] = None,
    public: Annotated[bool, typer.Option("--public", help="let everybody see what is pushed")] = False,
    policy: Annotated[Path, typer.Option(help="folder of the base")] = Path("artifacts/download/models/policy"),
    adapter: Annotated[Path, typer.Option(help="folder of the adapter")] = Path("artifacts/cgpo/adapter"),
    segmenter: Annotated[Path, typer.Option(help="folder of the segmenter")] = Path(
        "artifacts/download/models/segmenter"
    ),
    params: Annotated[Path, typer.Option(help="sizes and type, as in the training")] = Path("params.yaml"),
    metrics: Annotated[Path, typer.Option(help="folder of metrics.json, for the card")] = _METRICS,
    results: Annotated[
        str | None,
        typer.Option(help="whose results the card shows [the adapter's stage, if it lies beside metrics/]"),
    ] = None,
    licence: Annotated[str, typer.Option(help="of the card, as the hub names it: apache-2.0")] = "other",
) -> None:
    """Write one folder that `predict --model`, `Policy.load` and transformers read."""
    from saliency_r1.params import load_params
    from saliency_r1.prediction import export as exporting
    from saliency_r1.prediction.card import evaluated
    from saliency_r1.prediction.hub import gigabytes, is_name
    from saliency_r1.prediction.predictor import PredictError
    from saliency_r1.runtime.messages import printable

    for folder in (policy, adapter, segmenter):
        if not folder.is_dir():
            raise PredictError(f"{folder}: there is no such folder; `dvc repro` makes the models, or name your own")
    if push is not None and (not is_name(push) or "@" in push):
        raise PredictError(f"{push!r} is no name of the hub, expected owner/name")
    if metrics != _METRICS and not (metrics / "metrics.json").is_file():
        raise PredictError(f"{metrics}: there is no metrics.json in this folder; name the one that holds it, or none")
    # Another run's adapter has the same name, and not these results.
    own = metrics != _METRICS or adapter.resolve().parent.parent == metrics.resolve().parent
    model = results or (adapter.resolve().parent.name if own else "")
    if results is not None and results not in (known := evaluated(metrics)):
        raise PredictError(
            f"--results {results}: {metrics / 'metrics.json'} has no results of this name, expected one of "
            f"{', '.join(known) or 'none, for there is no such file or nothing in it'}"
        )
    sources = exporting.Sources(policy, adapter, segmenter, metrics, model)
    about = exporting.export(sources, load_params(params), out, merge, licence)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    say(printable(f"{out}: {about['form']}, {gigabytes(size)}; try it with: saliency-r1 predict photos/ --model {out}"))
    if push is not None:
        say(exporting.push(out, push, public))
