"""A checkpoint's own chat template, rendered as transformers' ``apply_chat_template`` renders it.

>>> template = ChatTemplate.load(Path("include/tiny/checkpoints/step-001800"))
>>> template.render([{"role": "user", "content": "1 + 1 = ?"}])
'<|begin|><|user|>1 + 1 = ?<|end|><|assistant|>'

``load_tokenizer`` is the other half of how a conversation becomes token ids.

A template comes out of an artifact, so it runs in jinja2's sandbox: it cannot reach Python's objects.
The sandbox does not bound its time or memory; the job's limits do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from evalcore.errors import CheckpointError
from evalcore.model_folder import read_object

_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """A compiled template and the checkpoint's special tokens (``bos_token``, ``eos_token``, …)."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], *, where: str) -> None:
        """Raises CheckpointError, naming ``where`` the template came from, if it does not compile."""
        self.special_tokens = dict(special_tokens)
        self._where = where
        self.digest = hashlib.sha256(
            json.dumps([source, self.special_tokens], sort_keys=True).encode()
        ).hexdigest()
        try:
            self._template = _compile(source)
        except TemplateError as error:
            raise CheckpointError(f"{where}: the chat template does not compile: {error}") from error

    @classmethod
    def load(cls, checkpoint: Path) -> ChatTemplate:
        """The template of a Hugging Face folder.

        ``chat_template.jinja`` wins over ``tokenizer_config.json``; of several named templates the one
        called ``default`` is meant.

        Raises:
            CheckpointError: there is none, or it does not compile.
        """
        settings = _read_settings(checkpoint / "tokenizer_config.json")
        file = checkpoint / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
        if isinstance(source, list):
            source = {entry["name"]: entry["template"] for entry in source}.get("default")
        if not isinstance(source, str):
            raise CheckpointError(
                f"checkpoint {checkpoint}: no chat template in chat_template.jinja or tokenizer_config.json"
            )
        tokens = _special_tokens(_read_settings(checkpoint / "special_tokens_map.json") | settings)
        return cls(source, tokens, where=f"checkpoint {checkpoint}")

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """The conversation as the text that the model was trained on.

        Raises:
            CheckpointError: the template refuses the messages or fails on them.
        """
        # As transformers does: a key that is null is left out, or templates print "None".
        chat = [{k: v for k, v in message.items() if v is not None} for message in messages]
        try:
            return self._template.render(
                messages=[_with_reasoning(message) for message in chat],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
            )
        # A template is a program: besides its own refusal it may fail as any program does.
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{self._where}: the chat template rejects the messages: {error}"
            ) from error


def load_tokenizer(checkpoint: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder, which takes texts of any length as they are.

    Raises:
        CheckpointError: there is no ``tokenizer.json``, or it cannot be used.
    """
    file = checkpoint / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # what the Rust side raises has no type of its own
        raise CheckpointError(f"{file}: no usable tokenizer ({error})") from error
    # Settings of its training, which would cut long prompts short or pad short ones.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class _GenerationTag(Extension):
    """``{% generation %} … {% endgeneration %}`` marks what to train on; here it is just its body."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


def _compile(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own tojson writes < > & ' as escapes, for HTML; the model saw them as they are.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Give reasoning the names that templates read, whichever of its names the message uses."""
    found = next((message[name] for name in _REASONING_FIELDS if name in message), None)
    if found is None:
        return message
    return {"thinking": found, **message, "reasoning_content": found}


def _read_settings(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _special_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """``bos_token`` and its like, written as a string or as an object that holds it as ``content``."""
    tokens = {}
    for name, value in settings.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens
