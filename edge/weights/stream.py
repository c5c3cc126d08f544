"""The weights of a 4-bit folder, written tensor by tensor, and gone on with after a stop.

Owns: which tensors become 4 bits, their files, the record of what is done.
Does not know: where the tensors come from, the folder's other files.
Units: bytes; numbers of a tensor at a time.

Each file is what the library's own writer makes of the same tensors, byte for byte, but no tensor waits for another one
in memory. All lengths are known before but those of the JSON that bitsandbytes keeps with each weight. It lies among
the uint8 tensors at a file's end, so tensors are written in the order in which their parts lie there. A record for each
finished tensor holds the sha256 of its bytes: what a killed process left is read once and kept as far as it is what was
recorded.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor

from ..errors import ModelError, no_numbers
from ..journal import lines
from ..machine.allocator import trim
from ..memory.conversion import NUMBERS
from . import checkpoint, packed, packing, tensorfile
from .originals import Originals
from .pieces import Original
from .tensorfile import Kind

MAX_SHARD = 2 << 30
Report = Callable[[int, int], None]  # bytes that are written, of all


def silent(done: int, total: int) -> None:
    """A `Report` that nobody reads."""


@dataclass(frozen=True)
class Target:
    """A tensor of the model, and what it becomes, in the order of the state dict.

    `form`: it stays as it is, or becomes 4 bits as a linear layer's weight or as experts.
    """

    name: str
    original: Original
    form: Literal["plain", "linear", "experts"]
    kinds: dict[str, Kind]


class Shard:
    """A file of the folder: its targets, and what is known of its tensors so far."""

    def __init__(self, name: str, groups: list[list[Target]]) -> None:
        self.name = name
        self.kinds = {part: kind for group in groups for part, kind in _parts(group).items()}
        self.start = len(tensorfile.head(self.kinds))  # of the data, where all lengths are the likely ones
        place = {part: index for index, part in enumerate(tensorfile.in_order(self.kinds))}
        late = {part for part, (dtype, _) in self.kinds.items() if dtype in (torch.uint8, torch.bool)}
        self.targets = sorted(
            (target for group in groups for target in group),
            key=lambda target: min((place[part] for part in target.kinds if part in late), default=-1),
        )

    def places(self, target: Target) -> list[tuple[str, int, int]]:
        """Name, offset in the file and length of each part of a target, all targets before it being done."""
        begins = tensorfile.offsets(self.kinds)
        return [(part, self.start + begins[part], tensorfile.size(self.kinds[part])) for part in target.kinds]


def plan(originals: Originals) -> list[Shard]:
    """The files, in order; a module's tensors are not parted."""
    linears = checkpoint.linear_names(originals.model)
    experts = packed.parameters(originals.model)
    state = originals.model.state_dict()
    groups: dict[str, list[Target]] = {}
    for name, original in originals.tensors.items():
        module, _, leaf = name.rpartition(".")
        shape = tuple(state[name].shape)
        if name in experts:
            kinds = {f"{name}.{part}": kind for part, kind in packed.kinds(shape).items()}
            target = Target(name, original, "experts", kinds)
        elif leaf == "weight" and module in linears:
            kinds = {name + part: kind for part, kind in packing.kinds(shape).items()}
            target = Target(name, original, "linear", kinds)
        else:
            target = Target(name, original, "plain", {name: (state[name].dtype, shape)})
        groups.setdefault(module, []).append(target)
    shards: list[list[list[Target]]] = [[]]
    full = 0
    for group in groups.values():
        needed = sum(tensorfile.size(kind) for kind in _parts(group).values())
        if shards[-1] and full + needed > MAX_SHARD:
            shards.append([])
            full = 0
        shards[-1].append(group)
        full += needed
    ends = [f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else "" for number in range(1, len(shards) + 1)]
    return [Shard(f"model{end}.safetensors", groups) for end, groups in zip(ends, shards, strict=True)]


