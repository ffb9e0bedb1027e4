"""A grid of parameters as DVC experiments: `python -m flows.sweep -S cgpo.lr=3e-5,1e-4 -S seed=1,2` runs it now.

`flows.serve` serves it as well: in Prefect's UI it is the deployment of `saliency-r1-sweep`, and its parameter `grid`
is {"cgpo.lr": [3e-5, 1e-4], "seed": [1, 2]}. The points run one after the other in the tree that nights have, too, so
nobody's edits get into them and what a point shares with another is not done again. Each is an experiment of the
project: `dvc exp show`, `dvc exp apply <name>`, `dvc exp push origin <name>`. The table of results is an artifact.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain, count, product
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows.alive import alive
from flows.locks import forget_dead_owners, only_run
from flows.pipeline import ROOT, dvc_as_child, run
from flows.schedule import need_server
from flows.tree import check_out, committed
from saliency_r1.registry.git import file_at, git, plain

METRICS = Path("artifacts/metrics/metrics.json")
MEASURES = "cgpo.*.reward"


@flow(name="saliency-r1-sweep")
def sweep(
    grid: dict[str, list[Any]], measures: str = MEASURES, branch: str | None = None, folder: Path = ROOT
) -> list[dict[str, Any]]:
    """Run every combination of the grid's values on what the branch has; returns the table, the best point first.

    `measures` says which metrics are shown: `<model>.<data set>.<measure>`, with * for any; points are ordered by their
    mean. A point that fails is in the table with what it said, and fails the run when all points are over.
    """
    say = get_run_logger()
    rows = []
    with alive(folder, flow_run.id), only_run(folder, say.warning):
        commit = committed(folder, branch)  # once: the branch may move while points run
        expect(measures, grid, folder, commit)
        for number, point in enumerate(points(grid), start=1):
            name = unused(folder, f"{plain(str(flow_run.name))}-{number}")
            try:
                metrics = try_out.with_options(task_run_name=name)(check_out(folder, commit), name, point)
                rows.append({"experiment": name, **point, **chosen(metrics, measures)})
            except (RuntimeError, ValueError) as error:
                rows.append({"experiment": name, **point, "failed": " ".join(str(error).splitlines()[-2:])})
    rows.sort(key=lambda row: row.get("mean", float("-inf")), reverse=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))  # the UI shows those that the first row has
    table = [{column: row.get(column, "") for column in columns} for row in rows]
    create_table_artifact(table, key="sweep", description=f"{measures}, the best point first")
    if failed := [row["experiment"] for row in rows if "failed" in row]:
        raise RuntimeError(f"{len(failed)} of {len(rows)} points failed: {', '.join(failed)}")
    return rows


@task(name="point", cache_policy=NO_CACHE, persist_result=False)
def try_out(tree: Path, name: str, point: dict[str, Any]) -> dict[str, Any]:
    """Run one point as an experiment of this name; returns its metrics. Raises `RuntimeError` where it fails."""
    forget_dead_owners(tree)
    settings = [word for key, value in point.items() for word in ("-S", f"{key}={_text(value)}")]
    command = [*dvc_as_child(), "--wait-for-lock", "exp", "run", "--name", name, *settings]
    run(command, name, tree, get_run_logger().info)
    return dict(json.loads((tree / METRICS).read_text(encoding="utf-8")))


def points(grid: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """All combinations of the values, the last key's changing fastest. Raises `ValueError` where a key has none."""
    if empty := [key for key, values in grid.items() if not values]:
        raise ValueError(f"the grid has no value for {', '.join(empty)}")
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def chosen(metrics: Mapping[str, Any], pattern: str) -> dict[str, float]:
    """The metrics whose dotted name fits the pattern, and their mean. Raises `RuntimeError` where none does."""
    found = {name: value for name, value in _flat(metrics) if fnmatchcase(name, pattern)}
    if not found:
        raise RuntimeError(f"no metric is called {pattern}; there are: {', '.join(name for name, _ in _flat(metrics))}")
    return {"mean": round(sum(found.values()) / len(found), 5), **found}


def expect(measures: str, grid: Mapping[str, list[Any]], folder: Path, commit: str) -> None:
    """Raise `RuntimeError` before any point runs where none of the commit's own metrics is called so.

    A grid that changes the data sets or the models may bring metrics that nobody has seen yet.
    """
    text = file_at(folder, commit, METRICS.as_posix())
    if text and not any(key.partition(".")[0] in ("download", "masks") for key in grid):
        chosen(json.loads(text), measures)


def unused(folder: Path, name: str) -> str:
    """The name, or a numbered one where an experiment has it: a run that is tried again comes with its old name."""
    refs = git(folder, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    taken = {ref.rpartition("/")[2] for ref in refs}
    return next(one for one in chain([name], (f"{name}.{again}" for again in count(2))) if one not in taken)


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def split(values: str) -> list[str]:
    """Values of a command line, one after each comma that stands in no brackets: "a,[b,c]" are "a" and "[b,c]"."""
    parts, depth = [""], 0
    for letter in values:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def read_grid(words: Sequence[str]) -> dict[str, list[Any]]:
    """The grid of a command line, `key=value,value` each. Raises `ValueError` for another form and for a key twice."""
    grid: dict[str, list[Any]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        if not (key and equals):
            raise ValueError(f"{word!r}, expected KEY=VALUE,VALUE as in seed=1,2")
        if key in grid:
            raise ValueError(f"{key} is given twice: all of its values stand after one -S, as in {key}=1,2")
        grid[key] = split(values)
    return grid


def _text(value: Any, within: bool = False) -> str:
    """A value as `dvc exp run -S` reads it: text as it is, within lists and mappings in quotes; keys never are."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_text(inner, True)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(_text(inner, True) for inner in value)}]"
    return value if isinstance(value, str) and not within else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-S", dest="grid", action="append", required=True, metavar="KEY=VALUE,VALUE")
    parser.add_argument("--measures", default=MEASURES, help="<model>.<data set>.<measure>, with * for any")
    parser.add_argument("--branch", help="a branch or commit; by default the one that is checked out")
    options = parser.parse_args()
    try:
        grid = read_grid(options.grid)
    except ValueError as error:
        parser.error(str(error))
    need_server()
    sweep(grid, options.measures, options.branch)
