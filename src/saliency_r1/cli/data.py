"""`saliency-r1 data`: what an import would find, without importing; and what of it lies outside of the project."""

from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.cli.errors import command, say


@command("pipeline")
def check(
    datasets: Annotated[
        list[str] | None, typer.Argument(help="<data set> or <data set>/<split>; those of the params file by default")
    ] = None,
    params: Annotated[Path, typer.Option(help="a params file, whose section download is meant")] = Path("params.yaml"),
) -> None:
    """Say what is there, what would be fetched, what is missing and where to put it; nothing is imported or fetched.

    Ends with exit code 1 if something is missing or does not fit.
    """
    from saliency_r1.data.survey import GOOD, survey
    from saliency_r1.params import load_params
    from saliency_r1.runtime.messages import printable

    findings = survey(load_params(params).download, Path.cwd(), tuple(datasets or ()))
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        say(f"{printable(finding.what):<{width}}  {finding.state:<8}  {printable(finding.text)}")
    if bad := sum(finding.state not in GOOD for finding in findings):
        say(f"{bad} of {len(findings)} are not as they should be", error=True)
        raise typer.Exit(1)


@command("pipeline")
def sources(
    params: Annotated[Path, typer.Option(help="a params file, whose section download is meant")] = Path("params.yaml"),
) -> None:
    """Note what the data has outside of the project, so that `dvc repro` sees a change of it; nothing is imported."""
    from saliency_r1.data.sources import FILE
    from saliency_r1.data.sources import sources as look
    from saliency_r1.params import load_params
    from saliency_r1.runtime.files import write_json

    found = look(load_params(params).download, Path.cwd())
    FILE.parent.mkdir(exist_ok=True)
    write_json(FILE, found)
    for name, content in found.items():
        say(f"{name}: {', '.join(f'{key} {value}' for key, value in content.items())}")
    say(f"{FILE}: {len(found)} things outside of the project")
