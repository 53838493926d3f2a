"""Addresses, keys, proxies, and what a process needs for many connections."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from aiohttp import web

from evalcore import client as client_module
from evalcore.client import get_json
from evalcore.config import Client
from evalcore.errors import ServerError
from evalcore.serving.embedded import running
from scripted_server import CHECKPOINT, collect, completion, request, scripted


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_BACKOFF", 0.005)


def test_nobody_there() -> None:
    with pytest.raises(ServerError, match=r"http://127.0.0.1:9/v1: no answer in 3 attempts: Cannot connect"):
        collect("http://127.0.0.1:9/v1", *map(request, range(5)), client=Client(max_retries=2))


@pytest.mark.parametrize("address", ["localhost:8000/v1", "ftp://host/v1", "http://"])
def test_bad_address(address: str) -> None:
    with pytest.raises(ServerError, match="expected something like http://host:8000/v1"):
        collect(address, request())


async def test_works_where_a_loop_runs_already() -> None:
    # As in a notebook.
    with running(CHECKPOINT) as server:
        [reply] = collect(server, request())

        assert reply.choices
        assert get_json(f"{server}/models")["data"][0]["id"] == CHECKPOINT.name


@pytest.mark.parametrize(
    ("key", "sent"), [("sk-1", "Bearer sk-1"), ("", "Bearer EMPTY"), (None, "Bearer EMPTY")]
)
def test_the_key_of_the_environment_is_sent(
    key: str | None, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    seen: list[web.Request] = []
    with scripted(lambda body, i: completion("x"), seen) as address:
        collect(address, request())

    assert [(r.headers["Authorization"], r.headers["Content-Type"]) for r in seen] == [
        (sent, "application/json")
    ]


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without what it says of proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def test_a_server_elsewhere_is_asked_through_the_proxy(proxied: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[web.Request] = []
    # A password that ~/.netrc has for the host is not the key that its model server wants.
    (tmp_path / "netrc").write_text("default login me password secret\n")
    proxied.setenv("NETRC", str(tmp_path / "netrc"))
    proxied.setenv("OPENAI_API_KEY", "sk-1")
    with scripted(lambda body, i: completion("x"), seen) as address:
        proxied.setenv("http_proxy", address.removesuffix("/v1").replace("//", "//user:word@"))
        [reply] = collect("http://model.test:8000/v1", request())

    assert [c.text for c in reply.choices] == ["x"]
    [sent] = seen
    assert str(sent.url) == "http://model.test:8000/v1/chat/completions"
    assert sent.headers["Authorization"] == "Bearer sk-1"
    assert sent.headers["Proxy-Authorization"] == "Basic dXNlcjp3b3Jk"


def test_this_machine_is_asked_without_a_proxy(proxied: pytest.MonkeyPatch) -> None:
    proxied.setenv("http_proxy", "http://127.0.0.1:9")
    with scripted(lambda body, i: completion("x")) as address:
        for host in ("127.0.0.1", "localhost"):
            [reply] = collect(address.replace("127.0.0.1", host), request())
            assert [c.text for c in reply.choices] == ["x"]


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://10.0.0.7:8000/v1", "http://proxy:1"),
        ("https://api.openai.com/v1", "http://proxy:2"),
        ("http://node7.cluster:8000/v1", None),
        ("http://127.1.2.3:8000/v1", None),
        ("http://[::1]:8000/v1", None),
        ("http://LOCALHOST:8000/v1", None),
    ],
)
def test_which_proxy(url: str, proxy: str | None, proxied: pytest.MonkeyPatch) -> None:
    proxied.setenv("http_proxy", "http://proxy:1")
    proxied.setenv("HTTPS_PROXY", "http://proxy:2")
    proxied.setenv("NO_PROXY", ".cluster")
    assert client_module._proxy(url) == proxy


def test_files_enough_for_the_connections_may_be_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        collect("http://127.0.0.1:9/v1", client=Client(concurrency=10))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, before[1])
        collect("http://127.0.0.1:9/v1", client=Client(concurrency=200))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (456, before[1])
        collect("http://127.0.0.1:9/v1", client=Client(concurrency=before[1] + 1))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
