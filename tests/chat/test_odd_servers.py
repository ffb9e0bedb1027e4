"""What servers and what stands before them answer instead of an answer: what is said, kept, and asked again."""

import contextlib
import json
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from chat_server import completion

from saliency_r1.chat import BudgetError, ChatClient, ChatError, Question, connection
from saliency_r1.params import Endpoint


@pytest.fixture
def ask(server, tmp_path, monkeypatch):
    """Asks the server a question, through a client whose options one may change."""
    clock = SimpleNamespace(monotonic=lambda: sum(ask.waits))
    monkeypatch.setattr("saliency_r1.chat.client.time", clock)
    monkeypatch.setattr(ChatClient, "_pause", lambda self, seconds: ask.waits.append(seconds) if seconds else None)

    def ask(name="s0", url=None, client=None, **changes):
        client = client or make(**({"url": url} if url else {}) | changes)
        return client.ask(Question(name, f"What stands out in {name}?"))

    def make(**changes):
        options = Endpoint(
            url=server.url, concurrency=1, requests_per_minute=None, timeout=2.0, retries=2, backoff=0.0,
            temperature=0.0, max_requests=None, max_tokens=None,
        ).model_copy(update=changes)  # fmt: skip
        return ChatClient("a-model", 64, options, tmp_path / "answers", "annotate.endpoint")

    ask.make, ask.waits = make, []
    return ask


def counted(**usage):
    _, content = completion("a dog")
    return 200, json.dumps(json.loads(content) | {"usage": usage}).encode()


def test_a_server_may_say_as_a_date_when_it_is_to_be_asked_again(server, ask):
    dates = formatdate(time.time() + 30, usegmt=True), formatdate(0, usegmt=True), "soon"
    server.replies = [lambda _, date=date: (503, b"busy", ("Retry-After", date)) for date in dates]
    server.replies.append(lambda _: completion("a dog"))
    assert ask(retries=3, backoff=7.0).text == "a dog"
    assert ask.waits[0] == 7.0
    assert 25 < sum(ask.waits[:2]) <= 30
    assert ask.waits[2:] == [14.0, 28.0], "a time that is past does not switch the pauses off"


def test_at_once_is_no_reason_to_spend_all_requests_at_once(server, ask):
    server.replies = [lambda _: (429, b"busy")]  # with Retry-After: 0
    with pytest.raises(ChatError, match="no answer for s0 in 4 requests"):
        ask(retries=3, backoff=20.0)
    assert ask.waits == [20.0, 40.0, 60.0]


def test_a_server_is_waited_for_as_long_as_it_asks(server, ask):
    server.replies = [lambda _: (503, b"busy", ("Retry-After", "180")), lambda _: completion("a dog")]
    assert ask(retries=1).text == "a dog"
    assert ask.waits == [180.0]


def test_a_server_that_asks_to_come_back_in_an_hour_is_told_as_that(server, ask):
    server.replies = [lambda _: (503, b"your day is used up", ("Retry-After", "3600"))]
    with pytest.raises(ChatError, match=r"not to be asked again for 3600 s: status 503: your day .* run again then"):
        ask(retries=5)
    assert len(server.bodies) == 1


def test_what_is_asked_beside_waits_too(ask, monkeypatch):
    """Of two requests the first is told to wait: the second is not sent before."""
    client = ask.make(requests_per_minute=60.0, retries=1)
    pause = ChatClient._pause
    sent_at = []

    def other_first(self, seconds):
        monkeypatch.setattr(ChatClient, "_pause", pause)
        pause(self, 0.9)  # nearly until the turn of this request; meanwhile the other one has been refused
        self._hold(120.0, "status 503")
        pause(self, seconds - 0.9)

    client._keep_pace()
    monkeypatch.setattr(ChatClient, "_pause", other_first)
    client._keep_pace()
    sent_at.append(sum(ask.waits))
    client._keep_pace()
    sent_at.append(sum(ask.waits))
    assert sent_at == pytest.approx([120.9, 121.9]), "and one after the other then"


def test_a_server_that_drips_is_not_waited_for_for_ever(server, ask, monkeypatch):
    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(100):
                handler.wfile.write(b" ")
                time.sleep(0.05)

    monkeypatch.setattr(connection, "LONGEST", 1)
    server.replies = [drip, lambda _: completion("a dog")]
    start = time.monotonic()
    assert ask(timeout=0.4).text == "a dog"
    assert time.monotonic() - start < 4, "the server goes on for five seconds"


def test_an_answer_without_end_is_given_up(server, ask, monkeypatch):
    monkeypatch.setattr(connection, "LARGEST", 1 << 20)
    server.replies = [lambda _: completion("x" * (2 << 20))] * 4 + [lambda _: completion("a dog")]
    with pytest.raises(ChatError, match="the answer was not whole after 1 MiB"):
        ask()
    assert ask().text == "a dog"


