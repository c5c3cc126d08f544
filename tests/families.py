"""A tiny random model of every family that the table in `edge/model/README.md` names: hidden size 64, 4 blocks at most."""

from __future__ import annotations

from typing import Any

import torch

from edge.weights import language

_PLAIN: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 320, "max_position_embeddings": 512,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
_NEAR = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
_NARROW = {**_EXPERTS, "moe_intermediate_size": 32}
_DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"], "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
}  # fmt: skip
_MAMBA = {"mamba_d_state": 16, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_chunk_size": 16}
_MROPE = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
}  # fmt: skip

# What each family's language model needs beside `_PLAIN`; None takes a name out of it.
LANGUAGE: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama4_text": {**_EXPERTS, "intermediate_size_mlp": 128, "num_hidden_layers": 4, "attention_chunk_size": 16,
                    "floor_scale": 16, "interleave_moe_layer_step": 2},
    "mistral": {"sliding_window": 16},
    "ministral3": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128, "llama_4_scaling_beta": 0.1, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}},
    "mixtral": _EXPERTS,
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": _NARROW,
    "qwen3_next": {**_NARROW, **_DELTA, "shared_expert_intermediate_size": 32},
    "qwen3_5_text": _DELTA,
    "qwen3_vl_text": _MROPE,
    "gemma2": _NEAR,
    "gemma3_text": _NEAR,
    "gemma3n_text": {**_NEAR, "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
                     "vocab_size_per_layer_input": 320, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2,
                     "laurel_rank": 8, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
                     "intermediate_size": [128] * 4},
    "gemma4_text": {**_NEAR, "vocab_size_per_layer_input": 320, "hidden_size_per_layer_input": 8, "global_head_dim": 16,
                    "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
                    "num_kv_shared_layers": 2},
    "phi3": {},
    "phi": {"partial_rotary_factor": 0.5},
    "gpt_oss": {**_EXPERTS, **_NEAR},
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.1},
    "granitemoehybrid": {**_EXPERTS, **_MAMBA, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 64,
                         "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_expand": 2, "position_embedding_type": "rope",
                         "logits_scaling": 4.0},
    "smollm3": {"no_rope_layers": [1, 0]},
    "olmo2": {},
    "olmo3": _NEAR,
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16,
                  "lm_head_multiplier": 0.25, "key_multiplier": 0.5, "ssm_multipliers": [0.5, 0.8, 1.2, 0.9, 0.7]},
    "glm4": {"partial_rotary_factor": 0.5},
    "cohere2": {**_NEAR, "logit_scale": 0.25},
    "exaone4": _NEAR,
    "seed_oss": {},
    "hunyuan_v1_dense": {},
    "ernie4_5": {},
    "nemotron": {"partial_rotary_factor": 0.5},
    "starcoder2": {"sliding_window": 16},
    "stablelm": {"partial_rotary_factor": 0.5},
    "gpt_neox": {},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "bitnet": {},
    "gpt2": {"hidden_size": None, "num_hidden_layers": None, "num_attention_heads": None, "max_position_embeddings": None,
             "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "olmo": {},
    "cohere": {"logit_scale": 0.25},
    "glm": {"partial_rotary_factor": 0.5},
    "arcee": {},
    "apertus": {},
    "helium": {},
    "ministral": _NEAR,
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "head_dim": None, "num_key_value_heads": None},
    "gemma": {},
    "bamba": {**_MAMBA, "attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_expand": 2},
    "lfm2_moe": {**_NARROW, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "state_size": 16, "n_groups": 1, "chunk_size": 16, "expand": 2},
    "nanochat": {},
    "qwen2_moe": {**_NARROW, "shared_expert_intermediate_size": 32},
    "qwen3_5_moe_text": {**_NARROW, **_DELTA, "shared_expert_intermediate_size": 32},
    "deepseek_v3": {**_NARROW, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 2, "topk_group": 1, "head_dim": 8,
                    "first_k_dense_replace": 1, "q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
                    "qk_nope_head_dim": 8, "v_head_dim": 16, "num_key_value_heads": 4},
    "glm4_moe": {**_NARROW, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
                 "first_k_dense_replace": 1, "partial_rotary_factor": 0.5},
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 1,
                     "moe_layer_start_index": 1, "moe_layer_end_index": 1},
    "hunyuan_v1_moe": {"num_experts": 4, "moe_topk": [2, 2], "num_shared_expert": [1, 1]},
    "jamba": {**_EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
              "mamba_d_state": 16, "mamba_dt_rank": 8, "use_mamba_kernels": False, "head_dim": None},
    "recurrent_gemma": {"lru_width": 64, "block_types": ["recurrent", "attention"], "attention_window_size": 16},
}  # fmt: skip


def language_model(family: str, *, seed: int = 0, **changes: Any) -> Any:
    """A random full-precision causal LM of that family."""
    from transformers import AutoConfig

    wanted = {**_PLAIN, **LANGUAGE[family], **changes}
    config = AutoConfig.for_model(family, **{name: value for name, value in wanted.items() if value is not None})
    torch.manual_seed(seed)
    made = language.causal_class(config)._from_config(config, dtype=torch.float32)
    with torch.no_grad():  # livelier than the usual initialisation, so that differences show
        for name, parameter in made.named_parameters():
            if not bool(parameter.isfinite().all()):
                parameter.normal_(std=0.1)
            if parameter.ndim > 1 and "conv1d" not in name:
                parameter.mul_(4)
            if parameter.ndim == 1 and name.rpartition(".")[2] in ("weight", "bias", "correct_output_scale", "sinks"):
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return made.eval()
