"""What making a 4-bit folder needs, and whether a budget holds it.

Owns: the phase `convert`: its terms, its refusal, its cap; the room that the folder takes on disk.
Does not know: torch, how a conversion is done.
Units: bytes.

One tensor is held at a time, by rows where rows can be had, of experts one: what counts is the framework, the header of
a GGUF file, of which the library keeps an object for each word, and the largest tensor that has to be had whole.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BudgetError, ModelError
from ..journal import begun_place
from ..machine import held
from ..store.sources import Source
from ..values.amounts import format_bytes
from . import gguf, shape
from .budget import Plan
from .planning import LIBRARIES, WORD, free_for_all
from .prediction import Prediction

NUMBERS = 1 << 20  # of a tensor at a time, where it comes by rows
ROWS = 60_000_000  # for those, from the file's bytes to 4 bits, and freed heap between them
_ENTRY = 800  # for each entry of a GGUF header's arrays (measured: 708 to 778), while it is read
_WHOLE = 18  # for each number of a tensor that is had whole
_WIDENED = 10.5  # for each weight of a model that is loaded whole (measured)
_REORDERED = (".attn_qkv.", ".attn_gate.", ".ssm_out.")
_PACKED = 0.5 + 1 / 64 + 4 / (64 * 256)  # of each weight in 4 bits, with its scales


def predict(source: Source, *, whole: bool = False) -> Prediction:
    """Peak bytes of the phase `convert`; `whole`: where all weights are in memory at once.

    Raises:
        ModelError: a GGUF header or a config cannot be used.
    """
    if whole:
        dims = shape.read(source)
        weights = dims.linear_parameters + dims.expert_parameters + dims.whole + dims.vocab * dims.hidden
        return Prediction(LIBRARIES, {"convert": {"full-precision weights": int(_WIDENED * weights)}})
    terms = {"rows of a tensor": ROWS}
    baseline = LIBRARIES
    found = shape.read(source)
    baseline += WORD * found.vocab
    largest = max(inputs * outputs for inputs, outputs in found.linears().values())
    terms["largest tensors"] = int(_PACKED * largest)
    if found.mixture is not None:  # a matrix in up to three copies (read, stacked, joined), and its 4 bits
        numbers = _WHOLE if source.kind == "gguf" else 3 * found.stored + 1
        one = numbers * found.mixture.matrix(found.hidden)
        terms["largest tensors"] = max(terms["largest tensors"], one)
    if source.kind == "gguf":
        header = _header(source)
        parted = [math.prod(t.dims) for name, t in header.tensors.items() if _had_whole(name, t, header)]
        terms["largest tensors"] = max(terms.get("largest tensors", 0), _WHOLE * max(parted, default=0))
        before = (
            _ENTRY * header.words - sum(terms.values()) - (baseline - LIBRARIES)
        )  # the header goes before they come
        terms["GGUF header"] = max(0, before)
    return Prediction(baseline, {"convert": terms})


def shown(plan: Plan, source: Source) -> Plan:
    """The plan with the phase `convert` before all others, where that comes first and takes the memory that is planned.

    Raises:
        BudgetError: the budget cannot hold that phase.
    """
    if source.kind != "gguf" or plan.settings.base.precision != "nf4" or plan.machine.kind != "cpu":
        return plan
    require(source, plan.settings.budget)
    phases = predict(source).phases | plan.prediction.phases
    return dataclasses.replace(plan, prediction=dataclasses.replace(plan.prediction, phases=phases))


def require(source: Source, budget: int | None, *, whole: bool = False) -> None:
    """Refuses a conversion that the budget, or free memory where there is none, cannot hold.

    Raises:
        BudgetError: naming both amounts and the largest term.
    """
    predicted = predict(source, whole=whole)
    has = budget if budget is not None else free_for_all("cpu")
    if predicted.peak() > has:
        term, size = predicted.largest_term()
        raise BudgetError(
            f"converting {source.reference} to 4 bits, once, needs {format_bytes(predicted.peak())} (largest term: "
            f"{term}, {format_bytes(size)})",
            f"no more than the {format_bytes(has)} {'budget' if budget is not None else 'free'}",
            f"convert it first, without the budget: templora quantize {source.reference} FOLDER, then --model FOLDER",
        )


@contextmanager
def capped(budget: int | None, doing: str = "converting to 4 bits") -> Iterator[None]:
    """Inside the block an allocation beyond the budget fails, and is said to be that.

    `doing`: what takes it, in words.

    Raises:
        BudgetError: one did.
    """
    if budget is None:
        yield
        return
    try:
        with held.capped_process(budget):
            yield
    except Exception as error:
        if not held.is_out_of_memory(error):
            raise
        raise BudgetError(
            f"{doing} took more than was predicted", f"no more than {format_bytes(budget)}",
            "a larger budget, or convert it first without one: templora quantize MODEL FOLDER",
        ) from error  # fmt: skip


def disk_bytes(source: Source, out: Path) -> int:
    """Room that the folder `out` still needs, beside what a killed process left of it."""
    there = sum(file.stat().st_size for file in begun_place(out).rglob("*") if file.is_file())
    found = shape.read(source)
    matrices = found.vocab * found.hidden * (1 if found.tied else 2)
    narrow = found.linear_parameters
    wide = matrices + found.whole
    if found.mixture is not None and found.mixture.held:
        narrow += found.expert_parameters
    else:
        wide += found.expert_parameters
    return max(0, int(_PACKED * narrow) + found.stored * wide - there)


def _header(source: Source) -> gguf.Header:
    try:
        with source.path.open("rb") as file:
            return gguf.read(file)
    except (OSError, ValueError, KeyError, struct.error, MemoryError) as error:
        raise ModelError(f"{source.path} has no usable header", "a GGUF file", "download it again") from error


def _had_whole(name: str, tensor: gguf.Place, header: gguf.Header) -> bool:
    """Whether its rows change their places: queries and keys of Llama files, values of Qwen3.5's linear attention.
    Experts are had one by one."""
    kind = str(header.values.get("general.architecture"))
    rotary = kind == "llama" and (".attn_q." in name or ".attn_k." in name)
    reordered = kind.startswith("qwen35") and any(part in name for part in _REORDERED)
    return rotary or reordered or (len(tensor.dims) > 2 and "_exps." not in name)
