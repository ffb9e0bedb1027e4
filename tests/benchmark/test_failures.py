"""Four kinds of failure, each counted as what it is; nothing that was paid for is asked again."""

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest
from answers import good
from chat_server import completion

from saliency_r1.benchmark import measure, run
from saliency_r1.benchmark.answers import PATIENCE, Journal, Served, said
from saliency_r1.benchmark.errors import BenchmarkError
from saliency_r1.benchmark.lenient import lenient
from saliency_r1.benchmark.speakers import only_model
from saliency_r1.chat import BudgetError, Reply

FORM = good({"task": "sod", "images": [""]})


def too_slow(_):
    time.sleep(1.5)
    return completion(FORM)


HTML = (200, b"<!doctype html><title>Gateway</title>")
WRONG = (200, b'{"result": "fine"}')
# What becomes of the samples, one after the other; each of them is asked at most twice.
MISBEHAVIOUR = [
    [(429, b""), completion(FORM)],
    [(500, b""), completion(FORM)],
    [completion("")] * 2,  # empty, and again: unparsed
    [completion("<think>It is", finish="length")],  # truncated; greedy, so it is not asked again
    [completion(None, refusal="I cannot help with that.")],
    [completion("I'm sorry, but I can't help with that.")],
    [completion("A large thing.")],  # unparsed
    [completion(f"```\n{FORM}\n```")],  # unparsed by the letter, read leniently
    [HTML] * 2,
    [WRONG] * 2,
    [too_slow] * 2,
]


def script(replies):
    return [reply if callable(reply) else (lambda _, reply=reply: reply) for each in replies for reply in each]


def counts(rows, answers):
    strict = [answer.scored for answer in answers]
    read = [lenient(text, "sod", 1) for answer, text in zip(answers, strict, strict=True)]
    return measure.failures(rows, answers, strict), measure.failures(rows, answers, read)


def test_reasoning_that_a_server_takes_out_is_part_of_the_answer():
    answer = "<answer><rg>the dog</rg></answer>"
    assert said(Reply(answer, reasoning="It runs.")).text == f"<think>It runs.</think>{answer}"
    assert said(Reply(FORM, reasoning="Of its own.")).text == FORM
    assert said(Reply(f"It runs.</think>{answer}")).text == f"<think>It runs.</think>{answer}", "the template opened it"
    assert said(Reply("", "empty", reasoning="It runs, and")).text == "", "no answer is made of thoughts alone"


def test_every_kind_of_failure_is_counted_as_what_it_is(server, client, prompts, rows, tmp_path):
    journal = Journal(tmp_path / "said")
    server.replies = script(MISBEHAVIOUR)
    with pytest.raises(BenchmarkError, match=r"3 of 11 answers are missing \(transport\).*run again to go on"):
        run.ask(Served(client(), prompts), rows, journal)
    assert len(server.bodies) == sum(map(len, MISBEHAVIOUR))
    # The server is well again: what has an answer, of whatever kind, is not asked.
    server.bodies.clear()
    server.replies = [lambda _: completion(FORM)]
    answers = run.ask(Served(client(), prompts), rows, journal)
    assert len(server.bodies) == 3
    assert {answer.model for answer in answers} == {"served-model"}
    strict, read = counts(rows, answers)
    assert strict == {"refused": 2, "truncated": 1, "unparsed": 3}
    assert read == {"refused": 2, "truncated": 1, "unparsed": 2}
    assert [answer.scored for answer in answers if answer.fault] == ["", "", ""]


def test_a_further_run_asks_again_for_what_was_of_no_use_alone(server, client, prompts, rows, tmp_path):
    journal = Journal(tmp_path / "said")
    server.replies = [*script(MISBEHAVIOUR[:8]), lambda _: completion(FORM)]
    run.ask(Served(client(), prompts), rows, journal)
    journal.forget_faults(rows)
    server.bodies.clear()
    server.replies = [lambda _: completion(FORM)]
    answers = run.ask(Served(client(), prompts), rows, journal)
    assert len(server.bodies) == 3, "the empty, the truncated and what the server refused; words, whichever, are kept"
    assert counts(rows, answers)[0] == {"refused": 1, "truncated": 0, "unparsed": 2}


