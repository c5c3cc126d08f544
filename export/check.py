"""Parity of an exported graph with the base that it was made from: names, shapes, values.

Owns: what is compared, and how far apart it may be.
Does not know: how either side computes.
Units: logits; root mean square of the differences, relative to the standard deviation of the base's logits.

The tests hold the graphs to the torch path's own error against float64. A whole model in float64 is too much for an
export, so here the limit is a fixed share of the logits' spread: far above rounding, far below any mistake.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from edge.errors import ExportError
from edge.model.adapter import Adapter
from edge.model.base import Base
from edge.model.forward import TorchForward
from edge.settings import AdapterSettings, ComputeSettings

from .engine import Engine
from .manifest import Manifest, cache_names, lora_inputs
from .runtime import OnnxForward

LIMITS = {"fp32": 1e-3, "nf4": 1e-3, "int8": 0.25}  # int8 rounds weights and activations: a share of the spread
INT8_ALONE = (
    0.5  # of the base alone, whose logits lie closer: 0.27 measured; 0.63 and more with one layer's rows reversed
)
NARROW = 0.05
TOKENS = 48
_REMEDY = "report this model; the torch forward path is right"


def parity(base: Base, folder: Path) -> dict[str, float]:
    """Compares graph and base over a text of random tokens, with a random adapter and with none.

    Returns:
        The largest differences found.

    Raises:
        ExportError: inputs or values are not what they should be.
    """
    engine = Engine(folder, provider="cpu")
    names(engine)
    ids = torch.randint(0, base.config.vocab_size, (TOKENS,), generator=torch.Generator().manual_seed(0))
    exact = dataclasses.replace(base, device=dataclasses.replace(base.device, matmul="float32"))
    adapter = Adapter(base, AdapterSettings(rank=2, alpha=2.0))
    try:
        _shake(adapter)
        torch_side = TorchForward(exact, adapter, ComputeSettings(loss_slice=16))
        measured = {}
        for use in (True, False):
            wanted = _logits(torch_side, ids, adapter=use)
            found = _logits(OnnxForward(engine, adapter, slice_size=16), ids, adapter=use)
            gap = float((wanted - found).square().mean().sqrt() / wanted.std())
            measured["adapter" if use else "base"] = gap
            limit = _limit(base, engine.manifest, adapter=use)
            if not gap <= limit:
                raise ExportError(
                    f"the graph's logits are {gap:.2g} spreads away from the base's", f"at most {limit}", _REMEDY
                )
    finally:
        adapter.discard()
    return measured


def names(engine: Engine) -> None:
    """Whether the decoder takes what its manifest says.

    Raises:
        ExportError: it does not.
    """
    m = engine.manifest
    wanted: dict[str, list[int | None]] = {
        "embedded": [None, m.hidden], "positions": [None], "seen": [1], "total": [],
        **({"sliding.seen": [1], "sliding.total": []} if m.sliding else {}),
        **{name: [1, m.groups, None, m.head_size] for name in cache_names(m.layers, "past")},
    }  # fmt: skip
    for layer, (k, n) in m.lora.items():
        wanted |= dict(zip(lora_inputs(layer), ([k, None], [None, n]), strict=True))
    found = {i.name: [d if isinstance(d, int) else None for d in i.shape] for i in engine.decoder.get_inputs()}
    if found != wanted:
        odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))[0]
        raise ExportError(
            f"the graph's input {odd} is {found.get(odd)}", str(wanted.get(odd)), "export it again"
        )  # fmt: skip


def _limit(base: Base, manifest: Manifest, *, adapter: bool) -> float:
    """float16 attention, and a base that computes in 16 bits itself, round too."""
    narrow = manifest.cache == "float16" or base.device.torch_dtype != torch.float32
    usual = LIMITS[manifest.precision] if adapter or manifest.precision != "int8" else INT8_ALONE
    return max(usual, NARROW if narrow else 0.0)


def _logits(forward: TorchForward | OnnxForward, ids: Tensor, *, adapter: bool) -> Tensor:
    """(3, V): after a prompt, and after each of two more tokens."""
    first, cache = forward.prefill(ids[:-2], adapter=adapter)
    return torch.stack([first, *(forward.decode(int(token), cache, adapter=adapter) for token in ids[-2:])])


@torch.no_grad()
def _shake(adapter: Adapter) -> None:
    """Gives B values that matter: fresh ones are zero."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapter.named_parameters():
        if name.endswith("lora_B"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    adapter.version += 1
