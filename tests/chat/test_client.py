"""The client of the chat protocol against servers that differ, and environments that do."""

import json
import signal
import subprocess
import sys
import time

import httpx
import pytest
from chat_server import completion

from saliency_r1.chat import ChatClient, ChatError, Question
from saliency_r1.chat.connection import connect, read_key
from saliency_r1.chat.dialect import without_thinking
from saliency_r1.params import Endpoint

SCHEMA = {"type": "object"}


@pytest.fixture
def client(server, tmp_path):
    return make(server.url, tmp_path)


def make(url, folder, **changes):
    options = Endpoint(
        url=url, concurrency=2, requests_per_minute=None, timeout=2.0, retries=2, backoff=0.01,
        temperature=0.3, max_requests=None, max_tokens=None, max_cost=None, prices=None,
    ).model_copy(update=changes)  # fmt: skip
    return ChatClient("a-model", 64, options, folder / "answers", "annotate.endpoint")


def question(name="s0", schema=SCHEMA):
    return Question(name, "What stands out?", schema=schema, seed=5)


@pytest.mark.parametrize(
    ("refusal", "field", "instead"),
    [
        (b"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens", "max_completion_"),
        (b"'temperature' does not support 0.3 with this model", "temperature", None),
        (b'{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}', "seed", None),
    ],
)
def test_a_field_that_the_server_refuses_is_left_out_from_then_on(client, server, capsys, refusal, field, instead):
    server.replies = [lambda _: (400, refusal), lambda _: completion("a dog")]
    assert client.ask(question()).text == "a dog"
    first, second = server.bodies
    assert field in first
    assert field not in second
    assert instead is None or any(key.startswith(instead) for key in second)
    assert second["messages"] == first["messages"]
    client.ask(question("s1", schema=None))
    assert field not in server.bodies[-1], "learnt once"
    assert field in capsys.readouterr().err


def of_pydantic(body, **entry):
    """What FastAPI answers: the request comes back with the error."""
    return 422, json.dumps({"detail": [{"type": "value_error", "input": body} | entry]}).encode()


UNKNOWN = "Value error, json_schema is not supported"


@pytest.mark.parametrize(
    "refuse",
    [
        lambda body: of_pydantic(body, loc=["body"], msg=UNKNOWN),
        lambda body: of_pydantic(body, loc=["body", "response_format", "seed"], msg="Input should be of max_tokens"),
        lambda body: (400, json.dumps({"message": str([{"msg": UNKNOWN, "input": body}]), "code": 400}).encode()),
        lambda body: (400, json.dumps([{"error": {"message": UNKNOWN}, "request": body}]).encode()),
        lambda _: (400, b'{"error": {"message": "no seed, no temperature", "param": "response_format.json_schema"}}'),
    ],
)
def test_nothing_is_learnt_from_the_request_that_comes_back_with_a_refusal(client, server, refuse):
    server.replies = [lambda _: refuse(server.bodies[-1]), lambda _: completion("a dog")]
    assert client.ask(question()).text == "a dog"
    first, second = server.bodies
    assert second == first | {"response_format": {"type": "json_object"}}


def test_a_refusal_of_an_image_is_none_of_a_field(client, server):
    said = {"message": "Could not parse the image, though its schema is right", "param": "messages.[0].content"}
    refused = {"error": said, "request": question().text + " temperature"}
    server.replies = [lambda _: (400, json.dumps(refused).encode()), lambda _: completion("a dog")]
    with pytest.raises(ChatError, match=r"refused s0: status 400: .*Could not parse the image"):
        client.ask(question())
    client.ask(question("s1"))
    assert server.bodies[1] == server.bodies[0]


@pytest.mark.parametrize(
    ("section", "key"), [("annotate.endpoint", "annotate.answer_tokens"), ("endpoint", "policy.max_new_tokens")]
)
@pytest.mark.parametrize("param", [{"param": "max_tokens"}, {}])
def test_a_limit_that_is_too_large_is_told_with_its_key(client, server, section, key, param):
    """In the words of OpenAI; images have nothing to do with it, and no other name of the field helps."""
    said = "max_tokens is too large: 64. This model supports at most 16 completion tokens, whereas you provided 64."
    server.replies = [lambda _: (400, json.dumps({"error": {"message": said} | param}).encode())]
    client.section = section
    with pytest.raises(ChatError, match=rf"that long there: lower {key} = 64$"):
        client.ask(question())
    assert len(server.bodies) == 1


def test_a_server_without_schemas_is_asked_for_json_and_then_for_text(client, server):
    refused = (400, b"response_format is not supported")
    server.replies = [lambda _: refused, lambda _: refused, lambda _: completion("a dog")]
    assert client.ask(question()).text == "a dog"
    forms = [body.get("response_format", {}).get("type") for body in server.bodies]
    assert forms == ["json_schema", "json_object", None]


def test_a_server_that_refuses_for_ever_is_an_error(client, server):
    server.replies = [lambda _: (400, b"max_tokens temperature seed response_format: I like nothing")]
    with pytest.raises(ChatError, match="refused s0: status 400"):
        client.ask(question())
    assert len(server.bodies) <= 6


