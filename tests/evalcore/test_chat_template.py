from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, processors

from evalcore.chat_template import ChatTemplate, load_tokenizer
from evalcore.config import load_config
from evalcore.errors import CheckpointError
from evalcore.generate import generate
from random_llama import SPECIAL, write_llama
from recording_server import recording

USER = {"role": "user", "content": "1 < 2 & 'a'"}
ASSISTANT = {"role": "assistant", "content": "yes", "name": None}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


# Each of these was rendered by transformers 5.23 to the same text.
CASES: list[tuple[str, list[dict[str, Any]], bool, str]] = [
    ("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}", [USER], True, "<s>1 < 2 & 'a'</s>"),
    ("{{ pad_token }}|{{ unknown }}|", [USER], True, "||"),
    ("{% if add_generation_prompt %}go{% else %}stop{% endif %}", [USER], False, "stop"),
    # trim_blocks and lstrip_blocks: lines of tags leave nothing behind.
    (
        "a\n  {% for m in messages %}\n{{ m.role }}\n  {% endfor %}\nb",
        [USER, ASSISTANT],
        True,
        "a\nuser\nassistant\nb",
    ),
    ("{{ messages | tojson }}", [USER], True, '[{"role": "user", "content": "1 < 2 & \'a\'"}]'),
    (
        "{{ {'b': 'é', 'a': 1} | tojson(indent=1, sort_keys=true) }}",
        [USER],
        True,
        '{\n "a": 1,\n "b": "é"\n}',
    ),
    # A field that is null is not there at all.
    ("{{ 'name' in messages[1] }}", [USER, ASSISTANT], True, "False"),
    (
        "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
        [USER, ASSISTANT],
        True,
        "user",
    ),
    (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        [USER, ASSISTANT],
        True,
        "2",
    ),
    (
        "{% for m in messages %}{% generation %}{{ m.content }}"
        "{% set x = 1 %}{% endgeneration %}{% endfor %}!",
        [ASSISTANT],
        True,
        "yes!",
    ),
    ("{{ tools is none }}{{ documents is none }}", [USER], True, "TrueTrue"),
    (
        "{{ messages[0].reasoning_content }}{{ messages[0].thinking }}",
        [ASSISTANT | {"reasoning": "hm"}],
        True,
        "hmhm",
    ),
    ("{{ '{{' }} {{ 'a' ~ 1 }} {{ messages[0].content.split(' ')[0] }}", [USER], True, "{{ a1 1"),
]


@pytest.mark.parametrize(("source", "messages", "generation", "expected"), CASES)
def test_renders_as_transformers_does(
    source: str, messages: list[dict[str, Any]], generation: bool, expected: str
) -> None:
    template = ChatTemplate(source, TOKENS, where="here")
    assert template.render(messages, add_generation_prompt=generation) == expected


def test_strftime_now() -> None:
    assert ChatTemplate("{{ strftime_now('%Y') }}", {}, where="here").render([USER]) == str(
        datetime.now().year
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.nothing.at_all }}", "has no attribute 'nothing'"),
        ("{{ messages[0] + 1 }}", "unsupported operand"),
        ("{{ 1 // 0 }}", "by zero"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        # Hostile ones: Python's objects are out of reach, and the messages cannot be changed.
        ("{{ ''.__class__.__mro__ }}", "__class__"),
        ("{{ messages.__init__.__globals__ }}", "__init__"),
        ("{{ cycler.__init__.__globals__.os.system('id') }}", "__init__"),
        ("{{ messages.append(1) }}", "not safely callable|unsafe"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
    ],
)
def test_templates_that_fail(source: str, message: str) -> None:
    template = ChatTemplate(source, {}, where="checkpoint X")
    with pytest.raises(CheckpointError, match=message) as caught:
        template.render([USER])
    assert str(caught.value).startswith("checkpoint X: the chat template rejects the messages: ")


@pytest.mark.parametrize(
    "source", ["{{ raise_exception.__globals__ }}", "{{ '{0.__class__}'.format(1) }}", "{{ 1 .__class__ }}"]
)
def test_what_the_sandbox_hides_renders_as_nothing(source: str) -> None:
    assert ChatTemplate(source, {}, where="here").render([USER]) == ""


def test_syntax_error() -> None:
    with pytest.raises(CheckpointError, match="checkpoint X: the chat template does not compile"):
        ChatTemplate("{% for %}", {}, where="checkpoint X")


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def test_where_templates_are_found(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(f"checkpoint {tmp_path}: no chat template")):
        ChatTemplate.load(tmp_path)
    bos = {"content": "<b>", "lstrip": False}
    write(tmp_path, "tokenizer_config.json", {"bos_token": bos, "chat_template": "config {{ bos_token }}"})
    assert ChatTemplate.load(tmp_path).render([USER]) == "config <b>"
    named = [{"name": "rag", "template": "rag"}, {"name": "default", "template": "named {{ eos_token }}"}]
    write(tmp_path, "tokenizer_config.json", {"chat_template": named})
    write(tmp_path, "special_tokens_map.json", {"eos_token": "<e>"})
    assert ChatTemplate.load(tmp_path).render([USER]) == "named <e>"
    write(tmp_path, "chat_template.jinja", "file")
    assert ChatTemplate.load(tmp_path).render([USER]) == "file"
    write(tmp_path, "tokenizer_config.json", "{")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: not JSON"):
        ChatTemplate.load(tmp_path)


def test_the_digest_tells_templates_and_tokens_apart() -> None:
    digests = [
        ChatTemplate(source, tokens, where=where).digest
        for source, tokens, where in (
            ("a", {"bos_token": "x"}, "here"),
            ("a", {"bos_token": "x"}, "there"),
            ("b", {"bos_token": "x"}, "here"),
            ("a", {"bos_token": "y"}, "here"),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert len(digests[0]) == 64


def with_trained_settings(folder: Path) -> Path:
    """A checkpoint whose tokenizer.json adds a BOS, cuts texts and pads them, as its training wanted."""
    write_llama(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin = SPECIAL[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_chat_as_token_ids_has_the_templates_bos_alone_and_is_whole(tmp_path: Path) -> None:
    checkpoint = with_trained_settings(tmp_path / "run" / "step-1")
    with recording() as server:
        generate(
            load_config(
                checkpoint=str(checkpoint),
                benchmarks="tiny-arithmetic:0",
                max_problems=1,
                results=str(tmp_path / "results"),
                inference={"endpoint": "completions"},
                server=server.settings,
            )
        )
    sent = server.requests[-1]["prompt"]
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    text = tokenizer.decode(sent, skip_special_tokens=False)
    assert sent.count(tokenizer.token_to_id(SPECIAL[0])) == 1
    assert text.startswith("<|begin|><|user|>")
    assert text.endswith("<|end|><|assistant|>")


def test_a_tokenizer_neither_cuts_nor_pads(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(with_trained_settings(tmp_path))
    lengths = [len(tokenizer.encode("a" * n, add_special_tokens=False)) for n in (3, 30)]
    assert lengths == [3, 30]


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_tokenizer_that_cannot_be_used(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        write(tmp_path, "tokenizer.json", content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: no usable tokenizer"):
        load_tokenizer(tmp_path)
