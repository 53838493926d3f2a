"""What a request body may hold: OpenAI's fields that this server honours, within their ranges.

Anything else is a 400 that names the field. A field that is known but not supported passes only with the
value that leaves the answer as it is (``frequency_penalty: 0``, ``stream: false``, ``logit_bias: null``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_N = 1024
MAX_LOGPROBS = 20
_INT64 = 2**63

# Fields whose listed values change nothing; null is one for each.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "stream_options": (),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "logit_bias": ({},),
    "best_of": (1,),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "chat_template_kwargs": ({},),
    "reasoning_effort": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
}
# Labels for the provider's books, whatever their value.
_LABELS = {"user", "metadata", "safety_identifier", "prompt_cache_key"}
# pydantic reports one error for each type that a field may have; these say it in one.
_SHAPES = {
    "prompt": "expected a string, a list of token ids, or a list of these, none of them empty",
    "stop": "expected a string or a list of strings, none of them empty",
}

Stop = Annotated[str, Field(min_length=1)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class RequestError(Exception):
    """A request that is answered with an error in OpenAI's shape."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status

    def body(self) -> bytes:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: str
    n: int = Field(1, ge=1, le=MAX_N)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)  # as in vLLM, -1 and 0 are off
    seed: int | None = Field(None, ge=-_INT64, lt=_INT64)
    stop: Stop | list[Stop] = []
    return_token_ids: bool = False  # as in vLLM

    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class CompletionBody(_Body):
    """The body of a POST to /v1/completions."""

    prompt: str | TokenIds | Annotated[list[str | TokenIds], Field(min_length=1)]
    max_tokens: int = Field(16, ge=0)
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    echo: bool = False
    add_special_tokens: bool = True


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: str
    content: str | list[TextPart]
    name: str | None = None
    reasoning_content: str | None = None

    def plain(self) -> dict[str, str]:
        """The message as a chat template expects it, its content one string."""
        fields = self.model_dump(exclude_none=True)
        if not isinstance(self.content, str):
            fields["content"] = "\n".join(part.text for part in self.content)
        return fields


class ChatBody(_Body):
    """The body of a POST to /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MAX_LOGPROBS)
    add_generation_prompt: bool = True
    add_special_tokens: bool = False


_B = TypeVar("_B", bound=_Body)


def parse(kind: type[_B], raw: bytes) -> _B:
    """Check a request body; RequestError names the first field that cannot be honoured."""
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RequestError("the body must be a JSON object")
    asked = {}
    for name, value in fields.items():
        if value is None or name in _LABELS:
            continue
        if name not in _NEUTRAL or name in kind.model_fields:
            asked[name] = value
        elif value not in _NEUTRAL[name]:
            valid = " or ".join(orjson.dumps(v).decode() for v in (*_NEUTRAL[name], None))
            raise RequestError(
                f"{name} is not supported by this server; leave it out or send {valid}",
                param=name,
                code="unsupported_parameter",
            )
    try:
        return kind.model_validate(asked)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0])
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            message = f"{where} is not a field that this server knows"
        elif name in _SHAPES and first["type"] != "missing":
            message = f"{name}: {_SHAPES[name]}"
        else:
            message = f"{where}: {first['msg']}"
        raise RequestError(message, param=name) from error
