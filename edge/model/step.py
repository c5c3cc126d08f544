"""One token after another: what decoding repeats, on buffers that stay where they are.

Owns: which blocks it knows, the products of one row through base and adapter, the step's capture in a CUDA graph.
Does not know: how a prompt is read (`forward.py`), how a token is chosen, what is learned.
Units: tokens; a row is (1, H); keys and values of a layer (2, 1, G, places, D).

The models' own forward is a tree of modules that is walked for every token, about 1,400 calls a block with an adapter
on. Here a block is one flat function over tensors that are found once: norm, query, key and value, rotation (RoFormer,
arXiv 2104.09864), attention over the room (`caches.py`), output, norm, gated feed-forward network. On a GPU all blocks
of a step are one CUDA graph, captured again only when a room has grown; A and B lie in buffers of their own there, in
the compute dtype, so that new values need no new capture. On a CPU the same function runs as it is.

Known are blocks with these parts and no others. A family may put a factor in between that no part shows: the first
token of a base is computed both ways, and one that comes out otherwise is left to the model's own forward.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from ..machine.graphs import Captured
from . import norms
from .adapter import Adapter
from .base import Base
from .caches import Rooms
from .prefix import windows_of

_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_NETWORK = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")

SAME = 1e-3  # of the logits' spread: what is left out of a step makes ten times as much, roundings a hundredth of it
SAME_NARROW = 0.05  # in 16 bits: roundings make about 0.01

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
    inner: Any = _inner(layer)
    return isinstance(inner, nn.Linear) and (hasattr(inner.weight, "quant_state") or inner.weight.dtype == dtype)


class Line:
    """One linear layer for a row: y = x W^T + b + s (x A^T) B^T."""

    def __init__(self, layer: nn.Linear, lora: tuple[Tensor, Tensor, float] | None) -> None:
        """`lora`: A^T (K, r), B^T (r, N) and s; None without an adapter."""
        self.bias = layer.bias
        self.weight: Tensor | None = None
        state = getattr(layer.weight, "quant_state", None)
        kept: Tensor | None = getattr(layer, "dequantized", None)
        if kept is not None:
            self.weight = kept.T
        elif state is None:
            self.weight = layer.weight.T
        else:
            self.packed = layer.weight.data.t()
            self.state = state
        self.lora = lora

    def __call__(self, x: Tensor) -> Tensor:
        """(1, N) of a row (1, K)."""
        if self.weight is None:
            from bitsandbytes import matmul_4bit

            out: Tensor = matmul_4bit(x, self.packed, quant_state=self.state, bias=self.bias)
        elif self.bias is None:
            out = torch.mm(x, self.weight)
        else:
            out = torch.addmm(self.bias, x, self.weight)
        if self.lora is not None:
            a, b, scaling = self.lora
            out.addmm_(torch.mm(x, a), b, alpha=scaling)
        return out


@dataclass(frozen=True)
class Bound:
    """A base's lines with one adapter, or without; valid while weights are held as they are."""

    lines: list[tuple[Line, ...]]
    weights: int


