"""What the transformer blocks of a base are made of, as far as a step (`step.py`) knows it.

Owns: which parts a block must have, and no others. Does not know: how a token is computed.
Units: tokens. torch is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from . import norms
from .base import Base
from .prefix import windows_of

_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_NETWORK = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")

Norm = tuple[Tensor, float]  # (H,) scale and epsilon


@dataclass(frozen=True)
class Block:
    """What one transformer block is made of.

    Attributes:
        before: the norms before attention and before the network.
        after: those after them, before the sum; None for most families.
        head_norms: of each head of query and of key, or None.
        window: how many tokens it sees; None for all.
        kind: what the rotary embedding calls its layers, where it asks.
    """

    before: tuple[Norm, Norm]
    after: tuple[Norm, Norm] | None
    head_norms: tuple[Norm, Norm] | None
    query: nn.Module
    key: nn.Module
    value: nn.Module
    out: nn.Module
    gate: nn.Module
    up: nn.Module
    down: nn.Module
    activation: Callable[[Tensor], Tensor]
    scaling: float
    softcap: float | None
    window: int | None
    kind: str | None

    @property
    def linears(self) -> tuple[nn.Module, ...]:
        """Its linear layers, those with the same input side by side."""
        return (self.query, self.key, self.value, self.out, self.gate, self.up, self.down)


def blocks_of(base: Base) -> list[Block] | None:
    """The blocks of a base, or None where one of them has other parts."""
    try:
        windows = windows_of(base.config)
    except ModelError:  # a layer keeps something else than keys and values
        return None
    made: list[Block] = []
    for module, window in zip(base.blocks, windows, strict=True):
        block = _block_of(module, window, base.device.torch_dtype)
        if block is None:
            return None
        made.append(block)
    return made


def _block_of(module: nn.Module, window: int | None, dtype: torch.dtype) -> Block | None:
    parts = dict(module.named_children())
    names = set(parts) - {"self_attn", "mlp"}
    if "self_attn" not in parts or "mlp" not in parts or names not in ({*_NORMS[:2]}, {*_NORMS}):
        return None
    attention: Any = parts["self_attn"]
    network: Any = parts["mlp"]
    inside = {name for name, _ in attention.named_children()}
    if inside - {"q_norm", "k_norm"} != _ATTENTION or {name for name, _ in network.named_children()} != _NETWORK:
        return None
    found = {name: norms.scale_of(parts[name]) for name in names}
    heads = [norms.scale_of(getattr(attention, name)) for name in ("q_norm", "k_norm") if name in inside]
    if len(heads) == 1 or None in found.values() or None in heads or not hasattr(attention, "scaling"):
        return None
    first, second, third, fourth = (found.get(name) for name in _NORMS)
    assert first is not None and second is not None
    before = (first, second if third is None else third)
    after = None if third is None or fourth is None else (second, fourth)
    linears = {
        "query": attention.q_proj, "key": attention.k_proj, "value": attention.v_proj, "out": attention.o_proj,
        "gate": network.gate_proj, "up": network.up_proj, "down": network.down_proj,
    }  # fmt: skip
    if not all(_is_known(layer, dtype) for layer in linears.values()):
        return None
    return Block(
        before=before,
        after=after,
        head_norms=(heads[0], heads[1]) if heads and heads[0] and heads[1] else None,
        **linears,
        activation=network.act_fn,
        scaling=float(attention.scaling),
        softcap=getattr(attention, "attn_logit_softcapping", None),
        window=window,
        kind=getattr(attention, "layer_type", None),
    )


def _is_known(layer: Any, dtype: torch.dtype) -> bool:
    """Whether a row's product with the layer is one of ours: 4-bit weights, or such of the compute dtype."""
    inner: Any = inner_of(layer)
    return isinstance(inner, nn.Linear) and (hasattr(inner.weight, "quant_state") or inner.weight.dtype == dtype)


def inner_of(layer: Any) -> nn.Linear:
    """The base's own layer, below an adapter's."""
    inner: nn.Linear = getattr(layer, "base_layer", layer)
    return inner
