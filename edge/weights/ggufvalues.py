"""What a GGUF header says of how its model computes, and transformers leaves out: put into the config, or refused.

Owns: how positions are scaled, sizes of heads and experts, caps and scales of attention; which keys and tensors change
a model's numbers, and must not be passed over. Does not know: torch, how tensors are unpacked, tokenizers (`words.py`).
Units: features; tokens of context.

What the keys mean is llama.cpp's (its `src/models`, and the converter that writes them); values get the names that
transformers has for them. Llama 3.1's frequencies lie in a tensor of their own: its numbers are llama.cpp's
"factors", by which transformers' frequencies are divided. A key that is not known here and does change numbers is an
error: the model would be nearly right, and nothing would show it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..memory import gguf

OWN = ("lfm2", "qwen35", "qwen35moe", "gemma4", "gpt-oss", "minimax-m2")  # transformers reads what these say by itself
FREQUENCIES = "rope_freqs.weight"
LONG = "rope_factors_long.weight"
SHORT = "rope_factors_short.weight"
_SIZES = {
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
}
NAMES = (
    "rope_parameters",
    "head_dim",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "norm_eps",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
)  # what the config may get from here
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
_TURNED_IN_PART = ("phi3", "stablelm", "nemotron")  # whose configs say how much of a head is rotated
_SCALES = ("attention.scale", "logit_scale", "residual_scale", "embedding_scale", "expert_weights_scale")
_OTHERS = ("attention.clamp_kqv", "attention.max_alibi_bias", "rope.dimension_sections", "attention.temperature_scale")
_SCALING = ("type", "factor", "original_context_length", "finetuned", "attn_factor", "yarn_beta_fast", "yarn_beta_slow")
_WIDEST = {("gemma2", 46), ("gemma3", 62)}  # the 27B models: llama.cpp, too, knows them by their blocks
_TOWERS = ("v.", "mm.", "a.")  # of images and sounds beside the language model


def completed(values: Mapping[str, Any], header: gguf.Header, path: Path) -> dict[str, Any]:
    """The config's values as transformers reads them from the header, with what it leaves out.

    Raises:
        ModelError: the header says something that changes the numbers and is not known here.
    """
    kind = str(header.values["general.architecture"])

    def said(name: str) -> Any:
        return header.values.get(f"{kind}.{name}")

    made = dict(values)
    if kind in OWN:
        if said("rope.scaling.type") not in (None, "none") and kind != "gpt-oss":
            raise _not_known(path, f"{kind}.rope.scaling.type", said("rope.scaling.type"))
        return made
    for name in _OTHERS:
        if said(name):
            raise _not_known(path, f"{kind}.{name}", said(name))
    for name in _SCALES:
        if said(name) not in (None, 0, 1):
            raise _not_known(path, f"{kind}.{name}", said(name))
    if made.get("num_experts"):
        made |= {name: said(key) for name, key in _SIZES.items() if said(key)}
    _heads(made, kind, said, path)
    _caps(made, kind, said, path)
    scaling = _scaling(made, header, said, path)
    if scaling is not None:
        made["rope_scaling"] = scaling
    return made


def _heads(made: dict[str, Any], kind: str, said: Any, path: Path) -> None:
    """Features of a head, and how many of them turn with the position, at which base."""
    turned = said("rope.dimension_count")
    head = said("attention.key_length") or (turned if kind == "llama" else None)  # which turns whole heads
    head = head or int(made["hidden_size"]) // int(made.get("num_attention_heads") or 1)
    if said("attention.value_length") not in (None, head) and said("attention.key_length"):
        raise _not_known(path, f"{kind}.attention.value_length", said("attention.value_length"))
    if said("attention.key_length"):
        made["head_dim"] = head
    if said("rope.freq_base") and "rope_theta" not in made:
        made["rope_theta"] = said("rope.freq_base")
    if kind in _TURNED_IN_PART and turned:
        made["partial_rotary_factor"] = turned / head
    elif turned not in (None, head) and kind not in ("bloom", "gpt2"):
        raise _not_known(path, f"{kind}.rope.dimension_count", turned)
    if kind == "nemotron" and said("attention.layer_norm_epsilon"):
        made["norm_eps"] = said("attention.layer_norm_epsilon")


def _caps(made: dict[str, Any], kind: str, said: Any, path: Path) -> None:
    """Gemma's caps, what it divides its scores by, which of its blocks see all tokens."""
    gemma = kind in ("gemma2", "gemma3")
    for name in _CAPS:
        if said(name) and not gemma:
            raise _not_known(path, f"{kind}.{name}", said(name))
        if said(name):
            made[name] = said(name)
    if not gemma:
        return
    wide = (kind, said("block_count")) in _WIDEST
    made["query_pre_attn_scalar"] = int(made["hidden_size"]) // int(made["num_attention_heads"]) if wide else int(
        made.get("head_dim") or 256
    )  # fmt: skip
    pattern = {"gemma2": 2, "gemma3": 6}[kind]
    if said("attention.sliding_window_pattern") not in (None, pattern):
        raise _not_known(path, f"{kind}.attention.sliding_window_pattern", said("attention.sliding_window_pattern"))
    if kind == "gemma3" and said("rope.freq_base_swa"):
        made["rope_local_base_freq"] = said("rope.freq_base_swa")


