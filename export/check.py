"""Parity of an exported graph with the base that it was made from: names, shapes, values.

Owns: what is compared, and how far apart it may be.
Does not know: how either side computes.
Units: logits; root mean square of the differences, relative to the standard deviation of the base's logits; nats a
token.

The tests hold the graphs to the torch path's own error against float64. A whole model in float64 is too much for an
export, so here the limit is a fixed share of the logits' spread: far above rounding, far below any mistake. What a
graph that rounds costs is measured in nats of a text.

The base speaks first and the graph afterwards, so that they need not be in memory together.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge.errors import ExportError, no_numbers
from edge.memory.graph import rounded
from edge.model.adapter import Adapter
from edge.model.base import Base, default_bos
from edge.model.forward import TorchForward
from edge.settings import AdapterSettings, ComputeSettings, OnnxSettings

from .cache import lasting
from .engine import Engine, Reader
from .manifest import Manifest, cache_names, lora_inputs
from .rows import Array
from .runtime import adapter_arrays

ROUNDED = {"int8": 0.25, "int4": 0.5}  # they round weights and activations: a share of the spread
NATS = 0.02  # a token, that a graph which nobody named may need more than its base
WIDE = 0.01  # the same for int8 in wide blocks
EXACT = 1e-3
INT8_ALONE = (
    0.5  # of the base alone, whose logits lie closer: 0.27 measured; 0.63 and more with one layer's rows reversed
)
NARROW = 0.05
TOKENS = 48
TEXT = Path(__file__).with_name("measured.txt")
PIECE = 512  # tokens of the text that are read at a time
PIECES = 4  # 2,044 labels
_REMEDY = "report this model; the torch forward path is right"


@dataclass(frozen=True)
class Said:
    """What a base says, for a graph to be compared with.

    Attributes:
        ids: (S,) tokens of a random text.
        adapter: a random adapter's A and B, by the graph's inputs.
        logits: (3, V) with the adapter and without, after the text's start and each of its last two tokens.
        limits: how far the graph's may be from them, in spreads.
        pieces: token ids of a text, a piece at a time, and `nats` of their tokens; none where the graph does not round.
    """

    ids: Array
    adapter: dict[str, Array]
    logits: dict[str, Tensor]
    limits: dict[str, float]
    pieces: list[Array]
    nats: list[Array]


def require_numbers(base: Base) -> None:
    """Refuses a base whose graph could be compared with nothing.

    Raises:
        ModelError: its logits are no numbers.
    """
    ids = _random_ids(base)
    if not TorchForward(base, None, ComputeSettings()).prefill(ids, adapter=False)[0].isfinite().all():
        raise no_numbers()


def say(base: Base, manifest: Manifest) -> Said:
    """What the base says of a text of random tokens, with a random adapter and with none; and of `TEXT`, where the
    graph rounds.
    """
    ids = _random_ids(base)
    exact = dataclasses.replace(base, device=dataclasses.replace(base.device, matmul="float32"))
    adapter = Adapter(base, AdapterSettings(rank=2, alpha=2.0))
    try:
        _shake(adapter)
        forward = TorchForward(exact, adapter, ComputeSettings(loss_slice=16))
        logits = {name: _logits(forward, ids, adapter=name == "adapter") for name in ("adapter", "base")}
        pieces = _pieces(base) if manifest.precision in OnnxSettings.ROUNDING else []
        usual = TorchForward(base, adapter, ComputeSettings(loss_slice=64))
        nats = [usual.nll(piece, len(piece) - 1, adapter=False).numpy() for piece in pieces]
        arrays = {key: array.copy() for key, array in adapter_arrays(adapter)}
    finally:
        adapter.discard()
    limits = {name: _limit(base, manifest, adapter=name == "adapter") for name in logits}
    return Said(ids.numpy(), arrays, logits, limits, [piece.numpy() for piece in pieces], nats)


def parity(folder: Path, said: Said) -> dict[str, float]:
    """Compares the graph in `folder` with what its base said.

    Returns:
        The differences found: of the logits with the `adapter` and of the `base` alone, in spreads; `nats`: what the
        graph needs more for a token of a text than the base, where it rounds.

    Raises:
        ExportError: inputs or values are not what they should be.
    """
    engine = Engine(folder, provider="cpu")
    names(engine)
    adapter = {**engine.nothing, **{key: lasting(array, "cpu") for key, array in said.adapter.items()}}
    reader = Reader(engine)
    measured = {}
    for name, wanted in said.logits.items():
        found = _graph_logits(reader, said.ids, adapter if name == "adapter" else engine.nothing)
        gap = float((wanted - found).square().mean().sqrt() / wanted.std())
        measured[name] = gap
        if not gap <= said.limits[name]:
            raise ExportError(
                f"the graph's logits are {gap:.2g} spreads away from the base's",
                f"at most {said.limits[name]}",
                _REMEDY,
            )
    if said.pieces:
        nats = [reader.nll(piece, len(piece) - 1, engine.nothing) for piece in said.pieces]
        measured["nats"] = float((np.concatenate(nats) - np.concatenate(said.nats)).mean(dtype=np.float64))
    return measured


def names(engine: Engine) -> None:
    """Whether the decoder takes what its manifest says.

    Raises:
        ExportError: it does not.
    """
    m = engine.manifest
    wanted: dict[str, list[int | None]] = {
        "embedded": [None, m.hidden], "positions": [None], "seen": [None], "total": [],
        **({"sliding.seen": [None], "sliding.total": []} if m.sliding else {}),
        **{name: [None, m.groups, None, m.head_size] for name in cache_names(m.layers, "past")},
    }  # fmt: skip
    for layer, (k, n) in m.lora.items():
        wanted |= dict(zip(lora_inputs(layer), ([k, None], [None, n]), strict=True))
    found = {i.name: [d if isinstance(d, int) else None for d in i.shape] for i in engine.decoder.get_inputs()}
    if found != wanted:
        odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))[0]
        raise ExportError(
            f"the graph's input {odd} is {found.get(odd)}", str(wanted.get(odd)), "export it again"
        )  # fmt: skip


def _random_ids(base: Base) -> Tensor:
    return torch.randint(0, base.config.vocab_size, (TOKENS,), generator=torch.Generator().manual_seed(0))


def _limit(base: Base, manifest: Manifest, *, adapter: bool) -> float:
    """float16 attention, and a base that computes in 16 bits itself, round too."""
    narrow = manifest.cache == "float16" or base.device.torch_dtype != torch.float32
    usual = ROUNDED.get(manifest.precision, EXACT)
    if manifest.precision == "int8" and not adapter:
        usual = INT8_ALONE
    return max(usual, NARROW if narrow else 0.0)


def _pieces(base: Base) -> list[Tensor]:
    """The text in pieces of `PIECE` tokens that begin as a document does."""
    ids = base.encode(TEXT.read_text("utf-8"))
    bos = default_bos(base.tokenizer)
    first = [] if bos is None else [bos]
    body = ids[len(first) :]
    step = PIECE - len(first)
    return [torch.tensor([*first, *body[at : at + step]]) for at in range(0, len(body), step)][:PIECES]


def _logits(forward: TorchForward, ids: Tensor, *, adapter: bool) -> Tensor:
    """(3, V): after a prompt, and after each of two more tokens."""
    first, cache = forward.prefill(ids[:-2], adapter=adapter)
    return torch.stack([first, *(forward.decode(int(token), cache, adapter=adapter) for token in ids[-2:])])


def _graph_logits(reader: Reader, ids: Array, adapter: Any) -> Tensor:
    """The same of a graph."""
    buffers = reader.engine.buffers(rounded(len(ids)))
    start = len(ids) - 2
    found = [reader.extend(ids[:start], buffers, 0, adapter)]
    found += [reader.decode(int(ids[at]), buffers, at, adapter).copy() for at in range(start, len(ids))]
    return torch.from_numpy(np.stack(found))


@torch.no_grad()
def _shake(adapter: Adapter) -> None:
    """Gives B values that matter: fresh ones are zero."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapter.named_parameters():
        if name.endswith("lora_B"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    adapter.version += 1
