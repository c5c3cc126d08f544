"""What an export folder holds, and whether it is whole and of this base.

Owns: the folder's layout, its manifest, the checks that need no model.
Does not know: graphs, runtimes.
Units: bytes.

    templora-onnx.json   this manifest: format, base fingerprint, opset, LoRA inputs and their shapes, versions, sha256
    decoder.onnx         rows of the embedding -> hidden states
    head.onnx            hidden states -> logits and nats
    weights.data         the weights of both, and the embedding
    config.json, tokenizer files
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge import journal
from edge.errors import ExportError, describe
from edge.memory.graph import PART
from edge.store import sources

from .rows import Place

FORMAT = sources.EXPORT_FORMAT
MANIFEST = sources.EXPORT
SEAL = "sha256"  # of all other values: a place that was changed would give other rows, and no error
DECODER = "decoder.onnx"
HEAD = "head.onnx"
WEIGHTS = "weights.data"
_AGAIN = "export it again with templora export"
_TEXTS = ("base", "precision", "device", "cache", "source")
_NUMBERS = ("opset", "layers", "groups", "head_size", "hidden", "vocab", "window")


@dataclass(frozen=True)
class Manifest:
    """What a runtime must know of an export folder.

    Attributes:
        base: fingerprint of the base (`Base.fingerprint`).
        source: sha256 of the GGUF file that the base came from, or empty.
        precision: nf4, fp32 or int8.
        device: what it was exported for, cpu or cuda.
        layers, groups, head_size: the cache's dimensions.
        cache: type of its numbers, float32 or float16.
        window, sliding: tokens that some layers see at most, themselves included, and which these are.
        embedding, head: where the vocabulary's matrices lie; one place where they are one.
        lora: (inputs, outputs) of each layer that takes A and B.
        files: bytes and sha256 of every file.
        parity: what `check.py` measured.
    """

    base: str
    precision: str
    device: str
    opset: int
    layers: int
    groups: int
    head_size: int
    hidden: int
    vocab: int
    cache: str
    window: int
    sliding: list[int]
    embedding: Place
    head: Place
    lora: dict[str, tuple[int, int]]
    files: dict[str, tuple[int, str]]
    versions: dict[str, str]
    parity: dict[str, float]
    source: str = ""
    format: int = FORMAT

    @property
    def widened(self) -> int:
        """Bytes of the largest weight in float32, where ONNX Runtime widens weights at each use; else 0."""
        return max(4 * k * n for k, n in self.lora.values()) if self.precision == "nf4" else 0

    def save(self, folder: Path) -> None:
        """Writes it with its own sha256; last of all, so that a folder without it is not an export."""
        values = asdict(self)
        sealed = {**values, SEAL: journal.fingerprint(values)}
        (folder / MANIFEST).write_text(json.dumps(sealed, indent=1) + "\n", encoding="utf-8")


def lora_inputs(name: str) -> tuple[str, str]:
    """Names of the inputs that hold a layer's A and B."""
    return f"{name}.lora_a", f"{name}.lora_b"


def head_parts(vocab: int) -> list[tuple[str, int, int]]:
    """Names of the vocabulary's parts, and the rows [start, end) of each."""
    return [(f"head.{start}", start, min(start + PART, vocab)) for start in range(0, vocab, PART)]


def part_outputs(index: int) -> tuple[str, str]:
    """Names of the head's outputs for one part of the vocabulary: logits or normalisers, and the label's own logit."""
    return f"part.{index}", f"own.{index}"


def cache_names(layers: int, side: str) -> list[str]:
    """Names of the cache's inputs (`past`) or outputs (`present`), keys and values of each layer in turn."""
    return [f"{side}.{index}.{kind}" for index in range(layers) for kind in ("key", "value")]


def read(folder: Path) -> Manifest:
    """The manifest of an export folder.

    Raises:
        ExportError: there is none, or it is damaged or of another version.
    """
    path = folder / MANIFEST
    try:
        values: dict[str, Any] = json.loads(path.read_text("utf-8"))
        found = values["format"]
        if found != FORMAT:
            raise ExportError(f"{folder} is an export of version {found}", f"version {FORMAT}", _AGAIN)
        seal = values.pop(SEAL)
        if seal != journal.fingerprint(values):
            raise ExportError(f"{path} was changed", "the manifest that was exported (sha256)", _AGAIN)
        for kind, names in ((str, _TEXTS), (int, _NUMBERS)):
            if strange := [name for name in names if type(values[name]) is not kind]:
                raise TypeError(f"{strange[0]} is {type(values[strange[0]]).__name__}")
        values["lora"] = {name: (int(k), int(n)) for name, (k, n) in values["lora"].items()}
        values["files"] = {name: (int(size), str(digest)) for name, (size, digest) in values["files"].items()}
        values["sliding"] = [int(index) for index in values["sliding"]]
        for matrix in ("embedding", "head"):
            values[matrix] = Place(**{name: int(number) for name, number in values[matrix].items()})
        return Manifest(**values)
    except FileNotFoundError as error:
        raise ExportError(f"there is no {MANIFEST} in {folder}", "a folder made by templora export", _AGAIN) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ExportError(f"{path} is damaged ({describe(error)})", "the manifest of an export", _AGAIN) from error


def verify(folder: Path, manifest: Manifest) -> None:
    """Reads every file once, and checks that the vocabulary's matrices lie inside theirs.

    Raises:
        ExportError: one is missing, cut short, or not what was written.
    """
    _require_places(folder, manifest)
    for name, (size, digest) in manifest.files.items():
        path = folder / name
        try:
            if Path(name).name != name or not path.is_file():
                raise ExportError(f"{path} is missing", "a whole export folder", _AGAIN)
            if path.stat().st_size != size:
                raise ExportError(f"{path} holds {path.stat().st_size} bytes", f"{size} bytes", _AGAIN)
            if journal.file_fingerprint(path) != digest:
                raise ExportError(f"{path} is damaged", "the bytes that were exported (sha256)", _AGAIN)
        except OSError as error:
            raise ExportError(f"{path} cannot be read ({describe(error)})", "a file of the export", _AGAIN) from error


def _require_places(folder: Path, manifest: Manifest) -> None:
    """Matrices of the vocabulary's size, at numbers' edges, inside the data, and apart where they are not one."""
    end = manifest.files.get(WEIGHTS, (0, ""))[0]
    taken: set[tuple[int, int]] = set()
    for name in ("embedding", "head"):
        place: Place = getattr(manifest, name)
        spans = place.spans() if place.block >= 0 else []
        fits = (place.rows, place.columns) == (manifest.vocab, manifest.hidden)
        inside = bool(spans) and all(0 <= start < stop <= end for start, stop in spans)
        even = place.scales % 4 == 0 and (place.block or place.offset % 4 == 0)
        apart = all(span in taken or all(span[1] <= a or b <= span[0] for a, b in taken) for span in spans)
        if not (fits and inside and even and apart):
            raise ExportError(
                f"{folder / MANIFEST} places the {name} at {place}", f"a matrix inside {WEIGHTS}, {end} bytes", _AGAIN
            )
        taken.update(spans)


def require_base(folder: Path, manifest: Manifest, fingerprint: str) -> None:
    """Refuses a graph of another base.

    Raises:
        ExportError: the fingerprints differ.
    """
    if manifest.base != fingerprint:
        raise ExportError(
            f"{folder} was exported from another base ({manifest.base[:12]})", f"base {fingerprint[:12]}", _AGAIN
        )
