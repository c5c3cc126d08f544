"""One token after another: what decoding repeats, on buffers that stay where they are.

Owns: the products of rows through base and adapter, the step's capture in a CUDA graph.
Does not know: how a prompt is read (`forward.py`), how a token is chosen, what is learned.
Units: tokens; rows (n, H), one of each text: mostly one, more where texts are decoded side by side; keys and values of
a layer (2, n, G, places, D).

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
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import describe
from ..machine.graphs import Captured
from ..machine.held import is_out_of_memory, out_of_memory_among
from ..memory.families import STEPPED
from . import kernels, norms, rows
from .adapter import Adapter
from .base import Base
from .blocks import Block, Norm, blocks_of, inner_of
from .caches import Rooms
from .lines import Line, Together, settle

SAME = 1e-3  # of the logits' spread: what is left out of a step makes ten times as much, roundings a hundredth of it
SAME_NARROW = 0.05  # in 16 bits: roundings make about 0.01 with few blocks
# The same of families whose step is known to be right in float32: with 32 blocks 0.05 were measured; 1 is another text
KNOWN_NARROW = 0.3
SILU = ("SiLU", "SiLUActivation")  # torch's and transformers' names of one function


@dataclass(frozen=True)
class Bound:
    """A base's lines with one adapter, or without; valid while weights are held as they are.

    Attributes:
        lines: of each block.
        shared: those of them with the same rows: query, key and value; gate and up.
    """

    lines: list[tuple[Line, ...]]
    shared: list[tuple[Together, Together]]
    weights: int


class Static:
    """What a step of n texts reads and writes at fixed addresses.

    Attributes:
        inputs: (2, n), each text's token and its position.
        row: (n, ...), query, key and value of the tokens side by side.
        turned: the part of it that is rotated; `of_heads`: query and key of it, (n, heads, D).
        query: (n, G, heads / G, D); `new`: key and value (2, n, G, 1, D).
    """

    def __init__(self, step: Step, n: int) -> None:
        device = step.base.device.name
        dtype = step.base.device.torch_dtype
        turned = step.heads + step.groups
        self.n = n
        self.inputs = torch.zeros(2, n, dtype=torch.long, device=device)
        self.row = torch.zeros(n, (turned + step.groups) * step.size, dtype=dtype, device=device)
        made = self.row.view(n, -1, step.size)
        self.turned = made[:, :turned]
        self.of_heads = made[:, : step.heads], made[:, step.heads : turned]
        self.query = made[:, : step.heads].view(n, step.groups, -1, step.size)
        self.new = made[:, step.heads :].view(n, 2, step.groups, 1, step.size).transpose(0, 1)


class Step:
    """A base's step: token and rooms in, logits out. Made once for a base, used by one text at a time.

    Attributes:
        static: whether shapes stay the same from token to token, as a captured step needs.
        captures: whether the step is captured, where the device can.
        chooses: whether products are measured before they are captured, and our own kernel is one of the ways.
        choices: what that found.
        fused: whether the small work between products is done by our own kernels (`rows.py`).
        gap: how far the first token's logits were from the model's own, by their spread; None before.
        failure: why the step does not decode, or is not captured, where that was tried.
    """

    def __init__(self, base: Base, blocks: list[Block], *, captures: bool = True, chooses: bool = True) -> None:
        self.base = base
        self.blocks = blocks
        self.static = base.device.kind == "cuda"
        self.captures = captures and self.static
        self.chooses = chooses and self.captures
        self.fused = self.chooses and rows.are_there()
        self.choices = kernels.Choices()
        self.windows = [block.window for block in blocks]
        self.trusted: bool | None = None
        self.gap: float | None = None
        self.failure = ""
        device = base.device.name
        config = base.config
        decoder: Any = base.decoder
        self._embed = base.model.get_input_embeddings()
        self._norm = decoder.norm
        self._last_norm = norms.scale_of(decoder.norm)
        self._rotary = decoder.rotary_emb
        self._by_kind = "layer_type" in inspect.signature(decoder.rotary_emb.forward).parameters
        self.heads = int(config.num_attention_heads)
        self.groups = int(config.num_key_value_heads)
        key: Any = blocks[0].key
        self.size = inner_of(key).out_features // self.groups
        self._bound: dict[tuple[str, float], Bound] = {}
        self._sign = torch.ones(self.size, device=device, dtype=base.device.torch_dtype)
        self._sign[: self.size // 2] = -1
        self._static = {1: Static(self, 1)}
        self._counts: dict[int, Tensor] = {}  # all are kept: what was recorded reads them where they lie

    @classmethod
    def of(cls, base: Base, *, captures: bool = True, chooses: bool = True) -> Step | None:
        """The step of a base, or None where its blocks are not known."""
        decoder: Any = base.decoder
        if not hasattr(decoder, "rotary_emb") or not hasattr(decoder, "norm") or _changes(base.config):
            return None
        blocks = blocks_of(base)
        return None if blocks is None else cls(base, blocks, captures=captures, chooses=chooses)

    def logits(self, token: int, rooms: Rooms, adapter: Adapter | None) -> Tensor:
        """(V,) float32 logits after `token`; valid until the next step where it is captured."""
        rooms.reserve(1)
        logits = self._logits([token], [rooms.length], rooms, adapter)
        rooms.advance()
        return logits[0]

    def logits_of_lines(self, tokens: Sequence[int], rows: Sequence[Rooms], adapter: Adapter | None) -> Tensor:
        """(n, V) the same for the first n of `rows`, which are rooms side by side (`Rooms.side_by_side`)."""
        together = rows[0].together
        assert together is not None
        count = len(tokens)
        if self.captures:  # texts that have ended are computed on, at no cost: one capture does for any number
            tokens = [*tokens, *[0] * (len(rows) - count)]
        logits = self._logits(tokens, [row.length for row in rows[: len(tokens)]], together, adapter)
        for row in rows[:count]:
            row.advance()
        return logits[:count]

    def _logits(self, tokens: Sequence[int], positions: Sequence[int], rooms: Rooms, adapter: Adapter | None) -> Tensor:
        """(n, V) of the first n texts in `rooms`."""
        n = len(tokens)
        bound = self._lines(adapter)
        if adapter is not None:
            adapter.refresh()
        if n not in self._static:
            self._static[n] = Static(self, n)
        static = self._static[n]
        static.inputs.copy_(torch.tensor([tokens, positions]), non_blocking=True)
        recorded = self._captured_for(rooms, bound, static, adapter) if self.captures else None
        if recorded is None:  # by the lines as they are now: a capture that failed may have changed them
            return self._run(rooms, self._lines(adapter), static, max(positions))
        return recorded.replay()

    def tried(self, token: int, rooms: Rooms, adapter: Adapter | None) -> Tensor | None:
        """`logits` of a token that is computed both ways; None where a part of the model wants something else."""
        try:
            ours = self.logits(token, rooms, adapter).clone()
        except Exception as error:  # what it says depends on the part
            if is_out_of_memory(error):
                raise
            self.failure = describe(error)
            return None
        rooms.advance(-1)
        return ours

    def compare(self, ours: Tensor | None, theirs: Tensor) -> None:
        """Whether the step computes what the model's own forward does, by (V,) logits of both after one token."""
        if ours is None:
            self.trusted = False
            return
        self.gap = float((ours - theirs).square().mean().sqrt() / theirs.std())
        known = self.base.config.model_type in STEPPED
        narrow = KNOWN_NARROW if known else SAME_NARROW
        self.trusted = self.gap < (SAME if self.base.device.torch_dtype == torch.float32 else narrow)

    def forget_weights(self) -> None:
        """Lets go of weights that are held in another way now."""
        if any(one.weights != self.base.weights_version for one in self._bound.values()):
            self._bound = {}

    # --- bound once ---

    def _lines(self, adapter: Adapter | None) -> Bound:
        key = _key(adapter)
        bound = self._bound.get(key)
        if bound is not None and bound.weights == self.base.weights_version:
            return bound
        self.forget_weights()
        names = {} if adapter is None else {id(layer): key for key, layer in adapter.layers.items()}

        def stack(layers: Sequence[nn.Module]) -> Tensor | None:
            adapted = [names[id(layer)] for layer in layers if id(layer) in names]
            a = adapter.stacked(adapted) if adapter is not None and len(adapted) == len(layers) else None
            return None if a is None else a.T

        def line(layer: nn.Module) -> Line:
            if adapter is None or id(layer) not in names:
                return Line(inner_of(layer), None)
            a, b, scaling = adapter.factors(names[id(layer)])
            return Line(inner_of(layer), (a.T, b.T, scaling), fused=self.fused)

        stacks = [(stack(block.linears[:3]), stack(block.linears[4:6])) for block in self.blocks]  # before their parts
        lines = [tuple(line(layer) for layer in block.linears) for block in self.blocks]
        shared = [
            (Together(of[:3], first), Together(of[4:6], second))
            for of, (first, second) in zip(lines, stacks, strict=True)
        ]
        bound = Bound(lines, shared, self.base.weights_version)
        self._bound[key] = bound
        return bound

    def _choose(self, bound: Bound, rows: int) -> None:
        settle(itertools.chain.from_iterable(bound.lines), rows, self.choices, self.base.device)

    def _captured_for(self, rooms: Rooms, bound: Bound, static: Static, adapter: Adapter | None) -> Captured | None:
        """The step on these rooms, which lies with them, and goes when they do; None where none can be captured."""
        key = (_key(adapter), bound.weights, static.n)
        if key not in rooms.recorded:
            stale = [other for other in rooms.recorded if other[1] != bound.weights]
            for other in stale:
                del rooms.recorded[other]
            try:
                if self.chooses and static.n <= kernels.ROWS:
                    self._choose(bound, static.n)
                rooms.recorded[key] = Captured(lambda: self._run(rooms, bound, static, rooms.length))
            except Exception as error:  # what a kernel's compiler says depends on it
                if (short := out_of_memory_among(error)) is not None:
                    raise short from None
                if self.fused:  # the same step in torch's kernels
                    self.choices = kernels.Choices()
                    self.choices.failed(error)
                    self.fused = self.chooses = False
                    self._bound = {}
                    return self._captured_for(rooms, self._lines(adapter), static, adapter)
                if not isinstance(error, RuntimeError):
                    raise
                self.failure = describe(error)
                self.captures = self.chooses = False  # the same step decodes without, only slower
                return None
        recorded: Captured = rooms.recorded[key]
        return recorded

    # --- the step ---

    def _run(self, rooms: Rooms, bound: Bound, static: Static, position: int) -> Tensor:
        """The step itself. `position`, of the longest text, is read only where shapes may change: `inputs` holds it
        for the rest.
        """
        tokens, at = static.inputs
        # 1. the tokens' embeddings, their rotation, what they may see
        hidden = self._embed(tokens[None])[0].clone()  # (n, H)
        angles = self._angles(hidden, at)
        places = {layer.held.shape[3]: None for layer in rooms.layers if layer.held is not None}
        slots: dict[int, Tensor] = {}
        masks: dict[int, Tensor] = {}
        if not self.fused:  # else the kernels find both
            slots = {count: at % count for count in places}
            if self.static or static.n > 1:
                masks = {count: self._mask(count, at) for count in places}
        # 2. the blocks
        row = self._summed(hidden, None, None, self.blocks[0].before[0])
        following = [*(block.before[0] for block in self.blocks[1:]), self._last_norm]
        for block, lines, shared, room, norm in zip(
            self.blocks, bound.lines, bound.shared, rooms.layers, following, strict=True
        ):
            held = room.held
            assert held is not None
            count = held.shape[3]
            turns = angles[block.kind if self._by_kind else None]
            first, second = block.after or (None, None)
            row = self._attention(block, shared[0], lines[3], row, turns, static,
                                  held, slots.get(count, at), masks.get(count), min(position + 1, count))  # fmt: skip
            row = self._summed(hidden, row, first, block.before[1])
            gate, up = shared[1](row)
            row = self._summed(hidden, lines[6](self._gated(block, gate, up)), second, norm)
        # 3. the head
        return self.base.head.logits(row)

    def _summed(self, hidden: Tensor, row: Tensor | None, after: Norm | None, norm: Norm | None) -> Tensor:
        """(n, H) norm of hidden + row, which is in `hidden` afterwards. `after`: a norm of the row before that."""
        if self.fused and norm is not None:
            return rows.add_and_norm(hidden, row, after, norm)
        if row is not None:
            hidden += row if after is None else _normed(row, after)
        if norm is None:  # the last one, where it is not known
            out: Tensor = self._norm(hidden)
            return out
        return _normed(hidden, norm)

    def _gated(self, block: Block, gate: Tensor, up: Tensor) -> Tensor:
        """(n, I) of the network, before its last product."""
        if self.fused and type(block.activation).__name__ in SILU:
            return rows.silu_times(gate, up)
        return block.activation(gate).mul_(up)

    def _attention(
        self, block: Block, taken: Together, last: Line, row: Tensor, angles: tuple[Tensor, Tensor], static: Static,
        held: Tensor, slots: Tensor, mask: Tensor | None, count: int,
    ) -> Tensor:  # fmt: skip
        """(n, H) of what the tokens take from those before them; their keys and values are put into their places."""
        if held.shape[1] != static.n:
            held = held[:, : static.n]  # the last texts have ended
        if self.fused:
            at = static.inputs[1]
            query, key, value = taken(row)
            query = rows.turn_and_keep(query, key, value, angles, at, block.head_norms, held)
            return last(rows.attend(query, held, at, block.scaling, block.softcap))
        torch.cat(taken(row), 1, out=static.row)
        if block.head_norms is not None:
            for heads, norm in zip(static.of_heads, block.head_norms, strict=True):
                heads.copy_(_normed(heads, norm))
        cos, sin = angles
        halves = static.turned.roll(self.size // 2, 2)  # with the sign in `sin`: (-second half, first half)
        static.turned.mul_(cos).addcmul_(halves, sin)
        if static.n == 1:
            held.index_copy_(3, slots, static.new)
        else:
            held.scatter_(3, slots[:, None, None, None].expand_as(static.new), static.new)
        if not self.static:
            held = held[:, :, :, :count]
            mask = None if mask is None else mask[..., :count]
        keys, values = held.unbind(0)
        if block.softcap is None:
            out = F.scaled_dot_product_attention(static.query, keys, values, attn_mask=mask, scale=block.scaling)
        else:
            scores = (static.query @ keys.transpose(-1, -2)).float().mul_(block.scaling / block.softcap).tanh_()
            scores.mul_(block.softcap)
            if mask is not None:
                scores += mask
            out = scores.softmax(-1).to(values.dtype) @ values
        return last(out.reshape(static.n, -1))

    def _angles(self, hidden: Tensor, at: Tensor) -> dict[str | None, tuple[Tensor, Tensor]]:
        """cos and signed sin of each token's position, (n, 1, D) each, by kind of layer."""
        kinds: set[str | None] = {block.kind for block in self.blocks} if self._by_kind else {None}
        made: dict[str | None, tuple[Tensor, Tensor]] = {}
        for kind in kinds:
            cos, sin = self._rotary(hidden[None], at[None], *([kind] if self._by_kind else []))
            made[kind] = (cos[0, :, None], (sin[0] * self._sign)[:, None])
        return made

    def _mask(self, count: int, at: Tensor) -> Tensor:
        """(n, 1, 1, places) of a room: 0 where a token lies, else -inf. A full sliding room has one in each place."""
        if count not in self._counts:
            self._counts[count] = torch.arange(count, device=at.device)
        mask = torch.zeros(len(at), count, dtype=self._sign.dtype, device=at.device)
        return mask.masked_fill_(self._counts[count] > at[:, None], -torch.inf)[:, None, None]


def _key(adapter: Adapter | None) -> tuple[str, float]:
    """What a step that was bound or recorded holds for good: whose A and B, and what they are multiplied by."""
    return ("", 0.0) if adapter is None else (adapter.name, adapter.scaling)


def _changes(config: Any) -> bool:
    """Whether rotation or attention changes its rule at some position: a token near the start would not show it."""
    rope = getattr(config, "rope_parameters", None) or {}
    every = [rope, *(one for one in rope.values() if isinstance(one, dict))]
    kinds = {one.get("rope_type") for one in every}
    return bool(kinds & {"dynamic", "longrope"}) or any(one.get("llama_4_scaling_beta") for one in every)


def _normed(row: Tensor, norm: Norm) -> Tensor:
    """RMS norm of each row; in float32 where the scale is wider than the row."""
    scale, eps = norm
    if scale.dtype == row.dtype:
        return F.rms_norm(row, scale.shape, scale, eps)
    return F.rms_norm(row.float(), scale.shape, scale, eps).to(row.dtype)
