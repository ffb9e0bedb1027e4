"""The annotator that asks a server, against a real one on this machine that misbehaves on purpose."""

import base64
import io
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_server import GOOD, Server, completion
from PIL import Image
from policy_server import needs_transformers_serve, transformers_serve
from rendered import EMBEDDED

from saliency_r1 import cot, tasks
from saliency_r1.annotation import AnnotationError, annotate, load
from saliency_r1.annotation.endpoint import EndpointAnnotator
from saliency_r1.annotation.interface import Subject, Try
from saliency_r1.params import Endpoint, load_params

ROOT = Path(__file__).parents[2]
SECRET = "sk-never-to-be-seen"


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def annotator(server: Server, tmp_path):
    def make(**changes: Any) -> EndpointAnnotator:
        options = Endpoint(
            url=server.url, concurrency=4, requests_per_minute=None, timeout=1.0, retries=3, backoff=0.01,
            temperature=0.0, max_requests=None, max_tokens=None, max_cost=None, prices=None,
        ).model_copy(update=changes)  # fmt: skip
        return EndpointAnnotator("some-model", 200, options, tmp_path / "answers")

    return make


def subject(number: int = 0) -> Subject:
    pixels = np.full((40, 60, 3), number, np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 255
    objects = [[{"id": 1, "salient": True}]]
    return Subject(f"s{number}", "sod", [Image.fromarray(pixels)], tasks.get("sod").truth([mask]), objects)


def once(number: int = 0) -> Try:
    return Try(subject(number), 0, 3, (7, number, 0))


def test_the_request_and_the_proposal(server, annotator):
    server.replies = [lambda _: completion(GOOD)]
    (said,) = annotator().write([once()])
    assert said.expressions == (cot.Expression("rg", 0, "the red disc"),)
    assert said.reasoning == "A red disc stands out."
    (body,) = server.bodies
    assert server.keys == [f"Bearer {SECRET}"]
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["expressions", "reasoning"]
    image, text = body["messages"][0]["content"]
    drawn = Image.open(io.BytesIO(base64.b64decode(image["image_url"]["url"].partition(",")[2])))
    assert drawn.size == (60, 40)
    assert np.asarray(drawn).max() == 255, "the ground truth is outlined"
    assert "outline" in text["text"]


@pytest.mark.parametrize(
    "trouble",
    [
        lambda _: (429, b"slow down"),
        lambda _: (503, b"busy"),
        lambda _: (524, b"a gateway's own timeout"),
        lambda _: (200, b"<html>a proxy's page</html>"),
        lambda _: (200, b'{"choices": []}'),
        lambda _: None,  # the connection is dropped
        lambda _: time.sleep(1.5) or (200, b"too late"),
    ],
    ids=["rate limit", "busy", "gateway", "html", "no choices", "dropped", "too slow"],
)
def test_what_may_go_away_by_itself_is_tried_again(trouble, server, annotator):
    server.replies = [trouble, trouble, lambda _: completion(GOOD)]
    (said,) = annotator().write([once()])
    assert not said.fault
    assert len(server.bodies) == 3


def test_what_does_not_go_away_is_an_error_without_the_key(server, annotator):
    server.replies = [lambda _: (401, f"bad key {SECRET}".encode())]
    with pytest.raises(AnnotationError, match="refused s0: status 401") as caught:
        annotator().write([once()])
    assert SECRET not in str(caught.value)
    assert len(server.bodies) == 1
    server.replies = [lambda _: (500, b"broken")]
    with pytest.raises(AnnotationError, match="no answer for s0 in 4 requests; the last one: status 500"):
        annotator().write([once()])


@pytest.mark.parametrize(
    ("health", "complaint"),
    [
        (200, ""),
        (404, ""),
        (501, ""),
        (401, "does not take the key in OPENAI_API_KEY: status 401"),
        (503, "is not ready: status 503"),
    ],
)
def test_a_server_is_looked_for_before_any_work(health, complaint, server, annotator):
    server.health = health
    if complaint:
        with pytest.raises(AnnotationError, match=complaint) as caught:
            annotator().check()
        assert SECRET not in str(caught.value)
    else:
        annotator(max_requests=1).check()
    assert server.looks == ["/v1/models"]
    assert not server.bodies, "a look costs nothing"


def test_no_server_is_said_at_once_with_what_to_do(server, annotator):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    words = r"no server answers at .*annotate\.endpoint\.url.*annotate\.annotator = local or offline"
    with pytest.raises(AnnotationError, match=words):
        annotator(url=url, retries=50, backoff=30).check()


def test_the_stage_asks_before_it_loads_a_model(server, tmp_path):
    options = load_params(ROOT / "profiles/paper-3b.yaml").annotate
    assert options.annotator == "openai"
    server.health = 503
    options = options.model_copy(update={"endpoint": options.endpoint.model_copy(update={"url": server.url})})
    with pytest.raises(AnnotationError, match="not ready"):
        load(options, tmp_path, torch.device("cpu"), torch.float32)


def test_nothing_is_asked_twice_even_after_a_crash(server, annotator, tmp_path):
    server.replies = [lambda _: completion(GOOD), lambda _: (401, b"")]
    with pytest.raises(AnnotationError):
        annotator(concurrency=1).write([once(0), once(1)])
    server.replies = [lambda _: completion(GOOD)]
    before = len(server.bodies)
    said = annotator().write([once(0), once(1)])
    assert len(server.bodies) == before + 1, "the first answer was there already"
    assert not any(one.fault for one in said)
    assert not any(SECRET in path.read_text() for path in (tmp_path / "answers").rglob("*.json"))


def test_another_prompt_model_or_image_is_another_question(server, annotator):
    server.replies = [lambda _: completion(GOOD)]
    made = annotator()
    made.write([once()])
    made.write([Try(subject(), 1, 3, (7, 0, 1), "Not good.")])
    made.write([once(1)])
    made.client.model = "another"
    made.write([once()])
    assert len(server.bodies) == 4
    assert "Not good." in server.bodies[1]["messages"][0]["content"][-1]["text"]


@pytest.mark.parametrize(("limit", "value", "asked"), [("max_requests", 2, 2), ("max_tokens", 150, 2)])
def test_a_budget_stops_cleanly_and_a_further_run_goes_on(limit, value, asked, server, annotator):
    server.replies = [lambda _: completion(GOOD)]
    with pytest.raises(AnnotationError, match=rf"annotate\.endpoint\.{limit} = {value} is spent .2 requests, 200 tok"):
        annotator(concurrency=1, **{limit: value}).write([once(number) for number in range(4)])
    assert len(server.bodies) == asked
    assert len(annotator().write([once(number) for number in range(4)])) == 4
    assert len(server.bodies) == 4


def test_requests_run_at_once_but_not_too_many(server, annotator):
    server.replies = [lambda _: time.sleep(0.1) or completion(GOOD)]
    annotator(concurrency=3).write([once(number) for number in range(9)])
    assert server.busiest == 3


def test_requests_keep_the_pace_that_a_server_allows(server, annotator):
    starts: list[float] = []
    server.replies = [lambda _: starts.append(time.monotonic()) or completion(GOOD)]
    began = time.monotonic()  # not the first arrival: a busy machine may see that one late, and no other
    annotator(requests_per_minute=600).write([once(number) for number in range(6)])
    assert max(starts) - began >= 0.9 * 5 * 0.1, "600 a minute are a tenth of a second apart"


def test_bad_answers_are_set_aside_and_good_ones_kept(server, annotator, samples, segmenter):
    """Through the whole loop: a fault becomes feedback for the next attempt."""
    folder, rows = samples
    server.replies = [lambda _: completion("I see a disc."), lambda _: completion(GOOD)]
    (made,) = annotate([rows[0]], folder, annotator(), segmenter, 0.0, 2, 0, 1)
    assert (made.attempts, made.kept, made.expressions) == (2, True, ("the red disc",))
    assert "not the JSON" in server.bodies[1]["messages"][0]["content"][-1]["text"]
    server.replies = [lambda _: completion("[]")]
    (never,) = annotate([rows[1]], folder, annotator(), segmenter, 0.0, 2, 0, 1)
    assert (never.attempts, never.kept, never.response, never.consistency) == (2, False, "", 0.0)


@pytest.mark.slow
@needs_transformers_serve
def test_a_real_server_with_the_embedded_policy(tmp_path):
    """The tiny policy cannot write JSON: the fault is its own, everything on the way to it has worked."""
    with transformers_serve(tmp_path / "log") as url:
        options = Endpoint(
            url=url, concurrency=2, requests_per_minute=None, timeout=60.0, retries=8, backoff=1.0, temperature=0.0,
            max_requests=None, max_tokens=None, max_cost=None, prices=None,
        )  # fmt: skip
        annotator = EndpointAnnotator(str(EMBEDDED / "models/policy"), 16, options, tmp_path)
        said = annotator.write([once(0), once(1)])
    assert all("not the JSON" in one.fault for one in said)
    assert annotator.client.tokens > 0
