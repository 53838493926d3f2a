from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalcore.errors import CheckpointError
from evalcore.serving.embedded.model import KVCache, Llama, Span
from evalcore.serving.embedded.weights import load_config, load_weights
from random_llama import LLAMA3_ROPE, VARIANTS, write_llama, write_safetensors

RECORDED = json.loads((Path(__file__).parent / "logits.json").read_text())
NONE = np.array([], np.int64)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_those_of_transformers(variant: str, tmp_path: Path) -> None:
    folder = write_llama(tmp_path, **VARIANTS[variant])
    config = load_config(folder)
    model = Llama(config, load_weights(folder, config))
    span = Span(0, 0, np.array(RECORDED["prompt"]))
    logits = model.forward(KVCache(config, 1, 128), NONE, NONE, [span], all_logits=True)
    expected = np.array(RECORDED["logits"][variant])
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits[:, : expected.shape[1]], expected, atol=3e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM.*LlamaForCausalLM only"),
        ({"architectures": None, "model_type": "gpt2"}, "architecture gpt2"),
        ({"attention_bias": True}, "attention_bias = true"),
        ({"mlp_bias": True}, "mlp_bias = true"),
        ({"hidden_act": "gelu"}, 'hidden_act = "gelu"'),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "'yarn'.*default, linear, llama3"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2}}, "low_freq_factor"),
        ({"rope_parameters": LLAMA3_ROPE | {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"eos_token_id": [257, 260]}, "eos_token_id"),
        ({"vocab_size": 259}, "model.embed_tokens.weight has shape"),
        ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
        ({"num_hidden_layers": 3}, re.escape("model.layers.2.self_attn.q_proj.weight is missing")),
    ],
)
def test_what_it_cannot_run_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_llama(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(tmp_path, load_config(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder() -> None:
    with pytest.raises(CheckpointError, match="/no/such"):
        load_config(Path("/no/such"))


def test_truncated_shard(tmp_path: Path) -> None:
    file = write_llama(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated"):
        load_config(tmp_path)


def test_missing_shard(tmp_path: Path) -> None:
    write_llama(tmp_path, shards=3)
    (tmp_path / "model-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="1 of 3 shards missing, first model-00002"):
        load_config(tmp_path)


def test_quantised_tensor(tmp_path: Path) -> None:
    config = load_config(write_llama(tmp_path))
    write_safetensors(tmp_path / "model.safetensors", {"model.norm.weight": np.ones(4)}, "I8")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is I8; supported: BF16, F32"):
        load_weights(tmp_path, config)


def test_generation_config_decides_what_ends_an_answer(tmp_path: Path) -> None:
    assert load_config(write_llama(tmp_path)).eos_ids == (257,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [256, 257]}')
    assert load_config(tmp_path).eos_ids == (256, 257)
