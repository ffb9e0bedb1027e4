"""The command `saliency-r1 benchmark`: any multimodal model on the imported data sets, beside what is published.

saliency-r1 benchmark --model Qwen/Qwen2.5-VL-3B-Instruct --data ECSSD CoCA --shots 3 --limit 200
saliency-r1 benchmark --model http://127.0.0.1:8000/v1 --name my-server --data ECSSD --dry-run
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saliency_r1.cli.errors import command, require, say

if TYPE_CHECKING:
    from saliency_r1.benchmark.answers import Journal
    from saliency_r1.benchmark.prompts import Prompts, Row
    from saliency_r1.benchmark.run import Benchmark
    from saliency_r1.params import Asked, Params

_SECTION = "endpoint"  # how messages call the options of a server


def _prices(text: str) -> tuple[float, ...]:
    """The prices of a million tokens of a prompt and of an answer, as people write them: 0.3,1.2."""
    try:
        prices = tuple(float(part) for part in text.split(","))
    except ValueError:
        prices = ()
    if len(prices) != 2 or not all(0 <= price < float("inf") for price in prices):
        raise typer.BadParameter(f"{text!r}, expected the prices of a million tokens of prompt and answer: 0.3,1.2")
    return prices


@command("pipeline")
def benchmark(
    more: Annotated[list[str] | None, typer.Argument(metavar="[DATA]...", help="further data sets")] = None,
    model: Annotated[
        str | None, typer.Option(help="a folder, a name of the hub, or the address of a server (http://...)")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="a data set that was imported")] = None,
    name: Annotated[str | None, typer.Option(help="how the row is called")] = None,
    served: Annotated[str | None, typer.Option(help="what the server calls the model; default: its only one")] = None,
    adapter: Annotated[Path | None, typer.Option(help="folder of an adapter, of a model in process")] = None,
    shots: Annotated[int, typer.Option(min=0, help="worked examples from the training split")] = 0,
    plain: Annotated[
        bool, typer.Option("--plain", help="the task's instruction alone, which models trained here know")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many samples of each data set")] = None,
    maps: Annotated[list[str] | None, typer.Option(metavar="NAME=FOLDER", help="maps of another method")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what it would cost, and ask nothing")] = False,
    answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="tokens of an answer at most; default: policy.max_new_tokens")
    ] = None,
    max_requests: Annotated[int | None, typer.Option(min=1, help="budget of this run")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="budget of this run")] = None,
    max_cost: Annotated[float | None, typer.Option(help="budget of this run, in money; needs --prices")] = None,
    prices: Annotated[
        Any, typer.Option(parser=_prices, metavar="IN,OUT", help="of a million tokens of prompt and answer")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for tables, rows and maps")] = Path("benchmark"),
    download: Annotated[Path, typer.Option(help="folder of the stage download")] = Path("artifacts/download"),
    annotations: Annotated[Path, typer.Option(help="table of the stage annotate: the worked examples")] = Path(
        "artifacts/annotate/table.parquet"
    ),
    runs: Annotated[Path, typer.Option(help="where answers are kept")] = Path("runs/benchmark"),
    params: Annotated[Path, typer.Option(help="sizes, device, type; pace of a server: annotate.endpoint")] = Path(
        "params.yaml"
    ),
) -> None:
    """Measure a model on data sets, through the interface and the segmenter of the pipeline, and write the tables."""
    require("jinja2", "polars", *["httpx"] * bool(model and _is_address(model)))
    from saliency_r1.benchmark import before
    from saliency_r1.benchmark.prompts import prompts_for
    from saliency_r1.chat.connection import shown
    from saliency_r1.params import load_params

    settings = load_params(params)
    wanted = [*(data or ()), *(more or ())]
    if not wanted or not (model or maps):
        raise typer.BadParameter(
            "name a data set (--data ECSSD), and a model (--model), maps (--maps NAME=FOLDER) or both"
        )
    if plain and shots:
        raise typer.BadParameter("--plain is the instruction alone; leave out --shots")
    folders = _named_folders(maps or ())
    budget = {"max_requests": max_requests, "max_tokens": max_tokens, "max_cost": max_cost, "prices": prices}
    asked = _asked(settings, model, name, served, adapter, shots, budget) if model else None
    if asked and asked.name in folders:
        raise typer.BadParameter(f"--maps {asked.name}: the model's row is called so; give it another --name")
    for row in folders:
        before.check_name(out, row, "maps")
    if asked:
        before.check_name(out, asked.name, "model")
    samples, of = before.select(download, wanted, limit, settings.masks.split)
    rows = [row for chosen in samples.values() for row in chosen]
    tokens = answer_tokens or settings.policy.max_new_tokens
    if asked:
        prompts = prompts_for(download, dict.fromkeys(row["task"] for row in rows), annotations, shots, plain)
        about: dict[str, Any] = {
            "model": asked.model,
            "adapter": str(adapter) if adapter else None,
            "content": None if asked.endpoint else _content(asked.model, adapter),
            "endpoint": shown(asked.endpoint.url) if asked.endpoint else None,
            "plain": plain,
            "shots": prompts.fingerprints(),
            "answer_tokens": tokens,
        }
        journal = _journal(settings, download, runs, about)
        if dry_run:
            _say_cost(before.estimate(asked, prompts, rows, tokens, runs / "answers", journal), asked)
    if dry_run:
        return
    bench = _bench(settings, download, runs, out, (samples, of), tokens)
    if asked:
        _measure(settings, bench, asked, about, prompts, journal, adapter)
    _measure_others(bench, folders)
    _write_tables(bench)


def _is_address(model: str) -> bool:
    return model.startswith(("http://", "https://"))


def _named_folders(texts: Sequence[str]) -> dict[str, Path]:
    """The folders of maps by the names of their rows, which may be those of models that were trained here."""
    folders: dict[str, Path] = {}
    for text in texts:
        label, equals, folder = text.partition("=")
        if not (label and equals and folder):
            raise typer.BadParameter(f"--maps {text}: expected NAME=FOLDER")
        _check_form("--maps", label)
        if label in folders:
            raise typer.BadParameter(f"--maps {text}: there is another folder of that name; call one of them otherwise")
        folders[label] = Path(folder)
    return folders


def _check_form(option: str, name: str) -> None:
    """A row is a file of its name, so that no two names may be one file."""
    from saliency_r1.benchmark.rows import slug

    if name != slug(name):
        raise typer.BadParameter(f"{option} {name!r}: of letters, digits and . + - _ alone, such as {slug(name)}")


def _asked(
    settings: Params,
    model: str,
    name: str | None,
    served: str | None,
    adapter: Path | None,
    shots: int,
    budget: dict[str, Any],
) -> Asked:
    """The model of the command line as the parameters would name it; a server keeps the pace of annotate.endpoint."""
    from saliency_r1.benchmark.rows import slug
    from saliency_r1.benchmark.speakers import only_model
    from saliency_r1.chat.connection import connect
    from saliency_r1.names import TRAINED
    from saliency_r1.params import Asked, Endpoint

    if name in TRAINED:
        raise typer.BadParameter(f"--name {name}: the pipeline trains a model of that name; call this one otherwise")
    if name is not None:
        _check_form("--name", name)
    if budget["max_cost"] is not None and not (budget["max_cost"] > 0 and budget["prices"]):
        raise typer.BadParameter("--max-cost is a positive sum and needs --prices IN,OUT")
    endpoint = None
    if _is_address(model):
        if adapter:
            raise typer.BadParameter("--adapter is of a model in this process; a server has its own")
        pace = settings.annotate.endpoint.model_dump()
        endpoint = Endpoint(**pace | budget | {"url": model, "temperature": 0.0})
        model = served or only_model(connect(model, endpoint.timeout, _SECTION), model)
    own = slug(model.rstrip("/").rpartition("/")[2]) + (f"+{slug(adapter.name)}" if adapter else "")
    if not name and own in TRAINED:
        raise typer.BadParameter(
            f"--model {model} would be called {own}, as the model that the pipeline trains; give it a --name"
        )
    return Asked(name=name or own, model=model, shots=shots, endpoint=endpoint)


def _bench(
    settings: Params,
    download: Path,
    runs: Path,
    out: Path,
    chosen: tuple[dict[str, list[Row]], dict[str, int]],
    tokens: int,
) -> Benchmark:
    import transformers  # noqa: F401  before its messages are quietened

    from saliency_r1.benchmark.run import Benchmark
    from saliency_r1.rollout.environment import Environment
    from saliency_r1.runtime.stage import prepare_torch, quiet_libraries

    quiet_libraries()
    device, dtype = prepare_torch(settings.runtime, settings.seed)
    environment = Environment.load(settings, download, device, dtype)
    environment.max_new_tokens = tokens
    decide = settings.result_settings("seed", "runtime", "segmenter", "rewards")
    return Benchmark(*chosen, environment, decide, runs, out)


def _content(model: str, adapter: Path | None) -> str | None:
    """A hash of the files of a model and its adapter; None for a name of the hub alone."""
    from saliency_r1.runtime.keys import content_key

    places = [place for place in (Path(model), adapter) if place and place.exists()]
    return content_key(places) if places else None


def _journal(settings: Params, download: Path, runs: Path, about: dict[str, Any]) -> Journal:
    """The answers of a run, under a hash of what decides them."""
    from saliency_r1.benchmark.answers import Journal
    from saliency_r1.runtime.keys import run_key

    inputs = [download / "report.json", download / "table.parquet"]
    decides = settings.result_settings("seed", "runtime", "policy") | about
    return Journal(runs / "spoken" / run_key(decides, inputs))


def _measure(
    settings: Params,
    bench: Benchmark,
    asked: Asked,
    about: dict[str, Any],
    prompts: Prompts,
    journal: Journal,
    adapter: Path | None,
) -> None:
    """Ask, write the row, and say what went wrong."""
    from saliency_r1.benchmark import run
    from saliency_r1.benchmark.speakers import speaker
    from saliency_r1.runtime.messages import printable
    from saliency_r1.runtime.stage import prepare_torch

    device, dtype = prepare_torch(settings.runtime, settings.seed)
    loading = {"device": device, "dtype": dtype, **settings.policy.loading}
    who = speaker(asked, prompts, bench.environment, loading, bench.kept / "answers", _SECTION, adapter)
    answers = run.ask(who, bench.rows, journal)
    about |= {
        "served": sorted({answer.model for answer in answers if answer.model}),
        "usage": run.usage(answers, asked.endpoint.prices if asked.endpoint else None),
    }
    entry = run.measure_model(bench, asked.name, answers, about)
    if asked.endpoint:
        journal.forget_faults(bench.rows)
    for dataset in bench.samples:
        wrong = entry.datasets[dataset].failures
        for reading, counts in wrong.items():
            told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            say(printable(f"{asked.name} on {dataset}, {reading} reading: {told}"))


def _measure_others(bench: Benchmark, folders: dict[str, Path]) -> None:
    """The rows that no model is asked for: maps of other methods, floors and ceilings."""
    from saliency_r1.benchmark import run

    for label, folder in folders.items():
        run.measure_maps(bench, label, folder)
    run.measure_floors(bench)


def _say_cost(found: dict[str, Any], asked: Asked) -> None:
    """What a run would ask for."""
    from saliency_r1.runtime.messages import printable

    say(printable(f"{asked.name}: {found['samples']} samples, {found['requests']} still to be asked"))
    if asked.endpoint and found["requests"]:
        known = "as answered prompts had" if found["measured"] else "a guess from characters and pixels"
        say(f"tokens of the prompts about {found['prompt_tokens']} ({known}), of the answers at most "
            f"{found['completion_tokens']}")  # fmt: skip
        say(f"cost at most about {found['cost']:.4g}" if "cost" in found else "cost: give --prices IN,OUT to know it")


def _write_tables(bench: Benchmark) -> None:
    from saliency_r1.benchmark.rows import read_all
    from saliency_r1.benchmark.tables import build, write
    from saliency_r1.runtime.messages import printable

    entries = read_all(bench.out)
    for dataset in bench.samples:
        say(printable(", ".join(map(str, write(build(dataset, entries), bench.out)))))
