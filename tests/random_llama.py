"""Llama folders with random weights, written with numpy alone: every variant the embedded server reads.

The weights come from ``RandomState``, whose stream numpy promises never to change, so that logits
recorded from transformers stay comparable.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIAL = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 260,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 256,
    "eos_token_id": 257,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "tied fp32": {},
    "separate head, bf16, 3 shards": {"tie_word_embeddings": False, "dtype": "BF16", "shards": 3},
    "no grouped heads, fp16": {"num_key_value_heads": 4, "dtype": "F16"},
    "llama3 rope": {"rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0},
    "linear rope, head_dim left out": {"rope_scaling": {"type": "linear", "factor": 4.0}, "head_dim": None},
}


def write_llama(folder: Path, *, dtype: str = "F32", shards: int = 1, seed: int = 1, **changes: Any) -> Path:
    """Write config, weights, a byte-level tokenizer (one token a byte) and a chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = _weights(config, np.random.RandomState(seed))
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, dtype)
    else:
        files = {name: f"model-{i % shards + 1:05d}.safetensors" for i, name in enumerate(tensors)}
        for file in set(files.values()):
            write_safetensors(folder / file, {n: t for n, t in tensors.items() if files[n] == file}, dtype)
        index = {"metadata": {}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_safetensors(file: Path, tensors: dict[str, np.ndarray], dtype: str) -> None:
    """Write float32 tensors as F32, F16 or BF16, or raw bytes under any other name."""
    table, parts, end = {}, [], 0
    for name, tensor in tensors.items():
        data = _encoded(tensor, dtype)
        table[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [end, end + len(data)]}
        parts.append(data)
        end += len(data)
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"".join(parts))


def _encoded(tensor: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":  # cut off, not rounded: any 16 bits are as good here
        return (tensor.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    types = {"F32": np.float32, "F16": np.float16}
    return tensor.astype(types.get(dtype, np.int8)).tobytes()


def _weights(config: dict[str, Any], random: np.random.RandomState) -> dict[str, np.ndarray]:
    hidden, mlp, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    query, key = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        shapes[f"{at}input_layernorm.weight"] = (hidden,)
        shapes[f"{at}self_attn.q_proj.weight"] = (query, hidden)
        shapes[f"{at}self_attn.k_proj.weight"] = (key, hidden)
        shapes[f"{at}self_attn.v_proj.weight"] = (key, hidden)
        shapes[f"{at}self_attn.o_proj.weight"] = (hidden, query)
        shapes[f"{at}post_attention_layernorm.weight"] = (hidden,)
        shapes[f"{at}mlp.gate_proj.weight"] = (mlp, hidden)
        shapes[f"{at}mlp.up_proj.weight"] = (mlp, hidden)
        shapes[f"{at}mlp.down_proj.weight"] = (hidden, mlp)
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    # Norms around 1 and the rest large enough for attention to be far from even.
    return {
        name: (random.standard_normal(shape) * 0.3 + ("norm" in name)).astype(np.float32)
        for name, shape in shapes.items()
    }


def _tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer
