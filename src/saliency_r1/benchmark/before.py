"""What is settled before anybody is asked: which samples, under which name, and what it would cost.

No model library is imported and no weights are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from saliency_r1.benchmark.answers import Journal, Served
from saliency_r1.benchmark.errors import BenchmarkError
from saliency_r1.benchmark.floors import FLOORS
from saliency_r1.benchmark.prompts import Prompts, Row
from saliency_r1.benchmark.rows import Kind, earlier, slug
from saliency_r1.chat import ChatClient, Question, cost
from saliency_r1.data.table import evenly_spaced, read_samples
from saliency_r1.params import Asked

_PIXELS_A_TOKEN = 28 * 28  # of Qwen2.5-VL; other families are within a factor of two
_CHARACTERS_A_TOKEN = 4


def select(
    download: Path, names: Sequence[str], limit: int | None, split: str
) -> tuple[dict[str, list[Row]], dict[str, int]]:
    """The samples of some data sets, of each at most `limit`, evenly spread, and the images of each whole data set.

    Names are compared without case, where none is that very name. Raises `BenchmarkError` for one that is not there, or
    could be either of two.
    """
    if not (download / "table.parquet").is_file():
        raise BenchmarkError(f"{download} holds no table.parquet; `dvc repro download` imports the data sets")
    table = read_samples(download).filter(split=split)
    known: list[str] = table["dataset"].unique(maintain_order=True).to_list()
    chosen: dict[str, list[Row]] = {}
    of: dict[str, int] = {}
    for name in names:
        meant = [name] if name in known else [one for one in known if one.lower() == name.lower()]
        if len(meant) != 1:
            raise BenchmarkError(
                f"{download} has no data set {name} with a split {split}; known are {', '.join(known)}. Add "
                "it to download.datasets of params.yaml and run `dvc repro download`"
            )
        whole = table.filter(pl.col("dataset") == meant[0])
        chosen[meant[0]] = list(evenly_spaced(whole, limit).iter_rows(named=True))
        of[meant[0]] = int(whole["names"].list.len().sum())
    return chosen, of


def check_name(out: Path, name: str, kind: Kind) -> None:
    """Raise `BenchmarkError` where a row of this name would take the place of another one."""
    if slug(name) in map(slug, FLOORS):
        raise BenchmarkError(
            f"{name} is the row of a floor or a ceiling, which every table has; call this one otherwise"
        )
    earlier(out, name, kind)


def estimate(
    asked: Asked, prompts: Prompts, rows: Sequence[Row], tokens: int, kept: Path, journal: Journal
) -> dict[str, Any]:
    """What a run would still ask for, and at most cost; nothing is sent.

    Tokens of a prompt are those that answered prompts had on average, or, before there is any, a guess from characters
    and pixels; an answer takes the `tokens` that are allowed. `kept` is the folder of a server's answers.
    """
    if asked.endpoint is None:
        return {"samples": len(rows), "requests": sum(journal.find(row) is None for row in rows)}
    client = ChatClient(asked.model, tokens, asked.endpoint, kept, "endpoint")
    speaker = Served(client, prompts)
    guessed, seen, count = 0, [], 0
    for row in rows:
        question = speaker.question(row)
        found = journal.find(row)
        known = found.usage if found else (reply.usage if (reply := client.known(question)) else None)
        if known is None:
            count += 1
            guessed += _guess(question)
        elif known.get("prompt_tokens"):
            seen.append(int(known["prompt_tokens"]))
    prompt = round(count * sum(seen) / len(seen)) if seen else guessed
    answer = count * tokens
    whole = {"prompt_tokens": prompt, "completion_tokens": answer}
    prices = client.options.prices
    return {"samples": len(rows), "requests": count, "measured": bool(seen), **whole} | (
        {"cost": cost(whole, prices)} if prices else {}
    )


def _guess(question: Question) -> int:
    pixels = sum(image.width * image.height for image in question.images)
    return -(-len(question.text) // _CHARACTERS_A_TOKEN) + -(-pixels // _PIXELS_A_TOKEN)
