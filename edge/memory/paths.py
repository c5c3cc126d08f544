"""Which forward path writes, where nobody says: a graph on ONNX Runtime, or torch.

Owns: whether a graph pays for this model on this machine, and what making one costs.
Does not know: torch, ONNX Runtime (only whether it is installed), how a graph is made, budgets.
Units: bytes, seconds.
"""

from __future__ import annotations

import dataclasses
from importlib import metadata, util

from ..settings import Settings
from .graph import GraphTerms
from .lasting import Machine
from .shape import KNOWN, Shape

PAYS = 50_000_000  # weights in blocks from which decoding waits for memory, not for Python
SECONDS = 1e-7  # for a weight, roughly: 65 s were measured for writing 2 billion, and 2,000 tokens are read twice
LIBRARIES = ("onnx", "onnxruntime")


def pays(settings: Settings, shape: Shape, machine: Machine) -> bool:
    """Whether a graph may write in torch's place: on a CPU, a 4-bit base of a known architecture, in float32.

    How fast graphs decode: `tests/measurements/speed.md`, and beside torch `export/README.md`.
    """
    fits = machine.kind == "cpu" and machine.compute == 4 and settings.base.precision == "nf4"
    known = shape.architecture in KNOWN and shape.mixture is None
    return fits and known and shape.linear_parameters >= PAYS and installed()


def installed() -> bool:
    """Whether a graph can be made and run."""
    found = metadata.entry_points(group="templora.forwards", name="onnx")
    return bool(list(found)) and all(util.find_spec(name) is not None for name in LIBRARIES)


def mixed(settings: Settings) -> Settings:
    """The same settings with a graph that writes."""
    return dataclasses.replace(settings, forward="mixed")


def cost(settings: Settings, shape: Shape) -> tuple[int, float]:
    """Bytes on the disk and seconds of making the graph that writes."""
    weights = GraphTerms(settings, shape).file()
    numbers = shape.linear_parameters + shape.vocab * shape.hidden * (1 if shape.tied else 2)
    return weights, SECONDS * numbers