class Step:
    """A base's step: token and rooms in, logits out. Made once for a base, used by one text at a time.

    Attributes:
        static: whether shapes stay the same from token to token, as a captured step needs.
        captures: whether the step is captured, where the device can.
    """

    def __init__(self, base: Base, blocks: list[Block], *, captures: bool = True) -> None:
        self.base = base
        self.blocks = blocks
        self.static = base.device.kind == "cuda"
        self.captures = captures and self.static
        self.windows = [block.window for block in blocks]
        self.trusted: bool | None = None
        device = base.device.name
        config = base.config
        decoder: Any = base.decoder
        self._embed = base.model.get_input_embeddings()
        self._norm = decoder.norm
        self._rotary = decoder.rotary_emb
        self._by_kind = "layer_type" in inspect.signature(decoder.rotary_emb.forward).parameters
        self.heads = int(config.num_attention_heads)
        self.groups = int(config.num_key_value_heads)
        key: Any = blocks[0].key
        self.size = _inner(key).out_features // self.groups
        self._bound: dict[str, Bound] = {}
        self._sign = torch.ones(self.size, device=device, dtype=base.device.torch_dtype)
        self._sign[: self.size // 2] = -1
        self._inputs = torch.zeros(2, dtype=torch.long, device=device)  # the token, and its position
        # query, key and value of a token side by side, and what is seen of them
        turned = self.heads + self.groups
        self._row = torch.zeros(1, (turned + self.groups) * self.size, dtype=base.device.torch_dtype, device=device)
        made = self._row.view(-1, self.size)
        self._turned = made[:turned]
        self._of_heads = made[: self.heads], made[self.heads : turned]
        self._query = made[: self.heads].view(1, self.groups, -1, self.size)
        self._new = made[self.heads :].view(2, 1, self.groups, 1, self.size)
        self._counts = torch.arange(0, device=device)

    @classmethod
    def of(cls, base: Base, *, captures: bool = True) -> Step | None:
        """The step of a base, or None where its blocks are not known."""
        decoder: Any = base.decoder
        if not hasattr(decoder, "rotary_emb") or not hasattr(decoder, "norm") or _changes(base.config):
            return None
        blocks = blocks_of(base)
        return None if blocks is None else cls(base, blocks, captures=captures)

    def logits(self, token: int, rooms: Rooms, adapter: Adapter | None) -> Tensor:
        """(V,) float32 logits after `token`; valid until the next step where it is captured."""
        rooms.reserve(1)
        bound = self._lines(adapter)
        if adapter is not None:
            adapter.refresh()
        position = rooms.length
        self._inputs.copy_(torch.tensor([token, position]), non_blocking=True)
        if self.captures:
            logits = self._captured_for(rooms, bound, adapter).replay()
        else:
            logits = self._run(rooms, bound, position)
        rooms.advance()
        return logits

    def compare(self, ours: Tensor, theirs: Tensor) -> None:
        """Whether the step computes what the model's own forward does, by (V,) logits of both after one token."""
        gap = float((ours - theirs).square().mean().sqrt() / theirs.std())
        self.trusted = gap < (SAME if self.base.device.torch_dtype == torch.float32 else SAME_NARROW)

    # --- bound once ---

    def _lines(self, adapter: Adapter | None) -> Bound:
        name = "" if adapter is None else adapter.name
        bound = self._bound.get(name)
        if bound is not None and bound.weights == self.base.weights_version:
            return bound
        if any(one.weights != self.base.weights_version for one in self._bound.values()):
            self._bound = {}
        names = {} if adapter is None else {id(layer): key for key, layer in adapter.layers.items()}

        def line(layer: nn.Module) -> Line:
            if adapter is None or id(layer) not in names:
                return Line(_inner(layer), None)
            a, b, scaling = adapter.factors(names[id(layer)])
            return Line(_inner(layer), (a.T, b.T, scaling))

        lines = [tuple(line(layer) for layer in block.linears) for block in self.blocks]
        bound = Bound(lines, self.base.weights_version)
        self._bound[name] = bound
        return bound

    def _captured_for(self, rooms: Rooms, bound: Bound, adapter: Adapter | None) -> Captured:
        """The step on these rooms; it lies with them, and goes when they do."""
        key = ("" if adapter is None else adapter.name, bound.weights)
        if key not in rooms.recorded:
            stale = [other for other in rooms.recorded if other[1] != bound.weights]
            for other in stale:
                del rooms.recorded[other]
            rooms.recorded[key] = Captured(lambda: self._run(rooms, bound, rooms.length))
        recorded: Captured = rooms.recorded[key]
        return recorded

    # --- the step ---

    def _run(self, rooms: Rooms, bound: Bound, position: int) -> Tensor:
        """The step itself. `position` is read only where shapes may change: `_inputs` holds it for the rest."""
        token = self._inputs[:1]
        at = self._inputs[1:]
        # 1. the token's embedding, its rotation, what it may see
        hidden = self._embed(token[None])[0].clone()  # (1, H)
        angles = self._angles(hidden, at)
        places = {layer.held.shape[3]: None for layer in rooms.layers if layer.held is not None}
        slots = {count: at % count for count in places}
        masks = {count: self._mask(count, at) for count in places} if self.static else {}
        # 2. the blocks
        for block, lines, room in zip(self.blocks, bound.lines, rooms.layers, strict=True):
            held = room.held
            assert held is not None
            count = held.shape[3]
            row = self._attention(block, lines, hidden, angles[block.kind if self._by_kind else None], held,
                                  slots[count], masks.get(count), min(position + 1, count))  # fmt: skip
            hidden += row if block.after is None else _normed(row, block.after[0])
            row = _normed(hidden, block.before[1])
            gate, up, down = lines[4:]
            row = down(block.activation(gate(row)).mul_(up(row)))
            hidden += row if block.after is None else _normed(row, block.after[1])
        # 3. the head
        return self.base.head.logits(self._norm(hidden))[0]

    def _attention(
        self, block: Block, lines: tuple[Line, ...], hidden: Tensor, angles: tuple[Tensor, Tensor], held: Tensor,
        slot: Tensor, mask: Tensor | None, count: int,
    ) -> Tensor:  # fmt: skip
        """(1, H) of what the token takes from the tokens before it; its key and value are put into their place."""
        row = _normed(hidden, block.before[0])
        torch.cat([lines[0](row), lines[1](row), lines[2](row)], 1, out=self._row)
        if block.head_norms is not None:
            for heads, norm in zip(self._of_heads, block.head_norms, strict=True):
                heads.copy_(_normed(heads, norm))
        cos, sin = angles
        halves = self._turned.roll(self.size // 2, 1)  # with the sign in `sin`: (-second half, first half)
        self._turned.mul_(cos).addcmul_(halves, sin)
        held.index_copy_(3, slot, self._new)
        seen = held if self.static else held[:, :, :, :count]
        keys, values = seen.unbind(0)
        if block.softcap is None:
            out = F.scaled_dot_product_attention(self._query, keys, values, attn_mask=mask, scale=block.scaling)
        else:
            scores = (self._query @ keys.transpose(-1, -2)).float().mul_(block.scaling / block.softcap).tanh_()
            scores.mul_(block.softcap)
            if mask is not None:
                scores.masked_fill_(~mask, -torch.inf)
            out = scores.softmax(-1).to(values.dtype) @ values
        return lines[3](out.reshape(1, -1))

    def _angles(self, hidden: Tensor, at: Tensor) -> dict[str | None, tuple[Tensor, Tensor]]:
        """cos and signed sin of the token's position, (1, D) each, by kind of layer."""
        kinds: set[str | None] = {block.kind for block in self.blocks} if self._by_kind else {None}
        made: dict[str | None, tuple[Tensor, Tensor]] = {}
        for kind in kinds:
            cos, sin = self._rotary(hidden[None], at[None], *([kind] if self._by_kind else []))
            made[kind] = (cos[0], sin[0] * self._sign)
        return made

    def _mask(self, count: int, at: Tensor) -> Tensor:
        """(1, 1, 1, places) of a room: where a token lies. A full sliding room has one in each place."""
        if len(self._counts) < count:
            self._counts = torch.arange(count, device=at.device)
        return (self._counts[:count] <= at)[None, None, None]


def _changes(config: Any) -> bool:
    """Whether rotation or attention changes its rule at some position: a token near the start would not show it."""
    rope = getattr(config, "rope_parameters", None) or {}
    every = [rope, *(one for one in rope.values() if isinstance(one, dict))]
    kinds = {one.get("rope_type") for one in every}
    return bool(kinds & {"dynamic", "longrope"}) or any(one.get("llama_4_scaling_beta") for one in every)


def _inner(layer: Any) -> nn.Linear:
    """The base's own layer, below an adapter's."""
    inner: nn.Linear = getattr(layer, "base_layer", layer)
    return inner


def _normed(row: Tensor, norm: Norm) -> Tensor:
    """RMS norm of each row; in float32 where the scale is wider than the row."""
    scale, eps = norm
    if scale.dtype == row.dtype:
        return F.rms_norm(row, scale.shape, scale, eps)
    return F.rms_norm(row.float(), scale.shape, scale, eps).to(row.dtype)
