"""The command `saliency-r1 app`: a page on this machine on which one can play with the models.

    saliency-r1 app                                              the models of artifacts/, http://127.0.0.1:7860
    saliency-r1 app --adapter mine=runs/mine/adapter --port 8000

The models are adapters on one base, which is in memory once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.cli.errors import command, require, say

TRAINED = {"cgpo": Path("artifacts/cgpo/adapter"), "sft": Path("artifacts/sft/adapter")}


@command("app")
def page(
    adapter: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER, as often as wanted [default: those of artifacts/]")
    ] = None,
    policy: Annotated[Path, typer.Option(help="folder of the base")] = Path("artifacts/download/models/policy"),
    segmenter: Annotated[Path, typer.Option(help="folder of the segmenter")] = Path(
        "artifacts/download/models/segmenter"
    ),
    params: Annotated[Path, typer.Option(help="sizes, device and type, as in the training")] = Path("params.yaml"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="on 127.0.0.1")] = 7860,
    browser: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
) -> None:
    """Show a page on this machine: drop pictures, ask, change the words, compare models."""
    require("gradio", "transformers")
    from saliency_r1.params import load_params
    from saliency_r1.prediction.predictor import PredictError

    adapters = named(adapter)
    for folder in (policy, segmenter, *(folder for folder in adapters.values() if folder)):
        if not folder.is_dir():
            raise PredictError(f"{folder}: there is no such folder; `dvc repro` makes the models, or name your own")
    settings = load_params(params)
    from saliency_r1.app.page import serve
    from saliency_r1.app.turns import Models
    from saliency_r1.policy.adapters import Policies
    from saliency_r1.runtime.stage import prepare_torch, quiet_libraries
    from saliency_r1.segmenter import load

    quiet_libraries()
    device, dtype = prepare_torch(settings.runtime, settings.seed)
    policies = Policies(policy, device=device, dtype=dtype, **settings.policy.loading)
    eyes = load(segmenter, device, dtype, **settings.segmenter.model_dump())
    models = Models(policies, adapters, eyes, settings.policy.max_new_tokens)
    say(f"http://127.0.0.1:{port} shows {', '.join(models.names)}; it ends with Ctrl-C")
    serve(models, settings.download.cosod_chunk, port, browser)


def named(adapters: list[str] | None) -> dict[str, Path | None]:
    """The adapters by name, and the base without one at the end.

    Raises `PredictError` for what is not NAME=FOLDER, and for a name that stands twice.
    """
    from saliency_r1.prediction.predictor import PredictError

    found: dict[str, Path | None] = {}
    if adapters is None:
        found.update({name: folder for name, folder in TRAINED.items() if folder.is_dir()})
    for entry in adapters or []:
        name, equals, folder = entry.partition("=")
        if not (name and equals and folder):
            raise PredictError(f"--adapter {entry}: expected NAME=FOLDER")
        if name in found or name == "base":
            raise PredictError(f"--adapter {entry}: there is a model of the name {name!r} already")
        found[name] = Path(folder)
    return {**found, "base": None}
