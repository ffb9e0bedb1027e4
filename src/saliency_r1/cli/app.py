"""The command line: `saliency-r1 --help`. Every command imports what it needs when it is called."""

from pathlib import Path
from typing import Annotated, Any

import typer

from saliency_r1.cli.benchmark import benchmark
from saliency_r1.cli.data import check as check_data
from saliency_r1.cli.data import sources as data_sources
from saliency_r1.cli.errors import command, say
from saliency_r1.cli.evaluate import evaluate
from saliency_r1.cli.export import export
from saliency_r1.cli.nights import champion, nights
from saliency_r1.cli.page import page
from saliency_r1.cli.plan import plan
from saliency_r1.cli.predict import predict

# Plain help: typer's markup would eat the brackets of a file's name, and its tracebacks are the business of errors.py.
_PLAIN: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": None, "pretty_exceptions_enable": False}
app = typer.Typer(**_PLAIN, add_completion=False, help="Saliency reasoning with language and masks.")
params_app = typer.Typer(**_PLAIN, help="The numbers of the pipeline.")
app.add_typer(params_app, name="params")
data_app = typer.Typer(no_args_is_help=True, help="The data sets and base models of the pipeline.")
app.add_typer(data_app, name="data")
data_app.command("check")(check_data)
data_app.command("sources")(data_sources)
app.command()(evaluate)
app.command()(benchmark)
app.command()(predict)
app.command()(export)
app.command()(plan)
app.command()(nights)
app.command()(champion)
app.command("app")(page)


@app.command()
@command("pipeline")
def annotations(
    download: Annotated[Path, typer.Option(help="folder of the stage download")] = Path("artifacts/download"),
    annotate: Annotated[Path, typer.Option(help="folder of the stage annotate")] = Path("artifacts/annotate"),
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("annotations.html"),
    count: Annotated[int, typer.Option(min=1, help="examples of each task")] = 12,
) -> None:
    """Show annotations on their images in a page: what was written, over which ground truth, how well it agrees."""
    from saliency_r1.evaluation.outputs import check_outputs
    from saliency_r1.inputs.find import require_file
    from saliency_r1.report.annotated import write_page
    from saliency_r1.runtime.messages import printable

    tables = [folder / "table.parquet" for folder in (download, annotate)]
    for table in tables:
        require_file(table)
    check_outputs([out], tables)
    write_page(download, annotate, out, count)
    say(printable(out))


@params_app.command("check")
@command()
def check_params(path: Annotated[Path, typer.Argument(help="a params file")] = Path("params.yaml")) -> None:
    """Say whether a params file has every key with a value of the right type, and no other."""
    from saliency_r1.params import describe_params, load_params
    from saliency_r1.runtime.messages import printable

    load_params(path)
    say(f"{printable(path)}: {len(describe_params())} parameters, all as expected")


if __name__ == "__main__":
    app()
