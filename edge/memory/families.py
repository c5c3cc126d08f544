"""What sets one family of models apart from another, as far as a config says it.

Owns: which families are refused and why, which use the fused attention, which cannot keep keys and values, which layers
an adapter leaves alone, what a block holds beside a Llama's. `edge/model/README.md` has a table of what was tested.
Does not know: torch, weights, plans. A family is transformers' `model_type`.
Units: numbers of weights and features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Attention is causal or sliding softmax attention and nothing else, each tested against the family's own.
FUSED = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "ministral3", "mixtral", "qwen3_moe",
    "qwen3_next", "qwen3_5_text", "qwen3_vl_text", "gemma3n_text", "gemma4_text", "phi", "granite",
    "granitemoehybrid", "smollm3", "olmo2", "olmo3", "lfm2", "lfm2_moe", "falcon_h1", "glm4", "cohere2", "exaone4",
    "seed_oss", "hunyuan_v1_dense", "ernie4_5", "nemotron", "starcoder2", "stablelm", "gpt_neox", "opt", "bitnet",
    "olmo", "cohere", "glm", "arcee", "apertus", "helium", "ministral", "gemma", "nanochat",
)  # fmt: skip

# Decoded by `model/step.py`, which knows their blocks; any other family by its own forward.
STEPPED = (
    "llama",
    "mistral",
    "ministral",
    "qwen2",
    "qwen3",
    "qwen3_vl_text",
    "gemma",
    "gemma2",
    "gemma3_text",
    "seed_oss",
)

# Activations beyond 65,504, the largest number of float16 (transformers warns of it for these).
BEYOND_HALF = ("gemma2", "gemma3_text", "gemma3n_text", "gemma4_text")

_KEPT = ("full_attention", "sliding_attention", "dummy")  # kinds of layers whose keys and values are all that they keep
_OLD_NAMES = {"mamba": "linear_attention", "attention": "full_attention"}  # as configs on disk may have them
_STATES = ("mamba_", "linear_conv_", "ssm_")  # names in the configs of models with states begin with these
_NO_LINEARS = "its layers are not linear ones that an adapter or 4-bit weights could replace"
_NO_ATTENTION = "all that it keeps of a text is a state; an adapter on it is refused by peft"
REFUSED = {
    "gpt2": _NO_LINEARS, "openai-gpt": _NO_LINEARS, "mamba": _NO_ATTENTION, "mamba2": _NO_ATTENTION,
    "falcon_mamba": _NO_ATTENTION, "rwkv": _NO_ATTENTION, "xlstm": _NO_ATTENTION,
}  # fmt: skip

# Linear layers that compute something else, too, and stay unquantised with the head.
WHOLE = {"llama4_text": ["lm_head", "router"]}
# Layers whose weight a fused kernel reads by itself or peft refuses, and those that choose, mix or gate with few
# numbers: a router that learns sends tokens to experts that never saw their like.
_LEFT_ALONE = (
    "router", "gate", "shared_expert_gate", "modality_router", "correction_coefs", "prediction_coefs", "in_proj_a",
    "in_proj_b", "in_proj_ba", "x_proj", "dt_proj",
)  # fmt: skip
_MIXERS = ("mamba", "mixer")


def refusal(config: Mapping[str, Any]) -> str:
    """Why this family cannot be used; empty where it can."""
    family = str(config.get("model_type", ""))
    if config.get("is_encoder_decoder"):
        return "it reads with an encoder, and continues no text"
    return REFUSED.get(family, "")


def quantised(config: Mapping[str, Any]) -> str:
    """By what its weights were quantised, where that is nothing that can be read: full precision can, bitsandbytes' 4
    bits can, and MXFP4, which transformers makes full precision of; empty there."""
    found = config.get("quantization_config")
    if not found:
        return ""
    if not isinstance(found, Mapping):
        return str(found)[:40]
    if found.get("load_in_4bit") or found.get("quant_method") == "mxfp4":
        return ""
    return str(found.get("quant_method") or "no method")[:40]


def adapts(name: str) -> bool:
    """Whether an adapter may change the linear layer of that full name."""
    *above, last = name.split(".")
    return last not in _LEFT_ALONE and not any(part in _MIXERS for part in above)


def anew(kinds: Iterable[str], family: str) -> str:
    """Why windows must be computed anew, by the kinds of a model's layers; empty where keys and values can be kept."""
    other = sorted({kind for kind in kinds if kind not in _KEPT})
    if not other:
        return ""
    what = (
        "see a text in pieces from its start"
        if other == ["chunked_attention"]
        else "keep a state, not each token's keys"
    )
    return f"{' and '.join(kind.replace('_', ' ') for kind in other)} layers of {family} {what}"


def kinds(config: Mapping[str, Any]) -> list[str]:
    """Kinds of a model's layers as far as its config names them, or shows that it has layers with a state."""
    named = config.get("layer_types") or config.get("layers_block_type")
    if named:
        return [_OLD_NAMES.get(str(kind), str(kind)) for kind in named]
    if any(name.startswith(_STATES) for name in config) or "conv_L_cache" in config:
        return ["linear_attention"]
    return ["chunked_attention"] if config.get("attention_chunk_size") else []


@dataclass(frozen=True)
class Beside:
    """What a block holds beside a Llama's layers, counted from above: a block of a hybrid is counted with all its
    layers' parts.

    Attributes:
        linears: (inputs, outputs) of more linear layers, or of larger ones.
        whole: numbers of the model that stay unquantised, experts left out but for their biases (`mixture.py`):
        embeddings of each layer. copies: how many hidden states each token has.
        scanned: features of each token that a layer with a state makes, where transformers' own torch code computes it
        in pieces. matrices: attention's whole matrix of scores exists, (heads, tokens, tokens).
    """

    linears: Mapping[str, tuple[int, int]]
    whole: int = 0
    copies: int = 1
    scanned: int = 0
    matrices: bool = False


def beside(config: Mapping[str, Any], hidden: int, layers: int, heads: int, head_dim: int) -> Beside:
    """See `Beside`; nothing for a family whose blocks are a Llama's."""

    def size(*names: str) -> int:
        return max((largest(config.get(name)) for name in names), default=0)

    family = str(config.get("model_type", ""))
    linears: dict[str, tuple[int, int]] = {}
    scanned = 0
    # 1. gated queries; linear attention, convolutions, Mamba
    if family.startswith(("qwen3_next", "qwen3_5")):
        linears["q_proj"] = (hidden, 2 * heads * head_dim)
    keys = size("linear_num_key_heads") * size("linear_key_head_dim")
    values = size("linear_num_value_heads") * size("linear_value_head_dim")
    if values:
        linears["in_proj_qkvz"] = (hidden, 2 * keys + 2 * values + 2 * size("linear_num_value_heads"))
        linears["out_proj"] = (values, hidden)
        scanned = size("linear_num_value_heads") * (
            6 * 64 + 8 * (size("linear_key_head_dim") + size("linear_value_head_dim"))
        )
    if "conv_L_cache" in config:
        linears["in_proj"] = (hidden, 3 * hidden)
        linears["out_proj"] = (hidden, hidden)
    inner = size("mamba_d_ssm") or size("mamba_expand") * hidden
    if inner:
        groups = size("mamba_n_groups") or 1
        states = size("mamba_d_state")
        linears["in_proj"] = (hidden, 2 * inner + 2 * groups * states + size("mamba_n_heads"))
        linears["out_proj"] = (inner, hidden)
        scanned = size("mamba_n_heads") * (6 * size("mamba_chunk_size") + 8 * states) + 8 * inner
    taps = size("conv_L_cache", "mamba_d_conv", "linear_conv_kernel_dim") if linears else 0
    # 2. what Gemma 3n and 4 add to each block
    own = size("hidden_size_per_layer_input")
    whole = own * layers * size("vocab_size_per_layer_input")
    whole += layers * taps * max([outputs for _, outputs in linears.values()], default=0)
    whole += hidden * (size("max_position_embeddings") + 2) if family == "opt" else 0  # learned positions
    if own:
        linears["per_layer_input_gate"] = linears["per_layer_model_projection"] = (hidden, own)
        linears["per_layer_projection"] = (own, hidden)
    copies = size("altup_num_inputs")
    if copies:
        rank = size("laurel_rank")
        linears["linear_left"] = (hidden, rank)
        linears["linear_right"] = (rank, hidden)
        linears["altup_projections"] = (hidden, 2 * copies * hidden // max(1, layers) + copies * copies + copies)
    # 3. attention through a small space (DeepSeek's): made of two matrices each
    small = size("kv_lora_rank")
    if small:
        turned = size("qk_rope_head_dim")
        query = heads * (size("qk_nope_head_dim") + turned)
        value = heads * (size("v_head_dim") or head_dim)
        narrow = size("q_lora_rank")
        linears["q_proj"] = (hidden, narrow or query)
        linears["q_b_proj"] = (narrow, query)
        linears["k_proj"] = (hidden, small + turned)
        linears["v_proj"] = (small, heads * size("qk_nope_head_dim") + value)
        linears["o_proj"] = (value, hidden)
    # 4. what chooses experts
    experts = size("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    if experts:
        linears["router"] = (hidden, experts)
        width = size("moe_intermediate_size") or size("intermediate_size")
        whole += layers * experts * (3 * width + 2 * hidden)  # their biases, where they have any
    return Beside(linears, whole, max(1, copies), scanned, matrices=family not in FUSED)


def width(config: Mapping[str, Any]) -> int:
    """Features of LFM2's MLP, which its configs name before they are cut; 0 for other families."""
    if config.get("model_type") != "lfm2":
        return 0
    features = int(config.get("block_ff_dim") or config.get("intermediate_size") or 0)
    if not config.get("block_auto_adjust_ff_dim", True):
        return features
    features = 2 * features // 3
    if config.get("block_ffn_dim_multiplier") is not None:
        features = int(float(config["block_ffn_dim_multiplier"]) * features)
    multiple = max(1, int(config.get("block_multiple_of") or 1))
    return -(-features // multiple) * multiple


def largest(value: Any) -> int:
    """A number, or the largest of a list with one for each layer; 0 where there is none."""
    if isinstance(value, list | tuple):
        return max((largest(one) for one in value), default=0)
    return 0 if value is None or isinstance(value, bool | str) else int(value)