def _parts(group: list[Target]) -> dict[str, Kind]:
    """A module's tensors in the order of its state dict: its own, then what belongs to a packed weight."""
    own = {target.name: target.kinds[target.name] for target in group if target.form != "experts"}
    return own | {part: kind for target in group for part, kind in target.kinds.items()}


def kept_dtype(originals: Originals) -> torch.dtype:
    """The type of the first tensor that does not become 4 bits, as a quantised model's config names it."""
    narrow = checkpoint.linear_names(originals.model) | packed.parameters(originals.model)
    kept: Iterator[torch.dtype] = (
        t.dtype for name, t in originals.model.named_parameters() if name.removesuffix(".weight") not in narrow
    )
    return next(dtype for dtype in kept if dtype.is_floating_point)


def total(shards: list[Shard]) -> int:
    """Bytes that the files will take, to within a few."""
    return sum(shard.start + sum(map(tensorfile.size, shard.kinds.values())) for shard in shards)


def write(folder: Path, shards: list[Shard], record: Path, key: str, device: str, report: Report) -> None:
    """Writes the files into `folder`, from where an earlier try with the same key and record stopped.

    Args:
        record: the file that keeps what is done.
        key: says what the tensors are; a record of another key, and what it is of, is not gone on with.
        device: where weights are quantised.
        report: gets the bytes that are written so far, and those of all.

    Raises:
        ModelError: a tensor is not what its file's header says, or holds what is no number.
        OSError: a file cannot be written.
    """
    full = total(shards)
    done = 0
    with Done(record, key, folder, shards) as record_of:
        for shard in shards:
            path = folder / shard.name
            with path.open("r+b" if path.exists() else "w+b", buffering=0) as file:
                for target in shard.targets:
                    if not record_of.is_done(file, shard, target):
                        record_of.add(shard, target, _write(file, shard, target, device))
                        trim()
                    done += sum(length for _, _, length in shard.places(target))
                    report(min(done, full), full)
                _finish(file, path, shard)


