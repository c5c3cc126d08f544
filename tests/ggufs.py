"""Tiny GGUF files of architectures that `tiny.gguf` does not write, as llama.cpp's converter makes them of a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from tests import families, tiny

ROPE = {"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.5}
_DELTA = {"rope_parameters": {**ROPE, "mrope_section": [2, 1, 1], "mrope_interleaved": True}}  # values' heads are tiled
# family -> what a file calls it, and what sets its model apart from `families`
CALLED: dict[str, tuple[str, dict[str, Any]]] = {
    "starcoder2": (
        "starcoder2",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}, "sliding_window": None},
    ),
    "stablelm": ("stablelm", {"rope_parameters": ROPE}),
    "nemotron": ("nemotron", {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.75}, "norm_eps": 2**-10}),
    "lfm2": ("lfm2", {}),
    "qwen3_5_text": ("qwen35", _DELTA),
    "qwen3_5_moe_text": ("qwen35moe", {**_DELTA, "moe_intermediate_size": 48}),
}
_SHORT = [
    (r"^model\.embed_tokens\.", "token_embd."), (r"^model\.embedding_norm\.", "token_embd_norm."),
    (r"^model\.norm\.", "output_norm."), (r"^lm_head\.", "output."), (r"^model\.layers\.", "blk."),
    (r"self_attn\.(q|k)_(layer)?norm", r"attn_\1_norm"), (r"self_attn\.(q|k|v)_proj", r"attn_\1"),
    (r"self_attn\.o(ut)?_proj", "attn_output"), ("operator_norm|input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "post_attention_norm"), (r"feed_forward\.w1", "ffn_gate"),
    (r"feed_forward\.w3", "ffn_up"), (r"feed_forward\.w2", "ffn_down"), (r"\.conv\.(in_proj|out_proj|conv)", r".shortconv.\1"),
    (r"mlp\.shared_expert_gate", "ffn_gate_inp_shexp"), (r"mlp\.shared_expert\.(gate|up|down)_proj", r"ffn_\1_shexp"),
    (r"mlp\.gate\.", "ffn_gate_inp."), (r"mlp\.experts\.down_proj", "ffn_down_exps.weight"),
    (r"mlp\.(gate|up|down)_proj", r"ffn_\1"), (r"linear_attn\.in_proj_qkv", "attn_qkv"),
    (r"linear_attn\.in_proj_z", "attn_gate"), (r"linear_attn\.in_proj_a", "ssm_alpha"),
    (r"linear_attn\.in_proj_b", "ssm_beta"), (r"linear_attn\.conv1d", "ssm_conv1d"), (r"linear_attn\.norm", "ssm_norm"),
    (r"linear_attn\.out_proj", "ssm_out"), (r"linear_attn\.A_log", "ssm_a"), (r"linear_attn\.dt_bias", "ssm_dt.bias"),
]  # fmt: skip


def model(family: str) -> Any:
    """The model that `write` makes a file of."""
    import torch

    return families.language_model(family, **CALLED[family][1]).to(torch.bfloat16)


def write(path: Path, family: str, made: Any) -> Path:
    """The file, in float32."""
    import gguf as format

    called, config = CALLED[family][0], made.config
    out = format.GGUFWriter(str(path), called)
    tiny.add_words(out, config.vocab_size)
    _add_values(out, called, config)
    arch = {value: key for key, value in format.MODEL_ARCH_NAMES.items()}[called]
    table = format.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in made.state_dict().items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        numbers = _changed(family, config, name, tensor.float().numpy())
        short = name
        for pattern, word in _SHORT:
            short = re.sub(pattern, word, short)
        if family in ("starcoder2", "stablelm", "nemotron"):
            short = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if "gate_up_proj" in name:
            for word, part in zip(("gate", "up"), np.split(numbers, 2, axis=1), strict=True):
                out.add_tensor(f"{short.split('.mlp')[0]}.ffn_{word}_exps.weight", np.ascontiguousarray(part))
        else:
            out.add_tensor(short, np.ascontiguousarray(numbers))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def _add_values(out: Any, called: str, config: Any) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_head_count(config.num_attention_heads)
    out.add_rope_freq_base(rope["rope_theta"])
    if called == "qwen35moe":
        out.add_expert_count(config.num_experts)
        out.add_expert_used_count(config.num_experts_per_tok)
        out.add_expert_feed_forward_length(config.moe_intermediate_size)
        out.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    else:
        out.add_feed_forward_length(config.intermediate_size)
    if called == "lfm2":
        full = [kind == "full_attention" for kind in config.layer_types]
        out.add_head_count_kv([config.num_key_value_heads if one else 0 for one in full])
        out.add_shortconv_l_cache(config.conv_L_cache)
        out.add_layer_norm_rms_eps(config.norm_eps)
        return
    out.add_head_count_kv(config.num_key_value_heads)
    if called.startswith("qwen35"):
        out.add_key_length(head)
        out.add_value_length(head)
        out.add_layer_norm_rms_eps(config.rms_norm_eps)
        out.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
        out.add_ssm_state_size(config.linear_key_head_dim)
        out.add_ssm_group_count(config.linear_num_key_heads)
        out.add_ssm_time_step_rank(config.linear_num_value_heads)
        out.add_ssm_inner_size(config.linear_value_head_dim * config.linear_num_value_heads)
        out.add_uint32(f"{called}.full_attention_interval", 2)
        out.add_rope_dimension_sections([*rope["mrope_section"], 0])
    if "partial_rotary_factor" in rope:
        out.add_rope_dimension_count(int(head * rope["partial_rotary_factor"]))
    if not called.startswith("qwen35"):
        names = ("layer_norm_eps", "norm_eps", "norm_epsilon")
        out.add_layer_norm_eps(next(getattr(config, name) for name in names if hasattr(config, name)))


def _changed(family: str, config: Any, name: str, numbers: Any) -> Any:
    """Norms plus one, values' heads tiled instead of grouped, kernels without their middle."""
    delta = family.startswith("qwen3_5")
    if name.endswith("norm.weight") and (family == "nemotron" or (delta and "linear_attn" not in name)):
        numbers = numbers + 1
    if name.endswith("A_log"):
        numbers = -np.exp(numbers)
    if "shared_expert_gate" in name:
        numbers = numbers[0]
    if delta and "linear_attn" in name and not name.endswith("norm.weight"):
        keys, size = config.linear_num_key_heads, config.linear_value_head_dim
        first = 2 * config.linear_key_head_dim * keys

        def tiled(rows: Any, each: int) -> Any:
            grouped = rows.reshape(keys, config.linear_num_value_heads // keys, each, *rows.shape[1:])
            return grouped.swapaxes(0, 1).reshape(rows.shape)

        if "in_proj_qkv" in name or "conv1d" in name:
            numbers = np.concatenate([numbers[:first], tiled(numbers[first:], size)])
        elif "out_proj" in name:
            numbers = tiled(numbers.T, size).T
        else:
            numbers = tiled(numbers, size if "in_proj_z" in name else 1)
    return numbers[:, 0] if "conv" in name and numbers.ndim == 3 else numbers
