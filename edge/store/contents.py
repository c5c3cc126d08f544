"""What a model folder holds, and whether it still is what was made: by size, time and head, by every
byte where these differ.

Owns: which files decide what a model is, their list in a 4-bit folder's manifest, the checks, which were found whole
before. Does not know: torch, what the files mean, who asks.
Units: bytes; times in nanoseconds.

A 4-bit folder lists each file with its sha256, size and time. A file of that size and time is taken as it is; a
copy has other times, so it is read once, and the cache keeps that it was. Small files and the heads of
safetensors are read always.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from .. import journal
from ..errors import ModelError, StorageError, describe
from . import folders, sources

SMALL = 1 << 20
# What transformers reads where it finds it, weights aside.
READ = (
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.json", "chat_template.jinja", "vocab.json",
    "merges.txt", "vocab.txt", "processor_config.json", "preprocessor_config.json", "model.safetensors.index.json",
)  # fmt: skip
_PATTERNS = ("*.model", "*.tiktoken", "*.py", "additional_chat_templates/*.jinja")
_AGAIN = "copy it again, or make it again with templora quantize"
_REPAIR = "make the folder again with templora quantize --repair, or use adapter.start=fresh"


def record(folder: Path) -> dict[str, dict[str, Any]]:
    """The list that a manifest keeps of all files in `folder` but the manifest itself, and what is hidden.

    Raises:
        OSError: a file cannot be read.
    """
    listed = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != sources.MANIFEST and not path.name.startswith("."):
            found = path.stat()
            listed[name] = {"sha256": sources.sha256_file(path), "bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
            if path.suffix == ".safetensors":
                listed[name]["head"] = _head(path)
    return listed


def check(folder: Path, manifest: Mapping[str, Any], *, whole: bool = False, repair: bool = True) -> dict[str, str]:
    """sha256 of every file of a 4-bit folder, where they are those that the manifest lists.

    Folders that were made before manifests listed them are read whole once; their weights and repair are compared.

    Args:
        whole: read every byte, whatever is known.
        repair: whether the repair is used, and must be what was made, too.

    Raises:
        ModelError: a file is missing, another one than was made, or was added; or the manifest is damaged.
    """
    try:
        listed = _listed(folder, manifest)
        if not repair:
            listed.pop(_repair(manifest), None)
        return _compared(folder, manifest, listed, whole)
    except OSError as error:
        raise ModelError(f"{folder} cannot be read ({describe(error)})", "a whole 4-bit folder", _AGAIN) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder}/{sources.MANIFEST} is damaged ({describe(error)})", "the manifest of a 4-bit folder", _AGAIN
        ) from error


def found(folder: Path) -> dict[str, str]:
    """sha256 of what decides what a model folder is beside its weights: config, tokenizer, templates, code.

    Raises:
        ModelError: a file cannot be read.
    """
    try:
        return {name: sources.sha256_file(folder / name) for name in _deciding(folder)}
    except OSError as error:
        raise ModelError(f"{folder} cannot be read ({describe(error)})", "a readable folder", "check it") from error


def fingerprint(digests: Mapping[str, str], manifest: Mapping[str, Any]) -> str:
    """One sha256 for all files but the repair, which has its own and is not always used."""
    return journal.fingerprint({name: digest for name, digest in digests.items() if name != _repair(manifest)})


def _repair(manifest: Mapping[str, Any]) -> str:
    """Name of the repair's file; empty where there is none."""
    return str((manifest.get("repair") or {}).get("file", ""))


def _compared(folder: Path, manifest: Mapping[str, Any], listed: dict[str, Any], whole: bool) -> dict[str, str]:
    known = {} if whole else _remembered(folder)
    digests: dict[str, str] = {}
    states: dict[str, list[int]] = {}
    learned = False
    for name, entry in listed.items():
        path = folder / name
        again = _REPAIR if name == _repair(manifest) else _AGAIN
        if not path.is_file():
            raise ModelError(f"{path} is missing", "all files that templora.json lists", again)
        state = states[name] = list(sources.file_state(path))
        size, time = state[:2]
        if entry and size != entry["bytes"]:
            raise ModelError(f"{path} holds {size} bytes", f"{entry['bytes']} as it was made", again)
        if "head" in entry and _head(path) != entry["head"]:
            raise _another(path, "a head that differs", entry["head"], again)
        digest = None
        if not whole and size > SMALL:
            kept = known.get(name, [])
            digest = kept[-1] if kept[:-1] == state else entry.get("sha256") if time == entry.get("mtime_ns") else None
        learned |= digest is None and size > SMALL
        digests[name] = digest or sources.sha256_file(path)
        if entry and digests[name] != entry["sha256"]:
            raise _another(path, f"sha256 {digests[name][:12]}…", entry["sha256"], again)
    if "contents" not in manifest:
        _compare_as_before(folder, manifest, digests)
    if learned:
        _remember(folder, {name: [*states[name], digests[name]] for name in digests})
    return digests


def _listed(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's list, or the names of what an older folder holds; refuses what was added to read with it."""
    deciding = list(_deciding(folder))
    if "contents" not in manifest:
        repair = _repair(manifest)
        return {_plain(name): {} for name in (*manifest["files"], *([repair] if repair else []), *deciding)}
    listed = {_plain(name): dict(entry) for name, entry in manifest["contents"].items()}
    for name in (*manifest["files"], *deciding):
        if name not in listed:
            raise ModelError(
                f"{folder / name} was added after the folder was made", "the files that templora.json lists",
                "move it away, or make the folder again with templora quantize",
            )  # fmt: skip
    return listed


def _plain(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"a file named {name!r}")
    return name


def _deciding(folder: Path) -> Iterator[str]:
    yield from (name for name in READ if (folder / name).is_file())
    for pattern in _PATTERNS:
        yield from (path.relative_to(folder).as_posix() for path in sorted(folder.glob(pattern)) if path.is_file())


def _compare_as_before(folder: Path, manifest: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Before files were listed, a manifest held one sha256 over those of the weights, and the repair's."""
    weights = journal.fingerprint("".join(digests[name] for name in manifest["files"]))
    if weights != manifest["weights_sha256"]:
        raise _another(
            folder / manifest["files"][0], f"weights with sha256 {weights[:12]}…", manifest["weights_sha256"]
        )
    name = _repair(manifest)
    if name in digests and digests[name] != manifest["repair"]["sha256"]:
        raise _another(folder / name, f"sha256 {digests[name][:12]}…", manifest["repair"]["sha256"], _REPAIR)


def _another(path: Path, got: str, expected: str, again: str = _AGAIN) -> ModelError:
    return ModelError(f"{path} is not what was made: {got}", f"{expected[:12]}…", again)


def _head(path: Path) -> str:
    """sha256 of a safetensors file's header, which says where each tensor lies."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        return journal.fingerprint(start + file.read(min(length, 100 << 20)))


# --- what was read before ---


def _place(folder: Path) -> Path:
    return sources.cache_root() / "verified" / f"{journal.fingerprint(str(folder.resolve()))[:32]}.json"


def _remembered(folder: Path) -> dict[str, Any]:
    """State and sha256 of files that were read before; a file that changed since is not among them by its state."""
    try:
        kept = json.loads(_place(folder).read_text("utf-8"))
    except (OSError, ValueError, StorageError):
        return {}
    return {name: entry for name, entry in kept.items() if isinstance(entry, list)} if isinstance(kept, dict) else {}


def _remember(folder: Path, entries: Mapping[str, Any]) -> None:
    with suppress(StorageError):  # there is no home folder
        folders.remember(_place(folder), json.dumps(entries).encode())
