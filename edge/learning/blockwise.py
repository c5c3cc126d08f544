"""Texts through the full model, with the full weights of one block in memory at a time.

Owns: full weights in the place of 4-bit ones, the walk of all texts from block to block, each layer's second moments.
Does not know: what is made of them, how texts come about, files.
Units: tokens.

The full model is the 4-bit one with other numbers in its linear layers and experts: embeddings, norms, biases and head
are the same tensors in both. Texts go through it side by side: for each block the decoder is called with each text
anew, blocks before it give what the block before made of that text, blocks after it pass on what it makes. Everything
between the blocks is the decoder's own code. Where a block needs more of the others than what they return (keys and
values that layers share), all blocks are one group; that is found by trying, on the 4-bit weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError, no_numbers
from ..machine.allocator import trim
from ..machine.device import matmul_units
from ..machine.held import is_out_of_memory
from ..memory.conversion import NUMBERS
from ..model import patches
from ..model.base import Base
from ..model.tended import tended_blocks
from ..weights import packed
from ..weights.pieces import Original

_TRIED = 8  # tokens

_Wide = tuple[nn.Linear, Tensor]  # a layer in 4 bits, and its full weight (out, in) in the dtype that it is stored in
Seen = Callable[[str, nn.Linear, Tensor, Tensor], None]  # name, layer, full weight (out, in), mean x x^T (in, in)


def hidden_states(base: Base, text: Tensor) -> Tensor:
    """(T, H) last hidden states of (T,) token ids."""
    hidden: Tensor = base.decoder(input_ids=text[None].to(base.device.name), use_cache=False).last_hidden_state[0]
    return hidden


def groups(base: Base) -> list[list[nn.Module]]:
    """The blocks that have to be in memory together: each by itself, or all."""
    single = [[block] for block in base.blocks]
    return single if _parts(base, single) else [list(base.blocks)]


@torch.inference_mode()
def read(
    base: Base, full: Mapping[str, Original], texts: Tensor, count: int, seen: Seen,
    parts: Sequence[Sequence[nn.Module]],
) -> Tensor:  # fmt: skip
    """What the full model makes of texts.

    Args:
        base: the 4-bit model.
        full: the full weights, by the names of the parameters that they are packed of.
        texts: (N, T) token ids.
        count: the first so many of them count for the moments.
        seen: called once for each 4-bit linear layer, while its block's full weights are there.
        parts: as from `groups`.

    Returns:
        (N, T, H) last hidden states, on the CPU.

    Raises:
        ModelError: `full` lacks a weight.
    """
    within = {id(module) for block in base.blocks for module in block.modules()}
    beside = [module for module in _held(base.model) if id(module) not in within]
    walk = _Walk(base, texts)
    with _full(base, beside, full) as ends, matmul_units(base.device):
        for group in parts:
            # what lies beside the blocks meets true numbers in the last of these calls, and is counted in that
            also = ends if group is parts[-1] else {}
            with _full(base, [module for block in group for module in _held(block)], full) as weights:
                _tell(seen, weights | also, _moments(walk, group, weights | also, count))
            trim()
    return walk.last()


def _tell(seen: Seen, layers: Mapping[str, _Wide], moments: dict[str, Tensor]) -> None:
    """Hands on what is known of each layer, and forgets its moment; nothing of it outlives the call."""
    for name, (layer, weight) in layers.items():
        seen(name, layer, weight, moments.pop(name))


def _moments(walk: _Walk, group: Sequence[nn.Module], layers: Mapping[str, _Wide], count: int) -> dict[str, Tensor]:
    """Takes the texts through a group; x x^T of each layer's inputs, a token's mean over the
    first `count` texts.
    """
    found = {
        name: torch.zeros(layer.in_features, layer.in_features, device=layer.weight.device)
        for name, (layer, _) in layers.items()
    }
    tokens = count * walk.texts.shape[1]

    def see(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if walk.index < count:
                x = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
                found[name].addmm_(x.T, x, alpha=1 / tokens)

        return add

    hooks = [layer.register_forward_pre_hook(see(name)) for name, (layer, _) in layers.items()]
    try:
        walk.through(group)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def whole(base: Base, full: Mapping[str, Original], *, wide: bool) -> Iterator[None]:
    """Inside, the 4-bit model is the full one, all its weights in memory; `wide`: in the compute dtype."""
    with _full(base, _held(base.model), full, base.device.torch_dtype if wide else None):
        yield


class _Walk:
    """Texts that have come to the same block; each call of `through` takes them all through the next ones.

    Attributes:
        index: of the text that is in the decoder.
    """

    def __init__(self, base: Base, texts: Tensor) -> None:
        self.texts = texts
        self.index = 0
        self._base = base
        self._states: list[Any] = [None] * len(texts)  # what the last block returned; at the end the decoder's own
        self._made: Any = None  # what the group's last block returned, of this text

    def through(self, group: Sequence[nn.Module]) -> None:
        """Takes all texts through blocks that follow on those before."""
        ends = group[-1] is self._base.blocks[-1]
        with tended_blocks(self._base), self._skipping(group):
            for index, text in enumerate(self.texts):
                self.index = index
                self._made = None
                hidden = hidden_states(self._base, text)
                self._states[index] = hidden.cpu() if ends else self._made
        self._made = None

    def last(self) -> Tensor:
        """(N, T, H) last hidden states on the CPU, after the last block."""
        return torch.stack(self._states)

    @contextmanager
    def _skipping(self, group: Sequence[nn.Module]) -> Iterator[None]:
        """Inside, only the group's blocks compute."""

        def skipped(own: patches.Forward) -> patches.Forward:
            return lambda *args, **named: self._states[self.index] if self._made is None else self._made

        def ended(own: patches.Forward) -> patches.Forward:
            def run(*args: Any, **named: Any) -> Any:
                self._made = own(*args, **named)
                return self._made

            return run

        last = group[-1]
        put = [block for block in self._base.blocks if block is last or all(block is not own for own in group)]
        for block in put:
            patches.put(block, "walk", ended if block is last else skipped)
        try:
            yield
        finally:
            for block in put:
                patches.take(block, "walk")


