"""The command line: `saliency-r1 --help`. Every command imports what it needs when it is called."""

from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.cli.errors import exit_on_user_error
from saliency_r1.cli.evaluate import evaluate
from saliency_r1.cli.predict import predict

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Saliency reasoning with language and masks.")
params_app = typer.Typer(no_args_is_help=True, help="The numbers of the pipeline.")
app.add_typer(params_app, name="params")
app.command()(evaluate)
app.command()(predict)


@app.command()
def annotations(
    download: Annotated[Path, typer.Option(help="folder of the stage download")] = Path("artifacts/download"),
    annotate: Annotated[Path, typer.Option(help="folder of the stage annotate")] = Path("artifacts/annotate"),
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("annotations.html"),
    count: Annotated[int, typer.Option(min=1, help="examples of each task")] = 12,
) -> None:
    """Show annotations on their images in a page: what was written, over which ground truth, how well it agrees."""
    from saliency_r1.report.annotated import write_page

    with exit_on_user_error():
        write_page(download, annotate, out, count)
    typer.echo(out)


@params_app.command("check")
def check_params(path: Annotated[Path, typer.Argument(help="a params file")] = Path("params.yaml")) -> None:
    """Say whether a params file has every key with a value of the right type, and no other."""
    from saliency_r1.params import describe_params, load_params

    with exit_on_user_error():
        load_params(path)
    typer.echo(f"{path}: {len(describe_params())} parameters, all as expected")


if __name__ == "__main__":
    app()
