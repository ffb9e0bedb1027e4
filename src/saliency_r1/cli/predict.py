"""The command `saliency-r1 predict`: pictures in, maps, overlays and the response out.

    saliency-r1 predict cat.jpg dog.jpg --task sod --out predictions
    predictions/maps/cat.png        the saliency map, or the instance ids; `evaluate --pred predictions/maps` reads them
    predictions/overlays/cat.png    the picture with what was found in it
    predictions/response.json       what was said

For SOD and SIS every picture is a prompt of its own; for CoSOD all of them are one group, which is asked about in parts
of at most `download.cosod_chunk` pictures, as in the training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from saliency_r1.cli.errors import command, say

if TYPE_CHECKING:
    from PIL import Image

    from saliency_r1.params import Params
    from saliency_r1.prediction.predictor import Answer, Predictor


class Place(NamedTuple):
    """Where the results of one picture go."""

    map: Path
    overlay: Path


@command("predict")
def predict(
    images: Annotated[list[Path], typer.Argument(help="pictures; for cosod, the pictures of one group")],
    task: Annotated[str, typer.Option(help="sod, sis or cosod")] = "sod",
    out: Annotated[Path, typer.Option(help="folder for maps/, overlays/ and response.json")] = Path("predictions"),
    policy: Annotated[Path, typer.Option(help="folder of the policy")] = Path("artifacts/download/models/policy"),
    adapter: Annotated[Path, typer.Option(help="folder of the adapter")] = Path("artifacts/cgpo/adapter"),
    base: Annotated[bool, typer.Option("--base", help="use the policy without an adapter")] = False,
    segmenter: Annotated[Path, typer.Option(help="folder of the segmenter")] = Path(
        "artifacts/download/models/segmenter"
    ),
    params: Annotated[Path, typer.Option(help="sizes, device and type, as in the training")] = Path("params.yaml"),
) -> None:
    """Say what is salient in pictures and where it is."""
    from saliency_r1.params import load_params
    from saliency_r1.prediction.predictor import PredictError, read_image, task_named
    from saliency_r1.runtime.messages import about

    # What is wrong with the request ends here, before a model is loaded.
    task_named(task)
    places = destinations(images, out, [params])
    for path in images:
        with about(path):
            read_image(path)
    models = [policy, *([] if base else [adapter]), segmenter]
    for folder in models:
        if not folder.is_dir():
            raise PredictError(f"{folder}: there is no such folder; `dvc repro` makes the models, or name your own")
    settings = load_params(params)
    for folder in {place.parent for places_of_one in places.values() for place in places_of_one}:
        folder.mkdir(parents=True, exist_ok=True)
    predictor = load(settings, policy, None if base else adapter, segmenter)
    parts = prompts(images, task, settings.download.cosod_chunk)
    answer_all(predictor, parts, task, places, out)


def load(settings: Params, policy: Path, adapter: Path | None, segmenter: Path) -> Predictor:
    """The models, as the parameters say."""
    import transformers  # noqa: F401  a second of importing, which a wrong request is spared

    from saliency_r1.prediction.predictor import Predictor
    from saliency_r1.runtime.stage import prepare_torch, quiet_libraries

    quiet_libraries()
    device, dtype = prepare_torch(settings.runtime, settings.seed)
    seen = settings.policy
    return Predictor.load(
        policy, adapter, segmenter, device, dtype, seen.max_new_tokens, settings.segmenter.model_dump(), **seen.loading
    )


def answer_all(
    predictor: Predictor, parts: Iterable[Sequence[Path]], task: str, places: dict[Path, Place], out: Path
) -> None:
    """Answer every prompt and write its results; what was done is kept and told even if a later prompt fails."""
    from saliency_r1.prediction.predictor import read_image
    from saliency_r1.runtime.files import write_json
    from saliency_r1.runtime.messages import about, printable

    entries, lines = [], []
    try:
        for part in parts:
            names = ", ".join(map(str, part))
            with about(names):
                pictures = [read_image(path) for path in part]
                result = predictor.predict(pictures, task)
                write_pictures(result, pictures, [places[path] for path in part])
            entries.append(entry(result, part))
            lines.append(printable(f"{names}: {_summary(result)}"))
    finally:
        # Written before a word is printed: a terminal that takes no more must not cost the answers.
        if entries:
            write_json(out / "response.json", {"task": task, "answers": entries})
            for line in lines:
                say(line)
            say(printable(f"maps, overlays and response.json are in {out}; they overwrite no picture"))


def prompts(images: Sequence[Path], task: str, chunk: int) -> list[list[Path]]:
    """The pictures of each prompt: one, or for CoSOD a part of the group."""
    from saliency_r1.data.samples import chunks

    return chunks(images, chunk if task == "cosod" else 1)


def destinations(images: Sequence[Path], out: Path, others: Sequence[Path] = ()) -> dict[Path, Place]:
    """Where the results of each picture go.

    Raises `PredictError` where two pictures would have one place, or where a result would replace a picture that was
    given, or one of the `others`.
    """
    from saliency_r1.inputs.find import key
    from saliency_r1.prediction.predictor import PredictError

    places: dict[Path, Place] = {}
    taken: dict[str, Path] = {}
    read = {_identity(path): path for path in [*images, *others] if path.exists()}
    for path in images:
        name = f"{path.stem}.png"
        first = taken.setdefault(key(path.stem), path)
        if first is not path:
            raise PredictError(
                f"two pictures are called {path.stem}: {first} and {path}; their results would overwrite each other, "
                "so rename one or give them a folder each (--out)"
            )
        places[path] = Place(out / "maps" / name, out / "overlays" / name)
    for result in [out / "response.json", *(one for place in places.values() for one in place)]:
        if result.exists() and (source := read.get(_identity(result))):
            raise PredictError(f"{result} would be written over {source}, which is read; name another folder (--out)")
    return places


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def write_pictures(result: Answer, pictures: Sequence[Image.Image], places: Sequence[Place]) -> None:
    """Write the map (or the instance ids) and the overlay of every picture of a prompt."""
    from PIL import Image

    from saliency_r1.prediction.maps import write_map
    from saliency_r1.report.pictures import paint
    from saliency_r1.runtime.files import replacing

    for index, (picture, place) in enumerate(zip(pictures, places, strict=True)):
        with replacing(place.map) as aside:
            if result.maps:
                write_map(result.maps[index], aside)
            else:
                Image.fromarray(result.ids).save(aside)
        scale = max(1, 512 // max(picture.size))
        with replacing(place.overlay) as aside:
            paint(picture, result.masks[index], not result.maps, scale).save(aside)


def entry(result: Answer, images: Sequence[Path]) -> dict[str, Any]:
    """What response.json says of a prompt."""
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
