"""The way to a server: its address, the key, proxies, certificates."""

import ssl

import httpx
import pytest
from chat_server import completion

from saliency_r1.chat import ChatClient, ChatError, Question
from saliency_r1.chat.connection import connect, read_key, shown, where
from saliency_r1.params import Endpoint
from saliency_r1.runtime.proxies import certificates, proxy_for


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def make(url, folder):
    options = Endpoint(
        url=url, concurrency=1, requests_per_minute=None, timeout=2.0, retries=0, backoff=0.0, temperature=0.0,
        max_requests=None, max_tokens=None,
    )  # fmt: skip
    return ChatClient("a-model", 64, options, folder / "answers", "annotate.endpoint")


def test_a_query_of_the_address_stays_behind_the_path(server, tmp_path):
    paths = []
    server.replies = [lambda handler: paths.append(handler.path) or completion("a dog")]
    client = make(f"{server.url}/deployments/a?api-version=2024-10-21", tmp_path)
    client.check()
    client.ask(Question("s0", "What stands out?"))
    assert paths == ["/v1/deployments/a/chat/completions?api-version=2024-10-21"]
    assert server.looks == ["/v1/deployments/a/models?api-version=2024-10-21"]


def test_neither_password_nor_query_of_an_address_is_shown(tmp_path):
    assert shown("https://me:se@cret@host:1/v1?key=hidden") == "https://host:1/v1"
    with pytest.raises(ChatError, match=r"no server answers at http://127\.0\.0\.1:9/v1 ") as caught:
        make("http://me:secret@127.0.0.1:9/v1?key=hidden", tmp_path).check()
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("key", ['"sk-abc"', "'sk-abc'", "Bearer sk-abc"])
def test_what_belongs_around_a_key_is_no_part_of_it(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ChatError, match="copied with quotation marks, a line break or the word Bearer") as caught:
        read_key()
    assert "abc" not in str(caught.value)


def test_a_proxy_that_is_down_is_named_without_its_password(monkeypatch, tmp_path):
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    client = make("http://models.example.org/v1", tmp_path)
    words = r"http://models\.example\.org/v1 .through the proxy http://127\.0\.0\.1:9."
    with pytest.raises(ChatError, match=f"no server answers at {words}") as caught:
        client.check()
    assert "secret" not in str(caught.value)
    with pytest.raises(ChatError, match=f"{words} gave no answer"):
        client.ask(Question("s0", "What stands out?"))
    assert where("http://127.0.0.1:8000/v1") == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("url", "exempt", "through"),
    [
        ("http://0.0.0.0:8000/v1", "", False),  # as vLLM says where it listens
        ("http://10.1.2.3:8000/v1", "10.0.0.0/8", False),
        ("http://[fd00::5]:8000/v1", "example.org, [fd00::]/8", False),
        ("http://11.1.2.3:8000/v1", "10.0.0.0/8,what/ever", True),
        ("http://models:8000/v1", "models:8000", False),
        ("http://models:8001/v1", "models:8000", True),
        ("https://models/v1", "models:443", False),
    ],
)
def test_no_proxy_is_read_as_others_read_it(monkeypatch, url, exempt, through):
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert bool(proxy_for(httpx.URL(url))) == through


def test_certificates_come_from_the_file_that_the_environment_names(monkeypatch, tmp_path):
    first = httpx.create_ssl_context().get_ca_certs(binary_form=True)[0]
    own = tmp_path / "own.pem"
    own.write_text(ssl.DER_cert_to_PEM_cert(first), encoding="utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    believed = certificates()
    assert len(believed.get_ca_certs()) == 1


def test_a_certificate_that_is_not_believed_is_told_with_what_helps(monkeypatch, tmp_path):
    def refuse(request):
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")

    client = make("https://models.example.org/v1", tmp_path)
    own = httpx.Client(transport=httpx.MockTransport(refuse), base_url="https://models.example.org/v1")
    monkeypatch.setattr(client, "_client", own)
    with pytest.raises(ChatError, match=r"self-signed certificate\. SSL_CERT_FILE names certificates"):
        client.check()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_without_certificates_is_named_and_no_matter_to_http(monkeypatch, tmp_path, content):
    if content:
        (tmp_path / "own.pem").write_text(content, encoding="utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
    with pytest.raises(ChatError, match=r"SSL_CERT_FILE = .*own\.pem' holds no certificates"):
        connect("https://models.example.org/v1", 1.0, "annotate.endpoint")
    connect("http://127.0.0.1:9/v1", 1.0, "annotate.endpoint")
