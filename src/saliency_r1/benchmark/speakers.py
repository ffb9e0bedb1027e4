"""From a model's name in the parameters or on a command line to somebody who answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from saliency_r1.benchmark.answers import InProcess, Said, Served, Speaker
from saliency_r1.benchmark.errors import BenchmarkError
from saliency_r1.benchmark.prompts import Prompts, Row
from saliency_r1.chat import ChatClient
from saliency_r1.chat.connection import key_trouble, where
from saliency_r1.params import Asked

if TYPE_CHECKING:  # `only_model` needs no torch
    from saliency_r1.prediction.split import ScoredAnswer
    from saliency_r1.rollout.environment import Environment


def speaker(
    asked: Asked,
    prompts: Prompts,
    environment: Environment,
    loading: Mapping[str, Any],
    cache: Path,
    section: str,
    adapter: Path | None = None,
    probabilities: bool = False,
) -> Speaker:
    """Who answers for `asked`: its server, or its folder read with `loading`, further arguments of `Policy.load`.

    `cache` keeps a server's answers; `section` is how messages call its options. Raises `ChatError` where it does not
    answer.
    """
    if asked.endpoint:
        client = ChatClient(asked.model, environment.max_new_tokens, asked.endpoint, cache, section)
        client.check()
        return Served(client, prompts)
    from saliency_r1.policy import Policy

    policy = Policy.load(asked.model, adapter, **loading)
    return InProcess(policy, prompts, environment, probabilities)


def scored(speaker: Speaker, environment: Environment, rows: Sequence[Row]) -> list[ScoredAnswer]:
    """The answers to some samples with their masks, as the stage masks writes them: read by the letter.

    Raises `BenchmarkError` where one is missing.
    """
    from saliency_r1.policy import Response
    from saliency_r1.prediction.split import ScoredAnswer

    found: dict[str, Said] = {}

    def keep(row: Row, said: Said) -> None:
        found[row["sample_id"]] = said

    if lost := speaker.answer(rows, keep):
        raise BenchmarkError(
            f"{len(lost)} of {len(rows)} answers are missing: {lost[0]}. What was answered is kept; run again to go on"
        )
    said = [found[row["sample_id"]] for row in rows]
    rollouts = environment.score(rows, [Response(one.text, (), not one.fault) for one in said])
    return [ScoredAnswer(rollout, one.token_probability) for rollout, one in zip(rollouts, said, strict=True)]


def only_model(client: httpx.Client, url: str) -> str:
    """The one model that a server lists. Raises `BenchmarkError` where it is not one, or no server answers."""
    try:
        response = client.get("models")
    except httpx.HTTPError as error:
        raise BenchmarkError(f"no server answers at {where(url)}: {error or type(error).__name__}") from None
    if trouble := key_trouble(response):
        raise BenchmarkError(f"{where(url)} {trouble}")
    try:
        listed = [str(entry["id"]) for entry in response.json()["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        listed = []
    if len(listed) == 1:
        return listed[0]
    if listed:
        has = f"lists {len(listed)} models ({', '.join(listed[:10])})"
    else:
        has = (
            f"lists no model (status {response.status_code}); does it end as the server's own address, in /v1 with most"
        )
    raise BenchmarkError(f"{where(url)} {has}; say which one to ask: --served NAME")
