"""Read a Llama checkpoint from a Hugging Face folder: config.json and safetensors, as float32 numpy.

>>> config = load_config(Path("include/tiny/checkpoints/step-001800"))
>>> config.layers, config.heads, config.kv_heads, config.head_dim
(3, 4, 2, 32)

A setting that would change the numbers and is not implemented is refused, never ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from evalcore.errors import CheckpointError
from evalcore.model_folder import check_complete, weight_files

Array = NDArray[np.float32]

ARCHITECTURE = "LlamaForCausalLM"
ROPE_TYPES = ("default", "linear", "llama3")
_DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64}


@dataclass(frozen=True)
class LlamaConfig:
    """What the forward pass needs of config.json; ``frequencies`` are RoPE's, (head_dim / 2,)."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    tied: bool
    max_positions: int
    frequencies: Array
    eos_ids: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One block's weights, stored (in, out) so that ``x @ w`` needs no transpose."""

    norm_attention: Array
    qkv: Array  # query, key and value heads beside one another
    out: Array
    norm_mlp: Array
    gate_up: Array
    down: Array


@dataclass(frozen=True)
class Weights:
    embedding: Array  # (vocabulary, hidden)
    layers: tuple[Layer, ...]
    norm: Array
    head: Array  # (hidden, vocabulary)