@torch.inference_mode()
def _parts(base: Base, single: Sequence[Sequence[nn.Module]]) -> bool:
    """Whether the walk from block to block gives what the decoder gives at once.

    Raises:
        ModelError: the decoder gives no numbers.
    """
    text = torch.arange(1, 1 + _TRIED) % base.config.vocab_size
    walk = _Walk(base, text[None])
    with tended_blocks(base), matmul_units(base.device):
        whole = hidden_states(base, text).cpu()
        if not bool(torch.isfinite(whole).all()):
            raise no_numbers()
        try:
            for group in single:
                walk.through(group)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return False  # a block asked for what another one should have left
    return bool(torch.allclose(walk.last()[0], whole, rtol=1e-4, atol=1e-4 * float(whole.std())))


# --- full weights ---


def _held(module: nn.Module) -> list[nn.Module]:
    """What of a module is in 4 bits."""
    return [part for part in module.modules() if isinstance(part, packed.Packed) or _is_narrow(part)]


def _is_narrow(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and getattr(module.weight, "quant_state", None) is not None


@contextmanager
def _full(
    base: Base, modules: Sequence[nn.Module], full: Mapping[str, Original], dtype: torch.dtype | None = None
) -> Iterator[dict[str, _Wide]]:
    """Inside, these modules compute with their full weights; gives the linear ones by name, with those weights."""
    names = {id(module): name for name, module in base.model.named_modules()}
    found: dict[str, _Wide] = {}
    with ExitStack() as undone:
        for module in modules:
            name = names[id(module)]
            if isinstance(module, packed.Packed):
                module.full = _tensor(full, name, base.device.name)
                undone.callback(setattr, module, "full", None)
            else:
                assert isinstance(module, nn.Linear)
                weight = _tensor(full, f"{name}.weight", base.device.name)
                weight = weight if dtype is None else weight.to(dtype)
                found[name] = module, weight
                patches.put(module, "full weight", _over(module, weight))
                undone.callback(patches.take, module, "full weight")
        yield found
        found.clear()


def _over(layer: Any, weight: Tensor) -> patches.Patch:
    return lambda own: lambda x: F.linear(x, weight.to(x.dtype), layer.bias)


def _tensor(full: Mapping[str, Original], name: str, device: str) -> Tensor:
    """A full weight, read by rows where it can be."""
    if name not in full:
        raise ModelError(f"the full model has no {name}", "all weights of the 4-bit folder", "make the folder again")
    original = full[name]
    if original.rows is None:
        return original.whole().to(device)
    parts = original.blocks(NUMBERS)
    first = next(parts)
    tensor = torch.empty(original.shape, dtype=first.dtype, device=device)
    flat = tensor.view(-1)
    flat[: len(first)] = first
    done = len(first)
    for part in parts:
        flat[done : done + len(part)] = part
        done += len(part)
    return tensor
