"""The manifest: what a run is, and in what another one differs from it.

Owns: the manifest's fields, schema version, file and comparison.
Does not know: what is fingerprinted, or how; locks.
Units: fingerprints are sha256 in hex; `created` is UTC in ISO 8601, for people only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import JournalError
from . import disk

SCHEMA = 1
FORMAT = "templora-run"
NAME = "manifest.json"
VERSION = "version of "  # how a difference of versions begins
COMMANDS = ("score", "write", "translate", "eval")


@dataclass(frozen=True)
class Manifest:
    """What a run is.

    Attributes:
        command: score, write, translate or eval.
        fingerprints: name (text, settings, base, template, glossary, ...) -> `fingerprint` of it.
        versions: name of a program or library -> its version.
        settings: the settings as plain values; shown when the fingerprint `settings` differs, never compared itself.
        extra: whatever else the caller wants back; `total` (int) is how far the run will go, in `RunInfo.position`s;
            `words` holds of some fingerprints what they are of, to say in which part two differ.
        created: when the run was made, for display; `Journal.create` fills it in.
        forced: every difference that a forced resume went over, in order.
    """

    command: str
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    forced: tuple[str, ...] = ()

    def differences(self, other: Manifest) -> list[str]:
        """What `other` has that differs, one phrase each; empty where a run may continue under `other`."""
        found = [] if self.command == other.command else [f"command {self.command} -> {other.command}"]
        for name in sorted({*self.fingerprints, *other.fingerprints}):
            mine = self.fingerprints.get(name)
            theirs = other.fingerprints.get(name)
            if mine == theirs:
                continue
            words = (self.settings, other.settings) if name == "settings" else (self._words(name), other._words(name))
            details = list(_changes(*words)) if all(words) else []
            found += [f"{name} {detail}" for detail in details] or [f"{name} {_short(mine)} -> {_short(theirs)}"]
        return found + [f"{VERSION}{change}" for change in _changes(self.versions, other.versions)]

    def _words(self, name: str) -> Mapping[str, Any]:
        """What is kept of the text that a fingerprint is of; empty where nothing is."""
        kept = self.extra.get("words")
        words = kept.get(name) if isinstance(kept, Mapping) else None
        return words if isinstance(words, Mapping) else {}


def save(root: Path, manifest: Manifest) -> None:
    """Writes the manifest into the run folder, atomically.

    Raises:
        JournalError: a field is not of its type, or no JSON value.
        StorageError: it cannot be written.
    """
    check(manifest)
    fields = {f.name: getattr(manifest, f.name) for f in dataclasses.fields(manifest)}
    data = {"format": FORMAT, "schema": SCHEMA, **fields}
    disk.atomic_write(disk.inside(root, root / NAME), disk.seal(data, indent=2))


def load(root: Path) -> Manifest:
    """The manifest of a run folder.

    Raises:
        JournalError: there is none, it is damaged, or a newer version wrote it.
        StorageError: it cannot be read.
    """
    path = root / NAME
    try:
        data = disk.read_sealed(path)
    except FileNotFoundError:
        raise JournalError(
            f"{root} holds no run", f"a folder with {NAME}", "check the path, see templora runs"
        ) from None
    if data.pop("format", None) != FORMAT:
        raise JournalError(f"{path} is of another program", "a run's manifest", "name another folder")
    schema = data.pop("schema", None)
    if schema != SCHEMA:
        raise JournalError(f"{path} has schema {schema!r}", f"schema {SCHEMA}", "use the version that made the run")
    names = {f.name for f in dataclasses.fields(Manifest)}
    if set(data) != names or not isinstance(data["forced"], list):
        raise JournalError(f"{path} lacks fields or has unknown ones", ", ".join(sorted(names)), "start a new run")
    manifest = Manifest(**{**data, "forced": tuple(data["forced"])})
    check(manifest, str(path))
    return manifest


def check(manifest: Manifest, where: str = "the manifest") -> None:
    """Checks the type of every field.

    Raises:
        JournalError: one is not of its type.
    """

    def require(good: bool, name: str, expected: str) -> None:
        if not good:
            raise JournalError(f"{where} has {name} {getattr(manifest, name)!r:.200}", expected, "correct it")

    require(manifest.command in COMMANDS, "command", "one of " + ", ".join(COMMANDS))
    require(isinstance(manifest.created, str), "created", "text")
    require(all(isinstance(item, str) for item in manifest.forced), "forced", "a list of texts")
    for name in ("fingerprints", "versions"):
        value = getattr(manifest, name)
        texts = isinstance(value, Mapping) and all(isinstance(v, str) for item in value.items() for v in item)
        require(texts, name, "text for each name")
    for name in ("settings", "extra"):
        require(isinstance(getattr(manifest, name), Mapping), name, "a mapping")


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """'learn.lr 0.0002 -> 0.0001' for each key whose values differ."""
    for key in sorted({*old, *new}, key=str):
        mine = old.get(key, "(none)")
        theirs = new.get(key, "(none)")
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            yield from _changes(mine, theirs, f"{prefix}{key}.")
        elif disk.canonical(mine) != disk.canonical(theirs):
            yield f"{prefix}{key} {' -> '.join(_pair(mine, theirs))}"


def _pair(mine: Any, theirs: Any) -> tuple[str, str]:
    """Both as short texts; of long ones the part from where they differ."""
    first, second = (value if isinstance(value, str) else disk.canonical(value) for value in (mine, theirs))
    both = min(len(first), len(second))
    same = next((at for at in range(both) if first[at] != second[at]), both)
    start = max(0, same - 20) if max(len(first), len(second)) > 80 else 0
    return _word(first, start), _word(second, start)


def _word(text: str, start: int) -> str:
    begin = "..." if start else ""
    return begin + (text[start:] if len(text) - start <= 80 else text[start : start + 77] + "...")


def _short(value: str | None) -> str:
    return "(none)" if value is None else value[:12]
