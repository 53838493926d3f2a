from __future__ import annotations

import json
from typing import Any

import pytest

from evalcore.serving.embedded.protocol import ChatBody, CompletionBody, RequestError, parse

COMPLETION = {"model": "m", "prompt": "1 + 1 ="}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "1 + 1 = ?"}]}


def parse_completion(**fields: Any) -> CompletionBody:
    return parse(CompletionBody, json.dumps(COMPLETION | fields).encode())


def parse_chat(**fields: Any) -> ChatBody:
    return parse(ChatBody, json.dumps(CHAT | fields).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": False, "n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": None},
        {"logit_bias": {}, "user": "somebody", "metadata": {"a": "b"}, "best_of": 1, "suffix": None},
        {"repetition_penalty": 1.0, "min_p": 0, "ignore_eos": False, "seed": None, "stop": None},
        {"temperature": 0, "top_k": -1, "top_p": 1, "logprobs": 20, "stop": ["a", "b"]},
        {"prompt": [1, 2]},
        {"prompt": ["a", "b"]},
        {"prompt": [[1, 2], [3]]},
    ],
)
def test_accepted(fields: dict[str, Any]) -> None:
    known = {k: v for k, v in fields.items() if v is not None and k in CompletionBody.model_fields}
    # What is not known here stands at its neutral value, and changes nothing.
    assert parse_completion(**fields) == CompletionBody.model_validate(COMPLETION | known)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream": True}, "stream"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -0.5}, "presence_penalty"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "!"}, "suffix"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"guided_json": {}}, "guided_json"),
        ({"temprature": 1.0}, "temprature"),
        ({"n": 0}, "n"),
        ({"n": -1}, "n"),
        ({"n": 1025}, "n"),
        ({"n": "3"}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", 3]}, "stop"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"messages": []}, "messages"),
    ],
)
def test_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError, match=param) as caught:
        parse_completion(**fields)
    assert caught.value.param == param
    assert caught.value.status == 400
    error = json.loads(caught.value.body())["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"] == str(caught.value)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": []}]}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"echo": True}, "echo"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
    ],
)
def test_chat_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError, match=param) as caught:
        parse_chat(**fields)
    assert caught.value.param == param


def test_text_parts_become_one_string() -> None:
    parts = [{"type": "text", "text": "1 + 1"}, {"type": "text", "text": "= ?"}]
    body = parse_chat(messages=[{"role": "user", "content": parts, "name": None}])
    assert [message.plain() for message in body.messages] == [{"role": "user", "content": "1 + 1\n= ?"}]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": NaN}'])
def test_bodies_that_are_no_json_object(raw: bytes) -> None:
    with pytest.raises(RequestError, match="JSON"):
        parse(ChatBody, raw)
