"""The command `saliency-r1 plan`: what a params file takes before it is run, and whether it fits.

    saliency-r1 plan --params profiles/paper-7b.yaml --gpus 8 --fsdp --memory 80 --generate-speed 900 --train-speed 4000

Nothing is loaded but configurations, and nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saliency_r1.cli.errors import command, say

if TYPE_CHECKING:
    from saliency_r1.params import Params
    from saliency_r1.plan.memory import Memory
    from saliency_r1.plan.work import Samples, Speed, Stage

GB = 1e9
RESERVE = 0.1  # of a device's memory: the context of its driver, and what an allocator cannot use


@command("pipeline")
def plan(
    params: Annotated[Path, typer.Option(help="the params file")] = Path("params.yaml"),
    gpus: Annotated[int, typer.Option(min=1, help="devices, one process each")] = 1,
    fsdp: Annotated[bool, typer.Option("--fsdp", help="weights and moments split over the devices")] = False,
    memory: Annotated[float, typer.Option(min=0, help="GB of one device")] = 80.0,
    policy: Annotated[Path | None, typer.Option(help="folder with the policy's config.json")] = None,
    segmenter: Annotated[Path | None, typer.Option(help="folder with the segmenter's config.json")] = None,
    answer_tokens: Annotated[int | None, typer.Option(min=1, help="of an answer; else the most there may be")] = None,
    generate_speed: Annotated[float | None, typer.Option(min=1e-6, help="tokens a second and device, sampling")] = None,
    train_speed: Annotated[float | None, typer.Option(min=1e-6, help="tokens a second and device, training")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="of an hour of one device")] = None,
) -> None:
    """Say what a run takes: memory by part, disk, prompts, tokens, hours and money; exit 1 if it cannot fit."""
    import torch

    from saliency_r1.params import load_params
    from saliency_r1.plan import memory as memories
    from saliency_r1.plan import work
    from saliency_r1.plan.errors import PlanError
    from saliency_r1.plan.prompts import image_tokens
    from saliency_r1.plan.shapes import policy_shape, read_config, segmenter_shape

    settings = load_params(params)
    shape = policy_shape(read_config(*_looked_for(settings.download.policy, policy, settings)), settings.sft.lora)
    eyes = read_config(*_looked_for(settings.download.segmenter, segmenter, settings))
    frozen = segmenter_shape(eyes, getattr(torch, settings.runtime.dtype))
    samples = _samples(settings)
    usual = work.Pictures()
    each = image_tokens(usual.width, usual.height, shape.unit, settings.policy.min_pixels, settings.policy.max_pixels)
    prompt = work.mean_prompt(samples, settings, each)
    answer = min(answer_tokens or settings.policy.max_new_tokens, settings.policy.max_new_tokens)
    asked = work.stages(settings, samples, prompt, answer, gpus)
    need = memories.memory(settings, shape, frozen, gpus, fsdp)

    say(f"policy {settings.download.policy}: {shape.parameters:,} parameters, {shape.trained:,} trained in "
        f"{shape.modules} modules; segmenter: {frozen.parameters:,} parameters\n")  # fmt: skip
    _say_memory(need, gpus, fsdp, memory)
    _say_work(asked, samples, prompt, answer, work.Speed(generate_speed, train_speed), gpus, price)
    say("\ndisk, each once; DVC's cache keeps all but the checkpoints a second time")
    _say_rows(work.disk(settings, shape, frozen, samples, usual).items())
    if need.peak > memory * (1 - RESERVE) * GB:
        largest = sorted([*need.stays, max(need.passes, key=lambda part: part.size)], key=lambda part: -part.size)[:3]
        raise PlanError(
            f"\n{params} does not fit: {need.peak / GB:.1f} GB on a device of {memory:g} GB, of which a tenth is kept "
            "free. The largest parts, and what makes them smaller:"
            + "".join(f"\n  {part.name}, {part.size / GB:.1f} GB: {part.smaller}" for part in largest)
        )


def _looked_for(name: str, folder: Path | None, settings: Params) -> tuple[str, list[Path]]:
    """A model's name and the folders that may have its configuration: the one that was named, else as download does."""
    from saliency_r1.data.catalogue import Catalogue

    if folder is not None:
        return str(folder), [folder]
    catalogue = Path(settings.download.catalogue)
    places = [Path(name), catalogue.parent / name]
    if catalogue.exists():
        entry = Catalogue.load(catalogue).models.get(name)
        if entry is not None and entry.hub:
            return entry.hub, []
        places = [entry.base / str(entry.path)] if entry else places
    return name, places


def _samples(settings: Params) -> Samples:
    """What the catalogue counts; nothing where it is not there yet."""
    from saliency_r1.data.catalogue import Catalogue
    from saliency_r1.plan import work

    path = Path(settings.download.catalogue)
    if not path.exists():
        say(f"{path} is not there (`dvc checkout` brings it): samples are not counted", error=True)
        return work.Samples({}, {}, settings.download.datasets)
    return work.count_samples(settings, Catalogue.load(path))


def _say_memory(need: Memory, gpus: int, fsdp: bool, memory: float) -> None:
    how = "one device" if gpus == 1 else f"each of {gpus} devices, {'split (FSDP)' if fsdp else 'whole in each'}"
    say(f"memory in GB, {how}; the largest of the last three counts")
    _say_rows([(part.name, part.size) for part in [*need.stays, *need.passes]])
    say(f"  {'peak':32}{need.peak / GB:10.2f} of {memory:g}")


def _say_work(
    asked: Sequence[Stage], samples: Samples, prompt: int, answer: int, speed: Speed, gpus: int, price: float | None
) -> None:
    from saliency_r1.plan.work import hours

    say(f"\nwork, with prompts of {prompt} tokens and answers of {answer}")
    say(f"  {'':10}{'prompts':>12}{'generated':>16}{'trained on':>16}{'hours':>10}")
    spent = 0.0
    for stage in asked:
        taken = hours(stage, speed, gpus)
        spent += taken or 0.0
        unasked = stage.name == "annotate"  # its model may be anybody's
        shown = "" if taken is None or unasked else f"{taken:.1f}"
        say(f"  {stage.name:10}{stage.prompts:12,}{stage.generated:16,}{stage.trained:16,}{shown:>10}".rstrip())
    if speed.generate and speed.train:
        money = f", {spent * gpus * price:,.2f} at {price:g} an hour and device" if price is not None else ""
        say(f"  {spent:.1f} hours on {gpus} device{'s' if gpus > 1 else ''}{money}; annotation, segmenting and "
            "evaluation come on top")  # fmt: skip
    else:
        say("  hours need --generate-speed and --train-speed (`python benchmarks/paper_size.py` measures them)")
    if samples.unknown:
        say(f"  not counted, the catalogue states no number: {', '.join(samples.unknown)}")


def _say_rows(rows: Iterable[tuple[str, float]]) -> None:
    for name, size in rows:
        say(f"  {name:32}{size / GB:10.2f}")