def load_config(folder: Path) -> LlamaConfig:
    """Read and check config.json.

    Raises:
        CheckpointError: the folder is incomplete, or not a Llama that this server can run.
    """
    check_complete(folder)
    raw = read_json(folder / "config.json")
    named = raw.get("architectures") or [raw.get("model_type", "none")]
    if named != [ARCHITECTURE]:
        raise CheckpointError(
            f"checkpoint {folder}: architecture {', '.join(map(str, named))}; the embedded server runs "
            f"{ARCHITECTURE} only, use another server type"
        )
    only = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "quantization_config": None}
    for key, supported in only.items():
        if raw.get(key, supported) != supported:
            raise CheckpointError(
                f"checkpoint {folder}: {key} = {json.dumps(raw[key])[:80]} in config.json; the embedded "
                f"server supports {json.dumps(supported)} only, use another server type"
            )
    try:
        heads = int(raw["num_attention_heads"])
        head_dim = int(raw.get("head_dim") or raw["hidden_size"] // heads)
        return LlamaConfig(
            vocab_size=int(raw["vocab_size"]),
            hidden_size=int(raw["hidden_size"]),
            layers=int(raw["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(raw.get("num_key_value_heads") or heads),
            head_dim=head_dim,
            norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            tied=bool(raw.get("tie_word_embeddings", False)),
            max_positions=int(raw.get("max_position_embeddings", 2048)),
            frequencies=_rope_frequencies(raw, head_dim, folder),
            eos_ids=_eos_ids(folder, raw),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"checkpoint {folder}: config.json cannot be used ({error!r})") from error


def load_weights(folder: Path, config: LlamaConfig) -> Weights:
    """Read every tensor of the model as float32; fp16, bf16, fp32 and fp64 shards are accepted.

    Raises:
        CheckpointError: a tensor is missing, of another shape than config.json says, or quantised.
    """
    tensors: dict[str, Array] = {}
    for file in weight_files(folder):
        try:
            stored = deserialize(file.read_bytes())  # type: ignore[no-untyped-call]
        except SafetensorError as error:
            raise CheckpointError(f"{file}: {error}") from error
        for name, tensor in stored:
            tensors[name] = _as_float32(tensor, f"{file}: tensor {name}")

    def take(name: str, *shape: int) -> Array:
        if name not in tensors:
            raise CheckpointError(f"checkpoint {folder}: tensor {name} is missing")
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"checkpoint {folder}: tensor {name} has shape {tensors[name].shape}, config.json says {shape}"
            )
        return tensors.pop(name)

    hidden, vocabulary = config.hidden_size, config.vocab_size
    q_size, kv_size = config.heads * config.head_dim, config.kv_heads * config.head_dim
    mlp = len(tensors.get("model.layers.0.mlp.gate_proj.weight", ()))

    def layer(index: int) -> Layer:
        at = f"model.layers.{index}."
        query = take(f"{at}self_attn.q_proj.weight", q_size, hidden)
        key = take(f"{at}self_attn.k_proj.weight", kv_size, hidden)
        value = take(f"{at}self_attn.v_proj.weight", kv_size, hidden)
        gate = take(f"{at}mlp.gate_proj.weight", mlp, hidden)
        up = take(f"{at}mlp.up_proj.weight", mlp, hidden)
        return Layer(
            norm_attention=take(f"{at}input_layernorm.weight", hidden),
            qkv=_columns(query, key, value),
            out=_columns(take(f"{at}self_attn.o_proj.weight", hidden, q_size)),
            norm_mlp=take(f"{at}post_attention_layernorm.weight", hidden),
            gate_up=_columns(gate, up),
            down=_columns(take(f"{at}mlp.down_proj.weight", hidden, mlp)),
        )

    embedding = take("model.embed_tokens.weight", vocabulary, hidden)
    head = embedding if config.tied else take("lm_head.weight", vocabulary, hidden)
    return Weights(
        embedding=embedding,
        layers=tuple(layer(i) for i in range(config.layers)),
        norm=take("model.norm.weight", hidden),
        head=_columns(head),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the checkpoint; CheckpointError if it is not one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value


def _columns(*weights: Array) -> Array:
    return np.ascontiguousarray(np.concatenate(weights).T)


def _as_float32(tensor: dict[str, Any], where: str) -> Array:
    dtype, shape, data = tensor["dtype"], tensor["shape"], tensor["data"]
    if dtype == "BF16":  # the upper half of a float32, which numpy does not know by itself
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if dtype not in _DTYPES:
        raise CheckpointError(f"{where} is {dtype}; supported: BF16, {', '.join(_DTYPES)}")
    return np.frombuffer(data, _DTYPES[dtype]).astype(np.float32).reshape(shape)


def _eos_ids(folder: Path, raw: dict[str, Any]) -> tuple[int, ...]:
    """The tokens that end an answer; generation_config.json decides, as in transformers' generate."""
    eos = raw.get("eos_token_id")
    generation = folder / "generation_config.json"
    if generation.is_file():
        eos = read_json(generation).get("eos_token_id", eos)
    ids = () if eos is None else tuple(map(int, eos if isinstance(eos, list) else [eos]))
    if any(not 0 <= token < int(raw["vocab_size"]) for token in ids):
        raise ValueError(f"eos_token_id {eos} is not below vocab_size {raw['vocab_size']}")
    return ids


def _rope_frequencies(raw: dict[str, Any], head_dim: int, folder: Path) -> Array:
    """RoPE's angle per position for each pair of dimensions, with the scaling config.json asks for.

    transformers 5 writes ``rope_parameters``; before it were ``rope_theta`` and ``rope_scaling``.
    """
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ROPE_TYPES:
        raise CheckpointError(
            f"checkpoint {folder}: rope_type {kind!r} in config.json; the embedded server supports "
            f"{', '.join(ROPE_TYPES)}"
        )
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError(f"checkpoint {folder}: partial_rotary_factor is not supported, only 1.0")
    theta = float(rope.get("rope_theta", raw.get("rope_theta", 10000.0)))
    steps = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies: Array = (1.0 / np.float32(theta) ** steps).astype(np.float32)
    if kind == "linear":
        return frequencies / np.float32(rope["factor"])
    if kind == "llama3":
        return _llama3_frequencies(frequencies, rope)
    return frequencies


def _llama3_frequencies(frequencies: Array, rope: dict[str, Any]) -> Array:
    """Llama 3.1's scaling: long wavelengths are stretched, short ones kept, those between blended.

    Source: ``apply_scaling`` in meta-llama/llama-models, models/llama3/model.py.
    """
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = float(rope["original_max_position_embeddings"]) * frequencies / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)  # share of the unscaled frequency
    scaled = (1 - kept) * frequencies / float(rope["factor"]) + kept * frequencies
    rounded: Array = scaled.astype(np.float32)
    return rounded
