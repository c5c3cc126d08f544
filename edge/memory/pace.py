"""How long a chunk takes, estimated from what is counted: to say what memory buys, and what to give up first.

Owns: typical rates, how often a chunk multiplies with each weight, the seconds.
Does not know: torch, budgets, what this machine does in truth. An estimate orders choices; no time is promised by it.
Units: seconds; FLOPs; bytes; weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..machine.device import usual_threads
from ..settings import Settings
from . import flops
from .lasting import Lasting, Machine, kept_blocks
from .shape import Shape

# Of one core, measured on the machine that `tests/measurements/speed.md` names: 512 rows times 1536 x 8960 weights in
# float32 and with bfloat16 units; NF4 to float32 with bitsandbytes; one row times float32 weights. GPUs differ more:
# those rates are the order of magnitude of a consumer card.
CORE_FLOPS = {"float32": 1.3e11, "bfloat16": 3.8e11}
CORE_UNPACKS = 4.8e8
CORE_READS = 1.3e10
GPU_FLOPS = 5e13
GPU_UNPACKS = 2e11
GPU_READS = 5e11
PACKED = 0.52  # bytes of a weight in NF4, with its scale
PAGES = 1e9  # bytes a second to a file, and back
FRESH_HEAP = 0.1  # of a lesson, for heap that is handed out again page by page: up to 0.2 were measured


@dataclass(frozen=True)
class Pace:
    """Estimated seconds of a chunk.

    Attributes:
        chunk: to score and learn it.
        token: to write one, where torch does; 0 where nothing is written, or a graph writes.
    """

    chunk: float
    token: float
    tokens: int

    @property
    def seconds(self) -> float:
        """Of a chunk that is written, then learned; of one that is read where none is written."""
        return self.chunk + self.tokens * self.token


def estimate(settings: Settings, shape: Shape, machine: Machine, *, decodes: bool, cores: int | None = None) -> Pace:
    """The pace of settings without `auto`. `cores`: as many as compute; this machine's where they are not said."""
    counted = Lasting(settings, shape, machine)
    cores = cores or settings.compute.threads or usual_threads()
    gpu = machine.kind == "cuda"
    unpacks = GPU_UNPACKS if gpu else CORE_UNPACKS * cores
    packed = 0.0 if counted.full else shape.linear_parameters * (1 - kept_blocks(settings, shape) / shape.layers)
    compute = sum(flops.per_chunk(settings, shape).values()) / (
        GPU_FLOPS if gpu else CORE_FLOPS[machine.matmul] * cores
    )
    if settings.compute.heap != "keep" and not gpu:
        compute *= 1 + FRESH_HEAP
    chunk = compute + readings(settings, shape) * packed / unpacks + _paged(counted, decodes) / PAGES
    if not decodes or settings.graph_precision:
        return Pace(chunk, 0.0, 0)
    kept = (shape.linear_parameters - packed) * counted.c + counted.embeddings()
    if gpu:  # a row is multiplied with packed weights as they are
        return Pace(chunk, (packed * PACKED + kept) / GPU_READS, settings.window.chunk)
    token = packed / unpacks + kept / (CORE_READS * cores)
    return Pace(chunk, token, settings.window.chunk)


def readings(settings: Settings, shape: Shape) -> float:
    """How often a chunk needs each weight of a block, as the mean over blocks: forward, recomputed, backward."""
    learn = settings.learn
    if learn.mode == "none":
        return 1.0
    share = flops.depth(settings, shape)
    back = share * (2 if settings.compute.checkpointing == "on" else 1)
    return learn.epochs * (1 + back) + (not settings.fuses) + (learn.prefix == "frozen")


def _paged(counted: Lasting, decodes: bool) -> int:
    """Bytes that go out or come back for a chunk."""
    settings = counted.settings
    paging = settings.compute.paging
    if settings.learn.mode == "none" or paging == "off":
        return 0
    moments = 8 * counted.parameters
    guard = 4 * counted.parameters + moments if settings.learn.can_roll_back else 0
    cache = 2 * counted.cache(settings.window.size) if decodes and paging in ("cache", "all") else 0
    return guard + cache + (2 * settings.learn.epochs * moments if paging == "all" else 0)
