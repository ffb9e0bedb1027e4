"""The command `saliency-r1 app`: a page on this machine on which one can play with the models.

    saliency-r1 app                                              the models of artifacts/, http://127.0.0.1:7860
    saliency-r1 app --adapter mine=runs/mine/adapter --port 8000
    saliency-r1 app --model exported --model champion            what `predict --model` takes, to compare

What models have in common, a base or a segmenter, is in memory once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saliency_r1.cli.errors import command, require, say

if TYPE_CHECKING:
    from saliency_r1.prediction.models import Chosen

TRAINED = {"cgpo": Path("artifacts/cgpo/adapter"), "sft": Path("artifacts/sft/adapter")}
_POLICY, _SEGMENTER = Path("artifacts/download/models/policy"), "artifacts/download/models/segmenter"


@command("app")
def page(
    model: Annotated[
        list[str] | None,
        typer.Option(help="an exported folder, `champion`, or owner/model[@revision] of the hub, as often as wanted"),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="without --model: NAME=FOLDER, as often as wanted [default: those of artifacts/]"),
    ] = None,
    policy: Annotated[Path, typer.Option(help="without --model: folder of the base")] = _POLICY,
    segmenter: Annotated[str | None, typer.Option(help="folder of the segmenter, or its name on the hub")] = None,
    params: Annotated[Path | None, typer.Option(help="sizes, device, type as in the training [params.yaml]")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="on 127.0.0.1")] = 7860,
    browser: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
) -> None:
    """Show a page on this machine: drop pictures, ask, change the words, compare models."""
    require("gradio", "transformers")
    chosen = _models(model, adapter, policy, segmenter, params)
    from saliency_r1.app.page import check_port, serve
    from saliency_r1.app.turns import Models

    check_port(port)
    models = Models.load(chosen)
    say(f"http://127.0.0.1:{port} shows {', '.join(models.names)}; it ends with Ctrl-C")
    serve(models, min(one.settings.chunk for one in chosen.values()), port, browser)


def _models(
    models: list[str] | None, adapters: list[str] | None, policy: Path, segmenter: str | None, params: Path | None
) -> dict[str, Chosen]:
    """The models that are meant, by name. Raises `PredictError` for what cannot be used."""
    from dataclasses import replace

    from saliency_r1.prediction.models import choose, sizes, trained_here
    from saliency_r1.prediction.predictor import PredictError

    if not models:
        place = segmenter or _SEGMENTER
        return {name: trained_here(policy, folder, place, params) for name, folder in named(adapters).items()}
    if adapters or policy != _POLICY:
        raise PredictError("--model is policy and adapter in one: give it without --policy and --adapter")
    chosen = {name: choose(name, segmenter) for name in dict.fromkeys(models)}
    own = sizes(params)
    return {name: replace(one, settings=own or one.settings) for name, one in chosen.items()}


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
