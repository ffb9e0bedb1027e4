"""The command `saliency-r1 predict`: pictures in; maps, masks, cut-outs, overlays, annotations and the response out.

saliency-r1 predict photos/ --model exported --out found
found/maps/cat.png        the saliency map, or the instance ids; `evaluate --pred found` reads them
found/overlays/cat.png    the picture with what was found in it
found/response.json       what was said
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saliency_r1.cli.errors import command, describe, require, say

if TYPE_CHECKING:
    from saliency_r1.prediction.models import Chosen
    from saliency_r1.prediction.run import Done

_POLICY, _ADAPTER = Path("artifacts/download/models/policy"), Path("artifacts/cgpo/adapter")
_SEGMENTER = "artifacts/download/models/segmenter"


@command("predict")
def predict(
    images: Annotated[list[str], typer.Argument(help="pictures, folders, patterns; cosod: a folder is a group")],
    task: Annotated[str, typer.Option(help="sod, sis or cosod")] = "sod",
    out: Annotated[Path, typer.Option(help="folder for the results and response.json")] = Path("predictions"),
    model: Annotated[
        str | None, typer.Option(help="an exported folder, `champion`, or owner/model[@revision] of the hub")
    ] = None,
    format: Annotated[
        str, typer.Option(help="some of map,mask,rgba,cutout,overlay,coco,labelme,jsonl")
    ] = "map,overlay",
    recursive: Annotated[bool, typer.Option("--recursive", help="look into sub-folders, which are mirrored")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="go on where an earlier run ended")] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="prompts at once; less takes less memory")] = None,
    policy: Annotated[Path, typer.Option(help="without --model: folder of the policy")] = _POLICY,
    adapter: Annotated[Path, typer.Option(help="without --model: folder of the adapter")] = _ADAPTER,
    base: Annotated[bool, typer.Option("--base", help="use the policy without an adapter")] = False,
    segmenter: Annotated[str | None, typer.Option(help="folder of the segmenter, or its name on the hub")] = None,
    params: Annotated[Path | None, typer.Option(help="sizes, device, type as in the training [params.yaml]")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None, typer.Option(help="CUDA_VISIBLE_DEVICES says which GPU")
    ] = None,
) -> None:
    """Say what is salient in pictures and where it is. Goes on after a bad file, and then ends with exit code 1."""
    require("torch", "transformers")
    from saliency_r1.prediction.formats import parse_formats
    from saliency_r1.prediction.models import PARAMS, identity, load
    from saliency_r1.prediction.predictor import task_named
    from saliency_r1.prediction.record import Record
    from saliency_r1.prediction.run import alone, answer_all, check_places, filling, still_to_do
    from saliency_r1.prediction.work import collect, prompts
    from saliency_r1.prediction.written import written
    from saliency_r1.runtime.messages import printable

    if base and adapter != _ADAPTER:
        raise typer.BadParameter("--base is the policy without an adapter: leave --base or --adapter out")
    # A wrong request is refused here, before a model is loaded.
    task_named(task)
    asked = parse_formats(format)
    groups = collect(images, task, recursive, [out / path for path in written(out).all])
    check_places([picture for group in groups for picture in group], asked, out, [params or PARAMS])
    chosen = _chosen(model, policy, None if base else adapter, segmenter, params, device)
    everything = prompts(groups, task, chosen.settings.chunk)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        record = Record(out, task, identity(chosen), asked, keep=skip_existing)
        to_do = still_to_do(everything, asked, record) if skip_existing else everything
        if skip_existing:
            say(f"{len(everything) - len(to_do)} of {len(everything)} are there")
        with _Bar(len(to_do)) as bar:
            try:
                size = batch or chosen.settings.batch
                failed = answer_all(lambda: load(chosen), to_do, asked, record, size, bar.tell, bar.starts)
            finally:
                with filling(out):
                    results = record.finish()  # also where the reader of a pipe has left, or the disk is full
    if results:
        say(printable(f"the results and response.json are in {out}; they overwrite no picture"))
    if failed:
        raise typer.Exit(1)


def _chosen(
    model: str | None,
    policy: Path,
    adapter: Path | None,
    segmenter: str | None,
    params: Path | None,
    device: str | None,
) -> Chosen:
    """The models that are meant, and how they are run."""
    from dataclasses import replace

    from saliency_r1.prediction.models import choose, sizes, trained_here
    from saliency_r1.prediction.predictor import PredictError
    from saliency_r1.runtime.stage import device_fault

    if device and (fault := device_fault(device, f"--device {device}")):
        raise PredictError(fault)
    if model is not None:
        if (policy, adapter) != (_POLICY, _ADAPTER):
            raise PredictError("--model is policy and adapter in one: give it without --policy, --adapter and --base")
        chosen = choose(model, segmenter)
        settings = sizes(params) or chosen.settings
    else:
        chosen = trained_here(policy, adapter, segmenter or _SEGMENTER, params)
        settings = chosen.settings
    return replace(chosen, settings=replace(settings, device=device) if device else settings)


class _Bar:
    """What is said while the work goes on: a line a prompt, and on a terminal a bar with the current file."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        watched = sys.stderr.isatty()
        console = Console(stderr=True, markup=False, emoji=False)
        self._bar = Progress(console=console, transient=True, disable=not watched, redirect_stdout=sys.stdout.isatty())
        self._line = self._bar.add_task("", total=total)
        self._total = total
        self._failed: list[str] = []
        self._answers = self._unparsed = 0

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._unparsed:
            say(f"{self._unparsed} of {self._answers} answers do not parse: their maps are empty", error=True)
        if self._failed and self._total > 1:
            listed = "\n".join(f"  {name}" for name in self._failed)
            say(f"{len(self._failed)} of {self._total} have no result:\n{listed}", error=True)

    def starts(self, name: str) -> None:
        from rich.markup import escape

        self._bar.update(self._line, description=escape(name))

    def tell(self, done: Done) -> None:
        from saliency_r1.cli.errors import raise_if_debugging
        from saliency_r1.prediction.predictor import Failure
        from saliency_r1.runtime.messages import printable

        name = done.name
        if isinstance(done.outcome, Failure):
            raise_if_debugging(done.outcome.error)
            self._failed.append(name)
            say(describe(done.outcome.error, "predict"), error=True)
        else:
            self._answers += 1
            self._unparsed += bool(done.outcome.errors)
            say(printable(f"{name}: {done.outcome.summary}"))
        self._bar.advance(self._line)