@pytest.mark.parametrize("status", [429, 500])
def test_what_a_server_gives_as_its_reason_is_told(server, ask, status):
    server.replies = [lambda _: (status, b'{"error": {"message": "You exceeded your current quota"}}')]
    with pytest.raises(ChatError, match=f"the last one: status {status}: .*exceeded your current quota"):
        ask()


@pytest.mark.parametrize("status", [404, 405])
def test_an_address_that_leads_nowhere_is_told_with_what_may_be_wrong(server, ask, status):
    server.replies = [lambda _: (status, b"Not Found")]
    with pytest.raises(ChatError, match=rf"status {status}: Not Found\. Does the address end .* in /v1 .* this model"):
        ask()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (413, b"<title>413 Request Entity Too Large</title>"),
        (400, b"This model's maximum context length is 4096 tokens. However, you requested 9000 tokens"),
    ],
)
def test_images_that_are_too_much_for_a_server_are_called_so(server, ask, status, reason):
    server.replies = [lambda _: (status, reason)]
    with pytest.raises(ChatError, match=rf"s0: status {status}: .*Its images are more than the server takes"):
        ask()


@pytest.mark.parametrize(
    "refusal",
    [
        (400, b'{"error": {"code": "content_filter", "message": "triggering content management policy, temperature"}}'),
        (400, b'{"error": {"code": "data_inspection_failed", "message": "Input data may contain inappropriate ..."}}'),
    ],
)
def test_a_picture_that_a_filter_refuses_is_a_refusal_and_no_end(server, ask, refusal):
    server.replies = [lambda _: refusal, lambda _: completion("a dog")]
    assert ask().fault == "refused"
    assert ask("s1").text == "a dog"
    assert "temperature" in server.bodies[-1], "nothing is learnt from it"


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_drop_the_question_says_where_it_leads(server, ask, status):
    server.replies = [lambda _: (status, b"moved", ("Location", "https://models.example.org/v1/chat/completions"))]
    with pytest.raises(ChatError, match=r"redirects to https://models\.example\.org/v1 .status 30\d.; set annotate"):
        ask()


def test_tokens_are_counted_where_their_sum_is_not_told(server, ask):
    server.replies = [lambda _: counted(prompt_tokens=90, completion_tokens=20)]
    client = ask.make(max_tokens=100)
    ask(client=client)
    with pytest.raises(BudgetError, match=r"max_tokens = 100 is spent .1 requests, 110 tokens"):
        ask("s1", client=client)


def test_tokens_are_counted_where_no_answer_comes_with_them(server, ask):
    empty = {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 1000}}
    server.replies = [lambda _: (200, json.dumps(empty).encode())]
    client = ask.make(max_tokens=1500, retries=4)
    with pytest.raises(BudgetError, match=r"max_tokens = 1500 is spent .1 requests, 2000 tokens"):
        ask(client=client)


def test_what_is_no_answer_need_not_say_what_it_took(server, ask):
    server.replies = [lambda _: (200, b'{"error": {"message": "overloaded"}}'), lambda _: counted(total_tokens=50)]
    assert ask(max_tokens=100).text == "a dog"


def test_a_key_in_an_address_stays_unseen_where_a_server_redirects_for_ever(server, ask):
    server.replies = [lambda handler: (307, b"", ("Location", handler.path))]
    address = server.url.replace("//", "//me:PASSWORD@") + "?api-key=SECRET"
    with pytest.raises(ChatError, match="no answer for s0 in 3 requests; the last one: redirected to http://127") as no:
        ask(url=address)
    assert "SECRET" not in str(no.value)
    assert "PASSWORD" not in str(no.value)


@pytest.mark.parametrize(
    ("budget", "usage"),
    [({"max_tokens": 100}, {}), ({"max_cost": 1.0, "prices": (1.0, 1.0)}, {"total_tokens": 50})],
)
def test_a_budget_that_cannot_be_kept_ends_after_the_first_answer(server, ask, budget, usage):
    server.replies = [lambda _: counted(**usage)]
    client = ask.make(**budget)
    assert ask(client=client).text == "a dog"
    with pytest.raises(BudgetError, match=r"does not say how many tokens an answer took.*set max_requests instead"):
        ask("s1", client=client)
    assert ask(client=client).text == "a dog", "it is kept"
    assert len(server.bodies) == 1


def test_another_server_is_asked_though_it_calls_its_model_the_same(server, ask):
    server.replies = [lambda _: completion("a dog"), lambda _: completion("a cat")]
    assert ask().text == "a dog"
    assert ask(url=server.url.replace("/v1", "/v2")).text == "a cat"
    assert ask(url=f"{server.url}/").text == "a dog", "the same address"


@pytest.mark.parametrize(
    ("health", "key", "said"), [(403, "sk-abc", None), (403, "", "wants a key"), (401, "sk", "does not take")]
)
def test_a_key_that_may_not_see_the_list_may_still_ask(server, ask, monkeypatch, health, key, said):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    server.health = health
    if said:
        with pytest.raises(ChatError, match=rf"{said}.*OPENAI_API_KEY: status {health}"):
            ask.make().check()
    else:
        ask.make().check()
