"""A few rows times 4-bit weights on a GPU: the usual way or a kernel of ours, whichever is faster there.

Owns: which weights ours takes, how it is started, the choice between the two by measurement.
Does not know: blocks, texts, when a row is computed.
Units: rows (n, K) -> (n, N); seconds of the device.

The usual way is bitsandbytes' kernel, after which the adapter's product follows, or a product with a copy in the
compute dtype, four times as many bytes. Ours (`nf4_kernel.py`: one kernel for a row, one for several) do all but x A^T
at once. Which is faster depends on the GPU and the shape, so both are measured on the base's own layers of that shape,
once, in a recorded graph, as decoding has them. They need Triton, which torch's builds for CUDA bring along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import describe
from ..machine.graphs import seconds_of
from ..machine.held import out_of_memory_among
from .rows import LEAST, power

BLOCK = 64  # values with one scale
OF_SCALES = 256  # scales with one scale
ROWS = 8  # at most; more rows fill the tensor cores of an ordinary product
SAME = 0.02  # of the outputs' spread: 16 bits round the widened weights of one way, and not of the other
Lora = tuple[Tensor, Tensor, float]


class Form(NamedTuple):
    """How a kernel divides its work: outputs and blocks of 64 values a program takes at a time, and its warps."""

    tile: int
    blocks: int
    warps: int


# The fastest ones of some thirty for the shapes of a 7B model on an H200, of one row and of several
FORMS = {
    False: (Form(4, 16, 4), Form(4, 64, 4), Form(4, 32, 2)),
    True: (Form(32, 8, 4), Form(16, 16, 8), Form(16, 8, 4)),
}
_tables: dict[tuple[str, torch.dtype], Tensor] = {}


def forms(rows: int) -> tuple[Form, ...]:
    """Those that are tried for so many rows."""
    return FORMS[rows > 1]


def takes(state: Any) -> bool:
    """Whether the kernel knows weights with that quantisation state of bitsandbytes."""
    inner = getattr(state, "state2", None)
    return (
        inner is not None
        and state.quant_type == "nf4"
        and state.blocksize == BLOCK
        and inner.blocksize == OF_SCALES
        and len(state.shape) == 2
        and state.shape[1] % BLOCK == 0
    )


def product(
    x: Tensor, packed: Tensor, state: Any, bias: Tensor | None, lora: Lora | None, form: Form, low: Tensor | None = None
) -> Tensor:
    """(n, N) of rows (n, K): x W^T + bias + s (x A^T) B^T, summed up in float32.

    Args:
        packed: (N K / 2, 1) bytes.
        lora: A^T (K, r), B^T (r, N) and s.
        low: (n, r), x A^T, where it is there already.
    """
    from .nf4_kernel import nf4_row, nf4_rows

    count, width = x.shape
    outputs = int(state.shape[0])
    out = torch.empty(count, outputs, dtype=x.dtype, device=x.device)
    b = x
    scaling = 0.0
    rank = 0
    if lora is not None:
        low = torch.mm(x, lora[0]) if low is None else low
        b = lora[1].T
        scaling = lora[2]
        rank = low.shape[1]
    low = x if low is None else low
    inner = state.state2
    several = count > 1
    kernel = nf4_rows if several else nf4_row
    kernel[(-(-outputs // form.tile),)](
        x, packed, _table(state.code, x.dtype if several else torch.bfloat16), state.code, state.absmax, inner.code,
        inner.absmax, state.offset, x if bias is None else bias, low, b, out, scaling, outputs, width, count,
        low.stride(0), b.stride(0), RANK=rank, HAS_BIAS=bias is not None, TILE=form.tile, BLOCKS=form.blocks,
        RANKS=max(LEAST, power(rank)) if rank else 1, PTX=_has_ptx(x), num_warps=form.warps,
        num_stages=1,  # what is fetched ahead goes through shared memory, which costs more than it gains
    )  # fmt: skip
    return out


def _has_ptx(x: Tensor) -> bool:
    """Whether values may be unpacked as PTX does it: in 16 bits, on a GPU of NVIDIA's."""
    return x.device.type == "cuda" and x.dtype.itemsize == 2 and torch.version.hip is None


def _table(code: Tensor, dtype: torch.dtype) -> Tensor:
    """(64, 8) int32, the same for each block of a turn: low bytes of 16 codes, four in a number, and the high ones."""
    key = (str(code.device), dtype)
    if dtype.itemsize != 2:
        return code
    if key not in _tables:
        bits = code.to(dtype).view(torch.uint8).view(16, 2).T.contiguous()
        _tables[key] = bits.view(torch.int32).view(1, 8).repeat(64, 1)
    return _tables[key]


def choose(
    usual: Callable[[], Sequence[Tensor]],
    ours: Callable[[Form], Sequence[Tensor]],
    seconds: Callable[[Callable[[], object]], float] = seconds_of,
    failed: Callable[[Exception], object] = lambda error: None,
    timed: Callable[[Form | None, float], object] = lambda form, seconds: None,
) -> Form | None:
    """The fastest form of the kernel, or None where the usual way is as fast, or the kernel comes to other numbers.

    Args:
        usual, ours: the products of some layers of one shape, each way.
        seconds: what a way takes; measured on the GPU.
        failed: is told why the kernel does not run.
        timed: is told what each way took, None the usual one.
    """
    wanted = usual()
    best: Form | None = None
    least = seconds(usual)
    timed(None, least)
    for form in forms(len(wanted[0])):
        try:
            if not all(_agree(one, other) for one, other in zip(ours(form), wanted, strict=True)):
                continue
            taken = seconds(lambda form=form: ours(form))  # type: ignore[misc]
            timed(form, taken)
        except Exception as error:  # Triton or its compiler does not run here, which they say in many ways
            if (short := out_of_memory_among(error)) is not None:
                raise short from None
            failed(error)
            continue
        if taken < least:
            least = taken
            best = form
    return best


def _agree(ours: Tensor, theirs: Tensor) -> bool:
    gap = (ours.float() - theirs.float()).square().mean().sqrt()
    return bool(gap <= SAME * theirs.float().std())


class Kind(NamedTuple):
    """Layers that are computed in the same way.

    Attributes:
        outputs, inputs: N and K.
        adapter: whether they have one.
        copied: whether there is a copy of their weights in the compute dtype.
    """

    outputs: int
    inputs: int
    rows: int
    adapter: bool
    copied: bool


class Choices:
    """What was measured on a base's layers.

    Attributes:
        failure: why our kernel does not run, where it does not.
        seconds: of each kind's lines that were measured, by form; None is the usual way.
    """

    def __init__(self) -> None:
        self.failure = ""
        self.seconds: dict[Kind, dict[Form | None, float]] = {}
        self._found: dict[Kind, Form | None] = {}

    def failed(self, error: Exception) -> None:
        """Remembers why our kernel does not run."""
        self.failure = describe(error)

    def timed(self, kind: Kind, form: Form | None, seconds: float) -> None:
        """Remembers what a way took."""
        self.seconds.setdefault(kind, {})[form] = seconds

    def of(self, kind: Kind, measure: Callable[[], Form | None]) -> Form | None:
        """The form for layers of a kind, None for the usual way; measured where it is not known."""
        if kind not in self._found:
            self._found[kind] = measure()
        return self._found[kind]

    def __iter__(self) -> Iterator[tuple[Kind, Form | None]]:
        """Each kind and its form, for reports."""
        return iter(self._found.items())
