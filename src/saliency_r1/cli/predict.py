"""The command `saliency-r1 predict`: pictures in, maps, overlays and the response out.

    saliency-r1 predict cat.jpg dog.jpg --task sod --out masks

For SOD and SIS every picture is a prompt of its own; for CoSOD all of them are one group, which is asked about in parts
of at most `download.cosod_chunk` pictures, as in the training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saliency_r1.cli.errors import exit_on_user_error

if TYPE_CHECKING:
    from saliency_r1.prediction.predictor import Answer


def predict(
    images: Annotated[list[Path], typer.Argument(help="pictures; for cosod, the pictures of one group")],
    task: Annotated[str, typer.Option(help="sod, sis or cosod")] = "sod",
    out: Annotated[Path, typer.Option(help="folder for maps, overlays and response.json")] = Path("predictions"),
    policy: Annotated[Path, typer.Option(help="folder of the policy")] = Path("artifacts/download/models/policy"),
    adapter: Annotated[Path, typer.Option(help="folder of the adapter")] = Path("artifacts/cgpo/adapter"),
    base: Annotated[bool, typer.Option("--base", help="use the policy without an adapter")] = False,
    segmenter: Annotated[Path, typer.Option(help="folder of the segmenter")] = Path(
        "artifacts/download/models/segmenter"
    ),
    params: Annotated[Path, typer.Option(help="sizes, device and type, as in the training")] = Path("params.yaml"),
) -> None:
    """Say what is salient in pictures and where it is."""
    with exit_on_user_error():
        run(images, task, out, policy, None if base else adapter, segmenter, params)


def run(
    images: Sequence[Path], task: str, out: Path, policy: Path, adapter: Path | None, segmenter: Path, params: Path
) -> None:
    """What the command does; errors of files and of values are raised."""
    from saliency_r1.params import load_params
    from saliency_r1.prediction.predictor import PredictError, Predictor, read_image, task_named
    from saliency_r1.runtime.files import write_json
    from saliency_r1.runtime.stage import prepare_torch, quiet_libraries

    # What is wrong with the request ends here, before a model is loaded.
    task_named(task)
    for path in images:
        read_image(path)
    stems = unique_stems(images)
    for folder in filter(None, (policy, adapter, segmenter)):
        if not folder.is_dir():
            raise PredictError(f"{folder}: there is no such folder; `dvc repro` makes the models, or name your own")
    settings = load_params(params)
    import transformers  # noqa: F401  a second of importing, which a wrong request is spared

    quiet_libraries()
    device, dtype = prepare_torch(settings.runtime, settings.seed)
    seen = settings.policy
    predictor = Predictor.load(
        policy, adapter, segmenter, device, dtype, max_new_tokens=seen.max_new_tokens, **seen.loading
    )
    out.mkdir(parents=True, exist_ok=True)
    answers = []
    for part in prompts(images, task, settings.download.cosod_chunk):
        result = predictor.predict(part, task)
        answers.append(save(result, part, [stems[path] for path in part], out))
        typer.echo(f"{', '.join(map(str, part))}: {_summary(result)}")
    write_json(out / "response.json", {"task": task, "answers": answers})
    typer.echo(f"maps, overlays and response.json are in {out}")


def prompts(images: Sequence[Path], task: str, chunk: int) -> Iterator[list[Path]]:
    """The pictures of each prompt: one, or for CoSOD parts of the group of nearly one size."""
    if task != "cosod":
        yield from ([path] for path in images)
        return
    parts = -(-len(images) // chunk)
    for index in range(parts):
        yield list(images[index * len(images) // parts : (index + 1) * len(images) // parts])


def unique_stems(images: Sequence[Path]) -> dict[Path, str]:
    """The name under which each picture's results are written.

    Raises `PredictError` where two would overwrite each other.
    """
    from saliency_r1.prediction.predictor import PredictError

    stems = {path: path.stem for path in images}
    if len(set(stems.values())) < len(images):
        twice = next(path for path in images if sum(other.stem == path.stem for other in images) > 1)
        raise PredictError(f"two pictures are called {twice.stem}; their results would overwrite each other")
    return stems


def save(result: Answer, images: Sequence[Path], stems: Sequence[str], out: Path) -> dict[str, Any]:
    """Write `<stem>.png` (the map, or the instance ids) and `<stem>_overlay.png`; return the entry of response.json."""
    from PIL import Image

    from saliency_r1.metrics.saliency import to_levels
    from saliency_r1.prediction.predictor import read_image
    from saliency_r1.report.pictures import paint

    levels = [to_levels(map_) for map_ in result.maps]
    for index, (path, stem) in enumerate(zip(images, stems)):
        Image.fromarray(levels[index] if levels else result.ids).save(out / f"{stem}.png")
        picture = read_image(path)
        scale = max(1, 512 // max(picture.size))
        paint(picture, result.masks[index], not result.maps, scale).save(out / f"{stem}_overlay.png")
    return {
        "images": [str(path) for path in images],
        "response": result.text,
        "reasoning": result.reasoning,
        "expressions": [
            {"image": str(images[item.image]), "kind": item.kind, "text": item.text} for item in result.expressions
        ],
        "scores": [round(segment.score, 6) for segment in result.instances],
        "errors": list(result.errors),
    }


def _summary(result: Answer) -> str:
    if result.errors:
        return f"nothing, the response does not parse: {'; '.join(result.errors)}"
    return "; ".join(item.text for item in result.expressions) or "nothing stands out"
