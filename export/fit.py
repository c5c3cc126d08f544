"""Whether an export's graphs are the ones that its manifest speaks of: a manifest and a graph may each be sound alone.

Owns: what inputs and outputs a manifest asks for.
Does not know: sessions beyond the names and shapes that they tell, files, runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.errors import ExportError
from edge.memory.graph import PART

from .manifest import DECODER, HEAD, MANIFEST, Manifest, cache_names, head_parts, lora_inputs, part_outputs

_KINDS = {"float32": "tensor(float)", "float16": "tensor(float16)"}
Shape = tuple[int | None, ...]  # None: any number
Shapes = dict[str, Shape]  # by name


def require(folder: Path, manifest: Manifest, decoder: Any, head: Any) -> None:
    """Refuses graphs that take or give other arrays than the manifest says.

    Args:
        decoder, head: the opened sessions.

    Raises:
        ExportError: naming the first array that differs.
    """
    _count(folder, "layers", manifest.layers, len(decoder.get_inputs()) // 2)  # keys and values of each
    _count(folder, "vocab", manifest.vocab, PART * len(head.get_outputs()))
    caches: Shape = (1, manifest.groups, None, manifest.head_size)
    states: Shape = (None, manifest.hidden)
    lora: Shapes = {}
    for layer, (k, n) in manifest.lora.items():
        a, b = lora_inputs(layer)
        lora |= {a: (k, None), b: (None, n)}
    rest: Shapes = {"embedded": states, "positions": (None,), "seen": (1,), "total": ()}
    if manifest.sliding:
        rest |= {"sliding.seen": (1,), "sliding.total": ()}
    past, present = (dict.fromkeys(cache_names(manifest.layers, side), caches) for side in ("past", "present"))
    parts: Shapes = {}
    for index in range(len(head_parts(manifest.vocab))):
        logits, own = part_outputs(index)
        parts |= {logits: (None, None), own: (None,)}
    given: Shapes = {"hidden": states, "labels": (None,), "scoring": ()}
    _compare(folder / DECODER, decoder.get_inputs(), rest | past | lora, manifest)
    _compare(folder / DECODER, decoder.get_outputs(), {"hidden": states} | present, manifest)
    _compare(folder / HEAD, head.get_inputs(), given, manifest)
    _compare(folder / HEAD, head.get_outputs(), parts, manifest)


def _count(folder: Path, name: str, got: int, most: int) -> None:
    """Refuses a number of things that the graphs cannot have, before names of so many are made."""
    if not 0 <= got <= most:
        raise ExportError(
            f"{folder / MANIFEST} says {name}={got:.6g}",
            f"at most {most}, as the graphs have",
            "export it again with templora export",
        )


def _compare(path: Path, arrays: Any, wanted: Shapes, manifest: Manifest) -> None:
    found = {array.name: array for array in arrays}
    for name in {**wanted, **found}:
        shape = wanted.get(name)
        array = found.get(name)
        if shape is None or array is None or not _fits(array.shape, shape):
            got = f"{path} has no {name}" if array is None else f"{path} has {name:.80} {array.shape}"
            raise ExportError(got, f"what {MANIFEST} says of it", "export it again with templora export")
        kind = _KINDS.get(manifest.cache)
        if name.startswith(("past.", "present.")) and array.type != kind:
            got = f"{path} keeps {name} in {array.type}"
            raise ExportError(got, f"{manifest.cache:.40}", "export it again with templora export")


def _fits(found: Any, wanted: Shape) -> bool:
    """A dimension without a number, or one that the manifest leaves open, fits any."""
    if len(found) != len(wanted):
        return False
    return all(w is None or not isinstance(f, int) or f == w for f, w in zip(found, wanted, strict=True))
