"""The command `saliency-r1 export`: a trained model as one folder, and onto the hub if asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.cli.errors import command, say


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
    metrics: Annotated[Path, typer.Option(help="folder of metrics.json, for the card")] = Path("artifacts/metrics"),
    results: Annotated[
        str | None, typer.Option(help="whose results the card shows [the name of the adapter's stage]")
    ] = None,
    licence: Annotated[str, typer.Option(help="of the card, as the hub names it: apache-2.0")] = "other",
) -> None:
    """Write one folder that `predict --model`, `Policy.load` and transformers read."""
    from saliency_r1.params import load_params
    from saliency_r1.prediction import export as exporting
    from saliency_r1.prediction.hub import gigabytes, is_name
    from saliency_r1.prediction.predictor import PredictError
    from saliency_r1.runtime.messages import printable

    for folder in (policy, adapter, segmenter):
        if not folder.is_dir():
            raise PredictError(f"{folder}: there is no such folder; `dvc repro` makes the models, or name your own")
    if push is not None and (not is_name(push) or "@" in push):
        raise PredictError(f"{push!r} is no name of the hub, expected owner/name")
    model = results or adapter.resolve().parent.name
    sources = exporting.Sources(policy, adapter, segmenter, metrics, model)
    about = exporting.export(sources, load_params(params), out, merge, licence)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    say(printable(f"{out}: {about['form']}, {gigabytes(size)}; try it with: saliency-r1 predict photos/ --model {out}"))
    if push is not None:
        say(exporting.push(out, push, public))
