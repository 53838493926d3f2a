"""Answers that no patience changes: some concern one request, some everything."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from evalcore import client as client_module
from evalcore.client import UnansweredError, ask
from evalcore.config import Client
from evalcore.errors import ServerError
from evalcore.serving.embedded import running
from scripted_server import CHECKPOINT, GREEDY, collect, completion, refusal, request, scripted


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_BACKOFF", 0.005)


def test_context_overflow_is_this_requests_own() -> None:
    with running(CHECKPOINT) as server:
        replies = collect(server, request(0), request(1, "pens " * 3000), request(2))

    assert [bool(r.choices) for r in replies] == [True, False, True]
    assert "context" in str(replies[1].error)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens",
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        "The sum of prompt length (600.0) and max_tokens should not exceed max_num_tokens (512)",
        "the request exceeds the available context size, try increasing it",
    ],
)
def test_overflow_in_the_words_of_other_servers(message: str) -> None:
    seen: list[web.Request] = []
    with scripted(lambda body, i: refusal(400, message), seen) as address:
        [reply] = collect(address, request())

    assert reply == (reply.request, [], f"400 {message}")
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, r"401 no \*\*\* here; put the server's key in TEST_KEY"),
        (403, r"put the server's key in TEST_KEY"),
        (404, rf"404 no \*\*\* here; check the address and the model's name '{CHECKPOINT.name}'"),
        (302, r"302 no \*\*\* here; check the address"),
        (402, r"402 no \*\*\* here; the account of TEST_KEY is used up"),
    ],
)
def test_what_concerns_everything_ends_the_run_at_once(
    status: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    seen: list[web.Request] = []
    with (
        scripted(
            lambda body, i: refusal(status, "no sk-secret here", {"Location": "/v1/completions"}), seen
        ) as address,
        pytest.raises(UnansweredError, match=expected) as caught,
    ):
        ask(
            [request()],
            print,
            address=address,
            model=CHECKPOINT.name,
            client=Client(),
            api_key_env="TEST_KEY",
        )

    assert address in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "message", ["You exceeded your current quota (insufficient_quota)", "Insufficient account balance"]
)
def test_an_account_without_money_is_no_overload(message: str) -> None:
    seen: list[web.Request] = []
    with (
        scripted(lambda body, i: refusal(429, message), seen) as address,
        pytest.raises(UnansweredError, match="the account of OPENAI_API_KEY is used up"),
    ):
        collect(address, request())

    assert len(seen) == 1


def test_a_setting_that_nobody_was_answered_with_is_looked_at_three_times() -> None:
    seen: list[web.Request] = []
    with (
        scripted(lambda body, i: refusal(400, "top_p: no"), seen) as address,
        pytest.raises(UnansweredError, match=r"refuses the request: 400 top_p: no; change the setting"),
    ):
        collect(address, request())

    assert len(seen) == 3


def test_a_refusal_that_does_not_last_is_forgotten() -> None:
    with scripted(lambda body, i: completion("fine") if i == 2 else refusal(400, "hm")) as address:
        [reply] = collect(address, request())

    assert (reply.error, [c.text for c in reply.choices]) == (None, ["fine"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"message": "m"}', "m"),
        ('{"detail": "d\\n e"}', "d e"),
        ('{"error": "e"}', "e"),
        ('{"object": "error"}', '{"object": "error"}'),
        ("<html>\n<p>Bad</p>", "<html> <p>Bad</p>"),
        ('{"error": {"mess', '{"error": {"mess'),
        ("[1, 2]", "[1, 2]"),
        ("x" * 301, "x" * 299 + "…"),
    ],
)
def test_what_a_refusal_says_on_one_line(body: str, said: str) -> None:
    with (
        scripted(lambda _, i: web.Response(status=404, text=body)) as address,
        pytest.raises(UnansweredError) as caught,
    ):
        collect(address, request())

    assert str(caught.value).startswith(f"{address}: 404 {said}; check the address")


def test_refusal_after_the_same_settings_were_accepted_is_this_requests_own() -> None:
    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        bad = body["messages"][0]["content"] == "bad"
        return refusal(400, "flagged") if bad else completion("fine")

    with scripted(answer) as address:
        replies = collect(address, request(0, "bad", seed=0), *(request(i, seed=i) for i in range(1, 5)))

    assert [r.error for r in replies] == ["400 flagged", None, None, None, None]


def test_setting_that_only_samples_have_is_not_laid_at_their_prompts_door() -> None:
    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        return refusal(400, "seed is not supported") if "seed" in body else completion("fine")

    with scripted(answer) as address, pytest.raises(ServerError, match="seed is not supported"):
        collect(address, request(0, sampling=GREEDY), request(1, seed=1))


def test_newer_name_of_max_tokens() -> None:
    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        if "max_tokens" in body:
            return refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return completion(str(body["max_completion_tokens"]))

    with scripted(answer) as address:
        replies = collect(address, *map(request, range(3)))

    assert [r.choices[0].text for r in replies] == ["24"] * 3
