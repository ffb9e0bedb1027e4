"""`saliency-r1 nights` and `saliency-r1 champion`: what the scheduled runs have left, and which model is in use."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.cli.errors import command, say


@command()
def nights(
    root: Annotated[Path, typer.Option(help="the project")] = Path("."),
    measures: Annotated[
        list[str] | None,
        typer.Option("--measure", help="<model>.<data set>.<measure>, as `cgpo.ECSSD.Sm`; the mean rewards by default"),
    ] = None,
) -> None:
    """List the nights with their metrics; one without a record (it failed, or still runs) with its log."""
    from saliency_r1.registry.nights import headline
    from saliency_r1.registry.nights import nights as read

    found = read(root)
    if not found:
        say("no night has run here yet; docs/operations.md says how one is scheduled")
    for night in found:
        if night.commit is None:
            say(f"{night.name:<14} no record: {night.log}")
            continue
        values = _named(night.metrics, measures) if measures else headline(night)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        verdict = (night.decision or {}).get("verdict")
        say(f"{night.name:<14} {night.commit}  {shown}{f'  {verdict}' if verdict else ''}")
        for fault in night.faults:
            say(f"{'':<14} {fault}")


@command()
def champion(
    version: Annotated[str | None, typer.Argument(help="a version to make the champion, as v0.0.2")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="take the champion before this one")] = False,
    root: Annotated[Path, typer.Option(help="the project")] = Path("."),
) -> None:
    """List the versions of the model and say which one is the champion; or make another one the champion."""
    from saliency_r1.registry.champion import appoint, before, history, versions
    from saliency_r1.registry.git import learn

    if version and rollback:
        raise typer.BadParameter("give either a version or --rollback")
    if version or rollback:
        learn(root, say)
        if remote := appoint(root, version or before(root).name):
            say(f"told to the git remote {remote}")
    had = history(root)
    known = versions(root)
    if had and had[-1] not in known:
        say(f"{had[-1].name} is the champion and no version: the tag that said which one is gone")
    for one in known:
        times = sum(past == one for past in had)
        said = "champion" if had and one == had[-1] else f"was the champion {times}x" if times else ""
        say(f"{one.name:<8} {one.commit[:12]}  {said}".rstrip())
    if not had:
        say("there is no champion yet; a night makes one (docs/operations.md)")


def _named(metrics: Mapping[str, Mapping[str, Mapping[str, float]]], names: Sequence[str]) -> dict[str, float]:
    """The measures of these names that a night has; names of models and data sets may have points in them."""
    known = {
        f"{model}.{dataset}.{measure}": value
        for model, datasets in metrics.items()
        for dataset, measures in datasets.items()
        for measure, value in measures.items()
    }
    return {name: known[name] for name in names if name in known}
