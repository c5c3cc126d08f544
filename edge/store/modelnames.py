"""The names that transformers finds in its models' files when it is imported, kept from one process to the next.

Owns: where they are kept, when they still hold, how transformers is given them.
Does not know: what the names stand for.

It reads 1,600 files for them, half a second, and all of them again where `transformers.models` is imported. What a
package manager has installed stays as it is until that writes the package's RECORD again, or somebody puts a model's
folder among the others. Without a RECORD (an installation that is worked on) the files are read, once a process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import journal
from ..errors import StorageError, TemploraError
from . import folders

FORMAT = 1
SCANNER = "transformers.utils.import_utils"
Names = dict[frozenset[str], dict[str, set[str]]]  # what is needed -> module below `models` -> its names


def keep() -> None:
    """From here on transformers is imported with the kept names; nothing where it is imported already."""
    if "transformers" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds one module, once: the one that looks through the files."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if name != SCANNER:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def execute(module: ModuleType) -> None:
                run(module)
                _hand(module)

            spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec


def _hand(module: ModuleType) -> None:
    """Answers what `module` would look for below `models`: three times, for the package, for `models`, and for a second
    copy of the package, from which processors check their classes.
    """
    scan = getattr(module, "define_import_structure", None)
    if scan is None or module.__file__ is None:
        return
    models = Path(module.__file__).parents[1] / "models"
    found: list[Names] = []

    def define(path: Any, prefix: str | None = None) -> Names:
        if Path(path) not in (models, models / "__init__.py"):
            return dict(scan(path, prefix))
        if not found:
            found.append(_names(models, scan))
        before = "" if prefix is None else f"{prefix}."
        return {
            needed: {before + name: set(names) for name, names in modules.items()}
            for needed, modules in found[0].items()
        }

    module.define_import_structure = define  # type: ignore[attr-defined]


def _names(models: Path, scan: Callable[[Path], Names]) -> Names:
    """Those of the cache; else what `scan` finds, which the cache keeps."""
    path = _path(models)
    kept = None if path is None else _kept(path)
    if kept is not None:
        return kept
    names = scan(models)
    if path is not None:
        written = [
            [sorted(needed), {name: sorted(has) for name, has in modules.items()}] for needed, modules in names.items()
        ]
        # a text inside the text: what is sealed is sorted, and would be written once more for its checksum
        folders.remember(path, journal.seal({"format": FORMAT, "names": json.dumps(written)}))
    return names


def _kept(path: Path) -> Names | None:
    """What was written there; None where it is not there yet, damaged, or written by another version."""
    try:
        found = journal.read_sealed(path)
        if found["format"] != FORMAT:
            return None
        kept = json.loads(found["names"])
        return {frozenset(needed): {name: set(has) for name, has in modules.items()} for needed, modules in kept}
    except (OSError, TemploraError, LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _path(models: Path) -> Path | None:
    """Where the names of this installation are kept; None where it may change unseen, or there is no cache."""
    records = [*models.parents[1].glob("transformers-*.dist-info/RECORD")]
    try:
        if len(records) != 1:
            return None
        seen = records[0].stat()
        what = {"record": str(records[0]), "bytes": seen.st_size, "changed": seen.st_mtime_ns,
                "models": models.stat().st_mtime_ns}  # fmt: skip
        return folders.cache_root() / "names" / f"{journal.fingerprint(what)}.json"
    except (OSError, StorageError):
        return None