TOO_LONG = (
    b"'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum context length is 4096 tokens and "
    b"your request has 4090 input tokens."
)


def test_a_question_that_is_too_long_teaches_nothing_about_the_others(client, server):
    server.replies = [lambda _: (400, TOO_LONG), lambda _: completion("a dog")]
    with pytest.raises(ChatError, match=r"refused s0: status 400: 'max_tokens' or"):
        client.ask(question())
    client.ask(question("s1", schema=None))
    assert [body["max_tokens"] for body in server.bodies] == [64, 64]


def test_the_limit_of_tokens_is_said_otherwise_and_never_left_out(client, server):
    refusals = [lambda _: (400, b"max_tokens: no such field"), lambda _: (400, b"max_completion_tokens: no such field")]
    server.replies = [*refusals, lambda _: completion("a dog")]
    with pytest.raises(ChatError, match="refused s0: status 400: max_completion_tokens"):
        client.ask(question())
    client.ask(question("s1", schema=None))
    limits = [{key: value for key, value in body.items() if key.startswith("max_")} for body in server.bodies]
    assert limits == [{"max_tokens": 64}, {"max_completion_tokens": 64}, {"max_completion_tokens": 64}]


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        ((200, b"plain", ("Content-Encoding", "gzip")), "DecodingError"),
        ((200, b"[" * 200_000), "not a chat completion"),
    ],
)
def test_what_cannot_be_read_is_no_answer(client, server, reply, named):
    server.replies = [lambda _: reply]
    with pytest.raises(ChatError, match=f"gave no answer for s0 in 3 requests.*{named}"):
        client.ask(question())


def test_a_look_that_cannot_be_read_is_no_server(client, monkeypatch):
    packed = httpx.MockTransport(lambda _: httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=b"plain"))
    monkeypatch.setattr(client, "_client", httpx.Client(transport=packed, base_url="http://here/v1"))
    with pytest.raises(ChatError, match="no server answers"):
        client.check()


@pytest.mark.parametrize("odd", [b'"n/a"', b"Infinity", b"NaN", b"-5", b"0.5", b"1e300", b"true", b"{}", b"null"])
def test_of_usage_whole_numbers_are_kept(server, tmp_path, odd):
    status, content = completion("a dog")
    usage = b'{"prompt_tokens": %s, "completion_tokens": 3.0, "total_tokens": %s}' % (odd, odd)
    server.replies = [lambda _: (status, content.replace(b'{"total_tokens": 100}', usage))]
    client = make(server.url, tmp_path, prices=(1.0, 2.0))
    assert client.ask(question()).usage == {"completion_tokens": 3}
    assert client.ask(question()).usage == {"completion_tokens": 3}, "from the cache"
    assert (client.tokens, client.cost) == (3, 6e-6)


def test_half_a_pair_of_surrogates_is_no_text(client, server):
    server.replies = [lambda _: completion("a \ud83d dog, \U0001f600", reasoning_content="\udc00")]
    reply = client.ask(question())
    assert (reply.text, reply.reasoning) == ("a \ufffd dog, \U0001f600", "\ufffd")


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (completion(None, reasoning_content="a dog, I think"), "empty"),
        (completion("  "), "empty"),
        (completion("<think>still thinking"), "empty"),
        (completion("a d", finish="length"), "cut off"),
        (completion(None, refusal="I cannot help with that."), "refused"),
        (completion("", finish="content_filter"), "refused"),
    ],
)
def test_what_is_no_answer_is_not_kept(client, server, reply, fault):
    server.replies = [lambda _: reply]
    assert client.ask(question()).fault == fault
    asked = len(server.bodies)
    assert asked == (1 if fault == "refused" else 3), "a refusal is not asked for again at once"
    server.replies = [lambda _: completion("a dog")]
    assert client.ask(question()).text == "a dog"
    assert len(server.bodies) == asked + 1


@pytest.mark.parametrize(
    "content",
    ["\ufeffa dog", [{"type": "text", "text": "a "}, {"type": "text", "text": "dog"}], "<think>hm</think>\n\na dog"],
)
def test_an_answer_is_read_in_every_shape(client, server, content):
    server.replies = [lambda _: completion(content)]
    reply = client.ask(question())
    assert (reply.text, reply.fault, reply.model) == ("a dog", "", "served-model")
    assert client.ask(question()) == reply, "from the cache, all of it"
    assert len(server.bodies) == 1


def test_thinking_is_only_what_stands_first():
    assert without_thinking('{"reasoning": "</think>"}') == '{"reasoning": "</think>"}'


def test_a_redirect_is_followed_on_the_same_server_only(client, server):
    server.replies = [lambda _: (307, b"", ("Location", "/v1/elsewhere")), lambda _: completion("a dog")]
    assert client.ask(question()).text == "a dog"
    server.replies = [lambda _: (308, b"", ("Location", "http://localhost:9/v1/chat/completions"))]
    with pytest.raises(ChatError, match=r"redirects to http://localhost:9.*set annotate\.endpoint\.url"):
        client.ask(question("s1", schema=None))