def _scaling(made: dict[str, Any], header: gguf.Header, said: Any, path: Path) -> dict[str, Any] | None:
    """How positions are scaled, as transformers' `rope_scaling`; None where they are not."""
    prefix = f"{header.values['general.architecture']}.rope.scaling."
    for key, value in header.values.items():
        if key.startswith(prefix) and key.removeprefix(prefix) not in _SCALING:
            raise _not_known(path, key, value)
    kind = said("rope.scaling.type")
    factor = float(said("rope.scaling.factor") or said("rope.scale_linear") or 1)
    trained = said("rope.scaling.original_context_length")
    if FREQUENCIES in header.tensors:
        return _llama3(made, header, path)
    if LONG in header.tensors or kind == "longrope":
        long, short = _numbers(path, header, LONG), _numbers(path, header, SHORT)
        attention = said("rope.scaling.attn_factor")
        if trained:
            made["original_max_position_embeddings"] = trained  # which Phi 3's config keeps beside it
        return {
            "rope_type": "longrope", "long_factor": long, "short_factor": short,
            "original_max_position_embeddings": trained or made["max_position_embeddings"],
            **({"attention_factor": float(attention)} if attention else {}),
        }  # fmt: skip
    if kind == "none" or (kind in (None, "linear") and factor == 1):
        return None
    if kind in (None, "linear"):
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn" or said("rope.scaling.attn_factor") not in (None, 1):
        raise _not_known(path, f"{prefix}type", kind)
    fast, slow = said("rope.scaling.yarn_beta_fast"), said("rope.scaling.yarn_beta_slow")
    return {
        "rope_type": "yarn", "factor": factor,
        "original_max_position_embeddings": trained or made["max_position_embeddings"],
        **({"beta_fast": float(fast)} if fast else {}), **({"beta_slow": float(slow)} if slow else {}),
    }  # fmt: skip


def _llama3(made: Mapping[str, Any], header: gguf.Header, path: Path) -> dict[str, Any] | None:
    """Llama 3.1's scaling, where the file's factors are what it gives; None where they are all one.

    Raises:
        ModelError: they are of another kind.
    """
    found = _numbers(path, header, FREQUENCIES)
    factor = max(found)
    if factor == 1 == min(found):
        return None
    base = float(made.get("rope_theta") or 10_000)
    low, high, trained = 1.0, 4.0, 8192  # of all models that were published with it
    expected = []
    for index in range(len(found)):
        turns = trained / (2 * math.pi * base ** (index / len(found)))  # of that feature, over the context
        smooth = min(1.0, max(0.0, (turns - low) / (high - low)))
        expected.append(1 / ((1 - smooth) / factor + smooth))
    if any(abs(one - other) > 1e-3 * other for one, other in zip(found, expected, strict=True)):
        raise _passed_over(path, f"holds other factors in {FREQUENCIES} than Llama 3.1's")
    return {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": trained,
    }  # fmt: skip


def _numbers(path: Path, header: gguf.Header, name: str) -> list[float]:
    """A small float32 tensor of the file."""
    place = header.tensors.get(name)
    if place is None or place.kind != 0 or len(place.dims) != 1 or not 0 < place.dims[0] <= 1 << 16:
        raise _passed_over(path, f"holds no list of float32 numbers in {name}")
    with path.open("rb") as file:
        file.seek(header.data + place.offset)
        data = file.read(4 * place.dims[0])
    if len(data) != 4 * place.dims[0]:
        raise ModelError(f"{path} is cut short at {name}", "a whole GGUF file", "download it again")
    return list(struct.unpack(f"<{place.dims[0]}f", data))


def require_used(tensors: Iterable[str], used: Iterable[str], path: Path) -> None:
    """Refuses a file with a tensor that no part of the model is made of.

    Raises:
        ModelError: naming the first one.
    """
    known = {FREQUENCIES, LONG, SHORT, *used}
    for name in tensors:
        if name not in known and not name.startswith(_TOWERS):
            raise _passed_over(path, f"holds a tensor {name}")


def _not_known(path: Path, key: str, value: Any) -> ModelError:
    return _passed_over(path, f"says {key} = {value}")


def _passed_over(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path.name} {what}, which changes its numbers and is not known here", "a model whose file is used whole",
        "use the model's own folder with safetensors instead",
    )  # fmt: skip