def numbers(name: str, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """The blocks of a tensor, as long as they hold numbers: 4 bits have no sign for anything else.

    Raises:
        ModelError: one holds nan or an infinity.
    """
    for block in blocks:
        if block.is_floating_point() and block.numel():
            least, most = torch.aminmax(block if block.element_size() > 1 else block.float())
            if not (math.isfinite(least) and math.isfinite(most)):
                raise no_numbers(f"the tensor {name} holds what is no number", "finite weights")
        yield block


def _write(file: BinaryIO, shard: Shard, target: Target, device: str) -> str:
    """Writes a target's bytes to their places; returns their sha256."""
    if target.form == "experts":
        return _write_experts(file, shard, target)
    digest = hashlib.sha256()
    if target.form == "linear":
        shape = target.original.shape
        parts = packing.pack(numbers(target.name, target.original.blocks(NUMBERS, packing.BLOCK)), shape, device)
        for part, tensor in parts.items():
            shard.kinds[target.name + part] = tensor.dtype, tuple(tensor.shape)
        for name, begin, length in shard.places(target):
            _put(file, begin, length, iter([parts[name.removeprefix(target.name)]]), digest)
    else:
        ((_, begin, length),) = shard.places(target)
        _put(file, begin, length, numbers(target.name, target.original.blocks(NUMBERS)), digest)
    return digest.hexdigest()


def _write_experts(file: BinaryIO, shard: Shard, target: Target) -> str:
    """One expert after the other, each part of it in its row; always quantised on the CPU, as `packed` says."""
    experts, *shape = target.original.shape
    places = shard.places(target)
    for index in range(experts):
        blocks = numbers(target.name, target.original.row(index).blocks(NUMBERS, packing.BLOCK))
        parts = packed.quantised(blocks, tuple(shape))
        for name, begin, length in places:
            part = name.rpartition(".")[2]
            row = length if part in packed.SHARED else length // experts
            at = begin if part in packed.SHARED else begin + index * row
            _put(file, at, row, iter([parts[part]]))
    return _digest(file, places)


def _digest(file: BinaryIO, places: list[tuple[str, int, int]]) -> str:
    """The sha256 of what lies there."""
    digest = hashlib.sha256()
    for _, begin, count in places:
        for start in range(begin, begin + count, 1 << 22):
            digest.update(os.pread(file.fileno(), min(1 << 22, begin + count - start), start))
    return digest.hexdigest()


def _put(file: BinaryIO, begin: int, length: int, blocks: Iterator[Tensor], digest: Any = None) -> None:
    at = begin
    for block in blocks:
        if not block.numel():
            continue
        data = memoryview(block.contiguous().view(-1).view(torch.uint8).numpy().data)
        if digest is not None:
            digest.update(data)
        while data:
            count = os.pwrite(file.fileno(), data, at)
            data = data[count:]
            at = at + count
    if at != begin + length:
        raise ModelError(f"a tensor has {at - begin} bytes", f"{length} as its config says", "check the model's files")


def _finish(file: BinaryIO, path: Path, shard: Shard) -> None:
    """Puts the header before the data; moves the data where the header is longer or shorter than was likely."""
    head = tensorfile.head(shard.kinds)
    length = sum(map(tensorfile.size, shard.kinds.values()))
    if len(head) == shard.start:
        os.pwrite(file.fileno(), head, 0)
        os.ftruncate(file.fileno(), shard.start + length)
        return
    moved = path.with_name(path.name + ".moved")
    with moved.open("wb") as out:
        out.write(head)
        file.seek(shard.start)
        shutil.copyfileobj(file, out, 1 << 20)
        out.truncate(len(head) + length)
    moved.replace(path)


class Done:
    """What an earlier try has done, in order, and what this one adds."""

    def __init__(self, path: Path, key: str, folder: Path, shards: list[Shard]) -> None:
        self._left = (
            [line.record for line in lines.scan(path) if isinstance(line, lines.Line)] if path.is_file() else []
        )
        kept = bool(self._left) and self._left.pop(0).get("key") == key
        names = {path.name, *(shard.name for shard in shards if kept)}
        for other in folder.iterdir():
            if other.name not in names:  # of another model, or made anew at each try
                shutil.rmtree(other) if other.is_dir() and not other.is_symlink() else other.unlink()
        if not kept:
            self._left = []
        self._path = path
        self._crc = 0
        self._seq = 0
        self._file: Any = None
        self._key = key

    def __enter__(self) -> Done:
        # written anew as far as it is true; it takes the old one's place when something is added
        self._file = self._anew().open("wb", buffering=0)
        self._append({"key": self._key})
        return self

    def __exit__(self, *args: object) -> None:
        self._file.close()

    def _anew(self) -> Path:
        return self._path.with_name(f"{self._path.name}.new")

    def is_done(self, file: BinaryIO, shard: Shard, target: Target) -> bool:
        """Whether the next record is this target's, and its bytes are there as they were written."""
        record = self._left.pop(0) if self._left else {}
        if (record.get("file"), record.get("tensor")) != (shard.name, target.name):
            self._left = []
            return False
        state = target.name + packing.STATE
        length = record.get("state")
        likely = shard.kinds.get(state)
        if likely is not None and isinstance(length, int):
            shard.kinds[state] = torch.uint8, (length,)
        if _digest(file, shard.places(target)) == record.get("sha256"):
            self._append(record)
            return True
        if likely is not None:
            shard.kinds[state] = likely
        self._left = []
        return False

    def add(self, shard: Shard, target: Target, digest: str) -> None:
        """Says that a target's bytes are all written."""
        if self._anew().exists():
            self._anew().replace(self._path)
        state = shard.kinds[target.name + packing.STATE][1][0] if target.form == "linear" else None
        self._append({"file": shard.name, "tensor": target.name, "state": state, "sha256": digest})

    def _append(self, record: dict[str, Any]) -> None:
        self._seq += 1
        line, self._crc = lines.encode(self._seq, record, self._crc)
        self._file.write(line)
