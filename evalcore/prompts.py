r"""Prompts: YAML with a system text, a user text and few-shot examples, rendered to chat messages or text.

>>> load_prompt("tiny/arithmetic").messages({"problem": "Mia has {2} pens."})
[{'role': 'user', 'content': 'Mia has {2} pens.'}]

The format is NeMo-Skills', so that its files load as they are::

    system: You are a careful mathematician.
    user: |-
      Put the answer inside \boxed{{}}.

      {examples}{problem}
    few_shot_examples:
      template: "Problem: {problem}\nSolution: {solution}\n\n"
      examples_type: school-math

``{name}`` is a field of the problem and ``{{`` a literal brace, in ``user`` and in the template;
``system`` is sent as it stands. A value is put in once and never read as a template itself.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import orjson
from pydantic import Field, model_validator

from evalcore import include
from evalcore.chat_template import ChatTemplate
from evalcore.errors import ConfigError
from evalcore.settings import Settings, validated

Message = dict[str, str]

_EXAMPLES_FOLDER = "examples"


class FewShot(Settings):
    """How solved examples are shown.

    template: one example. prefix and suffix: around all of them, and left out where there are none.
    examples_type: a file ``prompts/examples/<name>.jsonl``; examples: the same, written here.
    layout: ``inline`` puts them at ``{examples}`` of the user text; ``turns`` gives each as a user turn
    (the user text with the example's fields) and an assistant turn (the template).
    """

    prefix: str = ""
    template: str = ""
    suffix: str = ""
    examples_type: str | None = None
    examples: tuple[dict[str, str], ...] = ()
    layout: Literal["inline", "turns"] = "inline"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.examples_type and self.examples:
            raise ValueError("give examples_type or examples, not both")
        if self.layout == "turns" and (self.prefix or self.suffix):
            raise ValueError("layout=turns has no place for a prefix or suffix")
        return self


class PromptSettings(Settings):
    """The keys of a prompt file. code_tags: values for ``{code_begin}``, ``{code_end}`` and the like."""

    user: str = Field(min_length=1)
    system: str | None = None
    few_shot_examples: FewShot = FewShot()
    code_tags: dict[str, str] = {}


class _Piece(NamedTuple):
    """Literal text, then a field's value unless field is None."""

    literal: str
    field: str | None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that is ready to be filled. digest: SHA-256 of all that shapes its messages, not of its name."""

    name: str
    settings: PromptSettings
    examples: tuple[dict[str, str], ...]
    digest: str
    _user: tuple[_Piece, ...]
    _example: tuple[_Piece, ...]

    def messages(self, fields: Mapping[str, Any]) -> list[Message]:
        """The chat messages for one problem; ConfigError if the prompt wants a field it does not have."""
        messages: list[Message] = []
        if self.settings.system:
            messages.append({"role": "system", "content": self.settings.system})
        shown = ""
        few_shot = self.settings.few_shot_examples
        for example in self.examples:
            solved = self._fill(self._example, example)
            if few_shot.layout == "turns":
                messages.append({"role": "user", "content": self._fill(self._user, example, examples="")})
                messages.append({"role": "assistant", "content": solved})
            else:
                shown += solved
        if shown:
            shown = few_shot.prefix + shown + few_shot.suffix
        return [*messages, {"role": "user", "content": self._fill(self._user, fields, examples=shown)}]

    def text(self, fields: Mapping[str, Any], template: ChatTemplate | None) -> str:
        """The same as text, up to where the answer begins, for the completions endpoint.

        template None is a base model's: its text is the messages' contents with a blank line between
        them. No beginning-of-sequence token is added to it; servers do that themselves.
        """
        messages = self.messages(fields)
        if template is not None:
            return template.render(messages)
        return "\n\n".join(message["content"] for message in messages)

    def _fill(self, pieces: tuple[_Piece, ...], fields: Mapping[str, Any], **extra: str) -> str:
        parts = []
        for literal, field in pieces:
            parts.append(literal)
            if field is None:
                continue
            for values in (extra, fields, self.settings.code_tags):
                if field in values:
                    parts.append(str(values[field]))
                    break
            else:
                there = sorted({*extra, *fields, *self.settings.code_tags})
                raise ConfigError(
                    f"prompt {self.name}: no value for {{{field}}}; there are: {', '.join(there)}"
                )
        return "".join(parts)


def load_prompt(name: str) -> Prompt:
    """Load a prompt by name (``generic/math``) or by a path that ends in ``.yaml``.

    Raises:
        ConfigError: unknown name or key (the valid ones are listed), or a text that cannot be parsed.
    """
    _, content = include.load("prompts", name)
    where = f"prompt {name}"
    # An empty `few_shot_examples:` or `code_tags:` is how a YAML writer leaves a section out.
    settings = validated(PromptSettings, {k: v for k, v in content.items() if v is not None}, where)
    few_shot = settings.few_shot_examples
    examples = few_shot.examples
    if few_shot.examples_type:
        examples = _read_examples(few_shot.examples_type, where)
    user = _parse(settings.user, f"{where}, user")
    if few_shot.layout == "inline" and examples and not any(piece.field == "examples" for piece in user):
        raise ConfigError(f"{where}: there are examples but no {{examples}} in the user text")
    # What shapes the messages: the examples themselves, not the name of their file.
    shaping = {
        **settings.model_dump(exclude={"few_shot_examples": {"examples_type", "examples"}}),
        "examples": examples,
    }
    return Prompt(
        name=name,
        settings=settings,
        examples=examples,
        digest=hashlib.sha256(orjson.dumps(shaping, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        _user=user,
        _example=_parse(few_shot.template, f"{where}, few_shot_examples.template"),
    )


def _parse(text: str, where: str) -> tuple[_Piece, ...]:
    pieces = []
    try:
        for literal, field, spec, conversion in string.Formatter().parse(text):
            # `{x.y}` or `{x[0]}` would reach into the objects behind a value.
            if field is not None and (spec or conversion or not field.isidentifier()):
                raise ValueError(f"{{{field}}} is not the name of a field")
            pieces.append(_Piece(literal, field))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}; write a literal brace as {{{{ or }}}}") from error
    return tuple(pieces)


def _read_examples(name: str, where: str) -> tuple[dict[str, str], ...]:
    files = [
        file
        for folder in include.folders("prompts")
        for file in sorted((folder / _EXAMPLES_FOLDER).glob("*.jsonl"))
    ]
    for file in files:
        if file.stem == name:
            return _parse_examples(file, where)
    valid = ", ".join(sorted({file.stem for file in files}))
    raise ConfigError(f"{where}: unknown examples_type {name!r}; valid: {valid}")


def _parse_examples(file: Path, where: str) -> tuple[dict[str, str], ...]:
    examples = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            example = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"{where}: {file}:{number}: {error}") from error
        if not isinstance(example, dict):
            raise ConfigError(f"{where}: {file}:{number}: not an object")
        examples.append({str(key): str(value) for key, value in example.items()})
    return tuple(examples)