def test_a_dead_server_is_given_up(server, client, prompts, rows, tmp_path):
    server.replies = [lambda _: None]
    with pytest.raises(BenchmarkError, match="11 of 11 answers are missing"):
        run.ask(Served(client(retries=0), prompts), rows, Journal(tmp_path / "said"))
    assert len(server.bodies) == PATIENCE


def test_money_is_a_budget(server, client, prompts, rows, tmp_path):
    usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
    status, content = completion(FORM)
    content = content.replace(b'{"total_tokens": 100}', str(usage).replace("'", '"').encode())
    server.replies = [lambda _: (status, content)]
    journal = Journal(tmp_path / "said")
    # A question costs (90 * 1 + 10 * 2) / 1e6 = 1.1e-4: the third is the one that goes over 3e-4.
    with pytest.raises(BudgetError, match=r"endpoint\.max_cost = 0\.0003 is spent .3 requests, 300 tokens, 0\.00033"):
        run.ask(Served(client(max_cost=3e-4, prices=(1.0, 2.0)), prompts), rows, journal)
    assert len(server.bodies) == 3
    answers = run.ask(Served(client(prices=(1.0, 2.0)), prompts), rows, journal)
    assert len(server.bodies) == len(rows)
    assert run.usage(answers, (1.0, 2.0))["cost"] == pytest.approx(11 * 1.1e-4)


@pytest.mark.parametrize(
    ("status", "headers", "content", "message"),
    [
        (200, {}, b"[" * 200_000, "http://here/v1 lists no model"),
        (200, {"Content-Encoding": "gzip"}, b"plain", "no server answers at http://here/v1"),
        (404, {}, b"", r"lists no model .status 404.; does it end as the server's own address, in /v1"),
        (401, {}, b"", "wants a key; set OPENAI_API_KEY: status 401"),
    ],
)
def test_a_list_of_models_that_cannot_be_read_is_named(status, headers, content, message, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    replies = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers, content=content))
    with (
        httpx.Client(transport=replies, base_url="http://here/v1") as client,
        pytest.raises(BenchmarkError, match=message),
    ):
        only_model(client, "http://here/v1")


KILLED = """
import sys
from pathlib import Path
import polars as pl
from saliency_r1.benchmark import run
from saliency_r1.benchmark.answers import Journal, Served
from saliency_r1.benchmark.prompts import Prompts
from saliency_r1.chat import ChatClient
from saliency_r1.params import Endpoint
download, work, url = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
rows = pl.read_parquet(download / "table.parquet").filter(split="test", task="sod").to_dicts()
options = Endpoint(url=url, concurrency=3, requests_per_minute=None, timeout=60.0, retries=0, backoff=0.0,
                   temperature=0.0, max_requests=None, max_tokens=None, max_cost=None, prices=None)
client = ChatClient("a-model", 64, options, work / "answers", "endpoint")
run.ask(Served(client, Prompts(download, {})), rows, Journal(work / "said"))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_asks_nothing_twice(server, download, tmp_path):
    """kill -9 while answers of every kind are there and three questions are on their way."""
    hang = [lambda _: time.sleep(60)]
    server.replies = script([[completion(FORM)], [completion("", finish="length")], [completion("No.")]] * 2) + hang
    command = [sys.executable, "-c", KILLED, str(download), str(tmp_path), server.url]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 120
        while len(server.bodies) < 9 or len(list((tmp_path / "said").glob("[!.]*"))) < 6:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    answered = [str(body) for body in server.bodies[:6]]
    server.bodies.clear()
    server.replies = [lambda _: completion(FORM)]
    subprocess.run(command, check=True)
    again = [str(body) for body in server.bodies]
    assert len(again) == 5
    assert len({*answered, *again}) == 11, "every question was answered, and none twice"