@pytest.mark.parametrize("key", ["sk-abc\n", "\r\n sk-abc \t"])
def test_white_space_around_the_key_is_no_part_of_it(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert read_key() == "sk-abc"


@pytest.mark.parametrize("key", ["\u201csk-abc\u201d", "sk-a\nbc", "sk-\u00e9", "sk-a bc"])
def test_a_key_that_cannot_be_one_is_refused_unseen(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ChatError, match="holds a character that no key has") as refused:
        connect("http://127.0.0.1:1/v1", 1.0, "annotate.endpoint")
    assert "abc" not in str(refused.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000/v1", "ftp://host/v1", "http://", "http://[::1", "http://a b/"])
def test_what_is_no_address_is_named(url):
    with pytest.raises(ChatError, match=r"annotate\.endpoint\.url"):
        connect(url, 1.0, "annotate.endpoint")


@pytest.mark.parametrize("exempt", ["[::1]", "::1,[fe80::1]", "example.org, [::1]:8000", "*"])
def test_any_no_proxy_lets_this_machine_be_asked(client, server, monkeypatch, tmp_path, exempt):
    monkeypatch.setenv("NO_PROXY", exempt)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    server.replies = [lambda _: completion("a dog")]
    assert make(server.url, tmp_path).ask(question()).text == "a dog"


def test_a_socks_proxy_without_its_package_is_named(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    monkeypatch.setattr("saliency_r1.runtime.proxies.find_spec", lambda name: None)
    with pytest.raises(ChatError, match="names a SOCKS proxy"):
        connect("https://example.org/v1", 1.0, "annotate.endpoint")
    monkeypatch.setenv("NO_PROXY", "example.org")
    connect("https://example.org/v1", 1.0, "annotate.endpoint")


@pytest.mark.parametrize("left", [b"", b'{"content": "a d', b"\0" * 64, b"[]", b'{"content": "caf\xe9"}'])
def test_an_answer_that_was_kept_in_part_is_asked_for_again(client, server, left):
    server.replies = [lambda _: completion("a dog")]
    client.ask(question())
    (kept,) = client.cache.rglob("*.json")
    kept.write_bytes(left)
    assert client.known(question()) is None
    assert client.ask(question()).text == "a dog"
    assert len(server.bodies) == 2
    assert client.known(question()).text == "a dog"


@pytest.mark.parametrize("slow", [{"backoff": 60.0}, {"requests_per_minute": 2.0}])
def test_where_a_run_ends_nothing_more_is_sent(server, tmp_path, capsys, slow):
    """Neither what waits for its turn nor what would be tried again."""
    server.replies = [lambda _: (503, b"busy")]
    client = make(server.url, tmp_path, **slow)

    def ask(number):
        if number:
            return client.ask(question(f"s{number}"))
        while not server.bodies:
            time.sleep(0.01)
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        client.at_once(ask, range(9))
    assert time.monotonic() - began < 20
    assert len(server.bodies) <= 2, "the first, and one that began before the end was seen"
    assert "nothing more is asked" in capsys.readouterr().err


def test_a_client_whose_run_has_ended_can_be_asked_again(server, tmp_path):
    client = make(server.url, tmp_path, backoff=60.0)

    def stop(number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.at_once(stop, range(2))
    server.replies = [lambda _: completion("a dog")]
    assert client.ask(question("later")).text == "a dog"


def test_what_is_on_its_way_when_a_run_ends_is_kept(server, tmp_path):
    server.replies = [lambda _: time.sleep(0.5) or completion("a dog")]
    client = make(server.url, tmp_path)

    def ask(number):
        if number:
            return client.ask(question(f"s{number}"))
        while not server.bodies:
            time.sleep(0.01)
        raise ChatError("the first is refused")

    with pytest.raises(ChatError, match="the first is refused"):
        client.at_once(ask, range(9))
    assert client.known(question("s1")).text == "a dog"
    assert len(server.bodies) <= 2, "the first, and one that began before the end was seen"


INTERRUPTED = """
import sys
from pathlib import Path
import polars
from saliency_r1.chat import ChatClient, Question
from saliency_r1.params import Endpoint
options = Endpoint(url=sys.argv[1], concurrency=2, requests_per_minute=None, timeout=2.0, retries=5, backoff=60.0,
                   temperature=0.0, max_requests=None, max_tokens=None)
ChatClient("a-model", 64, options, Path(sys.argv[2]), "endpoint").ask_all([Question("a", "a"), Question("b", "b")])
"""


def test_an_interrupt_is_heard_beside_the_tables_library(server, tmp_path):
    """polars has a handler of its own for SIGINT, under which a wait without end goes on."""
    server.replies = [lambda _: (503, b"busy")]
    command = [sys.executable, "-c", INTERRUPTED, server.url, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while len(server.bodies) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert "nothing more is asked" in said
    assert "KeyboardInterrupt" in said
    assert len(server.bodies) == 2
