"""What a command reads and what it writes: nothing that is read is written over.

Owns: which options name files, and how; the refusal, before anything is read or computed.
Does not know: what is in the files; how they are written.

Two paths are the same file where they lead to one (device, inode), through links too, or, where one of them is not
there yet, where they differ in case or Unicode form alone: on another disk those are the same.
"""

from __future__ import annotations

import argparse
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .. import journal
from .. import settings as settings_module
from ..errors import SettingsError, TemploraError
from ..journal import manifest
from ..store import embedded, sources
from ..translation import languages

READ = {  # the options that name what is read
    "file": "the text",
    "book": "the document",
    "rendered": "the run",
    "carry": "the earlier volume",
    "prompt_file": "the prompt",
    "glossary": "the glossary",
    "corrections": "the corrections",
    "template": "the template",
    "preset": "the preset",
    "model": "the model",
    "generate": "the chunks to translate",
    "metric": "the metric's checkpoint",
    "set": "the graph",
}
TEXTS = (  # may be private
    "file", "book", "rendered", "prompt_file", "carry", "glossary", "corrections", "template", "generate",
)  # fmt: skip
RUNS = ("rendered", "carry")  # those of them that name a run, by its folder or name
REPORTS = {  # what --report DIR leaves there, by verb
    "score": ("report.json", "perplexity.png"),
    "translate": ("report.json", "report.html", "review.tsv", "names.tsv"),
    "render": ("report.json", "report.html", "review.tsv", "names.tsv"),
    "eval": ("eval.json",),
    "bench": ("bench.json", "bench.png"),
}
RUN = ("manifest.json", "records.jsonl", "records.damaged", "summary.json", "lock", "snapshots", "files")
CACHES = (*embedded.ENTRIES, "models", "onnx")  # below the cache folder: what is loaded


class Named(NamedTuple):
    """A file or folder, and what it is to the command."""

    what: str
    path: Path


def check(args: argparse.Namespace) -> None:
    """Refuses a command that would write over what it reads or into it, over what it writes, a run's records or a model
    in the cache.

    Raises:
        SettingsError: naming both.
    """
    reads = list(read(args))
    writes = list(written(args))
    for number, output in enumerate(writes):
        for source in reads:
            if any(same(output.path, path) for path in (source.path, *_folders(source.path))):
                raise _refused(output, f"{source.what} {source.path}")
        for source in reads:
            if os.path.isdir(source.path) and any(same(folder, source.path) for folder in _folders(output.path)):
                raise SettingsError(
                    f"{output.what} would write {output.path} into {source.what} {source.path}",
                    "a place outside of it", "name another output",
                )  # fmt: skip
        for other in writes[:number]:
            if same(output.path, other.path):
                raise _refused(output, f"the other output {other.what}")
        if output.what != "--run" and (kept := _kept(output.path)):
            raise _refused(output, kept)


def read(args: argparse.Namespace) -> Iterator[Named]:
    """The files that the options name to be read; a folder is followed by the files in it."""
    for dest, what in READ.items():
        value = getattr(args, dest, None)
        for path in _paths(args, dest, str(value)) if value or isinstance(value, list) else ():
            yield Named(what, path)
            if dest in RUNS and (book := _book(path)):
                yield Named(READ["book"], book)
            if dest in ("model", "set", *RUNS):
                yield from (Named(what, inner) for inner in _files(path))
    if getattr(args, "action", "") == "export-adapter":
        for path in map(_run, args.names):
            yield from (Named(READ["rendered"], inner) for inner in (path, *_files(path)))


def texts(args: argparse.Namespace) -> list[Path]:
    """Those of them that are somebody's text."""
    named = {READ[dest] for dest in TEXTS}
    shipped = settings_module.presets_folder()
    return [path for what, path in read(args) if what in named and shipped not in path.parents]


def written(args: argparse.Namespace) -> Iterator[Named]:
    """The files and folders that the options name to be written."""
    out = getattr(args, "out", None) or _beside(args)
    if out is not None:
        yield Named("--out" if args.verb not in ("quantize", "export") else "OUT", out)
    also = getattr(args, "bilingual_out", None)
    if also is not None:
        yield Named("--bilingual-out", also)
    review = getattr(args, "review", None)
    if review is not None:
        yield Named("--review", review)
    report = getattr(args, "report", None)
    if report is not None:
        names = (name for name in REPORTS.get(args.verb, ()) if name != "review.tsv" or review is None)
        yield from (Named(f"--report {report}", report / name) for name in names)
    folder = getattr(args, "run_folder", None)
    if folder is not None:
        places = [folder, *(folder / name for name in getattr(args, "protocols", "").split(",") if name)]
        yield from (Named("--run", place / name) for place in places for name in RUN)


def beside(book: Path, tag: str) -> Path:
    """Where a translation goes that no --out names: BOOK.TO.suffix."""
    return book.with_name(f"{book.stem}.{tag}{book.suffix}")


def same(first: Path, second: Path) -> bool:
    """Whether both lead to one file, or would."""
    one = _identity(first)
    other = _identity(second)
    if one is not None and other is not None:
        return one == other
    try:
        return _folded(first) == _folded(second)
    except (OSError, ValueError):
        return False


def _refused(output: Named, over: str) -> SettingsError:
    return SettingsError(
        f"{output.what} would write {output.path} over {over}", "a file that is not used", "name another output"
    )


def _paths(args: argparse.Namespace, dest: str, value: str) -> list[Path]:
    """The paths that an option's value stands for; none where it is a word."""
    if value == "-" and dest in ("file", "prompt_file"):
        return [Path("/dev/stdin")]  # leads to the file that the shell opened
    if dest in ("preset", "template") and not (value.endswith((".yaml", ".yml")) or "/" in value):
        folder = settings_module.presets_folder()
        return [(folder if dest == "preset" else folder / "templates") / f"{value}.yaml"]
    if dest == "set":
        return _graph(args)
    if dest == "model" and value in embedded.ENTRIES:
        return []
    if dest == "model":
        path = Path(value).expanduser() if not value.startswith("~") or _home() else Path(value)
        return [path, path.with_name(path.name + ".sha256")] if path.name and os.path.isfile(path) else [path]
    if dest in RUNS:
        return [_run(value)]
    return [Path(value)]


def _files(folder: Path) -> list[Path]:
    """The files in a folder; none of one that is none, or cannot be read, which the verb itself says."""
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_file())
    except OSError:
        return []


def _run(value: str) -> Path:
    try:
        return journal.find(value)
    except TemploraError:  # the verb itself says what is wrong
        return Path(value)


def _book(folder: Path) -> Path | None:
    """The document that a run is of."""
    try:
        book = manifest.load(folder).extra.get("book")
    except TemploraError:  # the verb itself says what is wrong
        return None
    return Path(book) if isinstance(book, str) else None


def _graph(args: argparse.Namespace) -> list[Path]:
    """The folder of an ONNX graph that the settings name."""
    try:
        graph = settings_module.load(args.preset, args.set).onnx.graph
    except (TemploraError, AttributeError):  # the verb itself says what is wrong
        return []
    return [Path(graph)] if graph else []


def _beside(args: argparse.Namespace) -> Path | None:
    if args.verb != "translate":
        return None
    try:
        return beside(args.book, languages.find(args.target).tag)
    except (TemploraError, ValueError):  # the verb itself says what is wrong
        return None


def _kept(path: Path) -> str:
    """What of ours an existing file belongs to; nothing in most cases."""
    if _identity(path) is None:
        return ""
    real = Path(os.path.realpath(path))
    for folder, name in ((real.parent, real.name), (real.parent.parent, real.parent.name)):
        if name in RUN and all((folder / needed).is_file() for needed in ("manifest.json", "records.jsonl")):
            return f"a file of the run in {folder}"
    home = _home()
    caches: list[Path] = []
    if home or os.environ.get("TEMPLORA_CACHE"):
        caches += [sources.cache_root() / name for name in CACHES]
    hub = os.environ.get("HF_HUB_CACHE") or (f"{home}/.cache/huggingface/hub" if home else "")
    caches += [Path(hub)] if hub else []
    if any(same(folder, cache) for folder in real.parents for cache in caches if cache.is_dir()):
        return "a model in the cache"
    return ""


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def _folders(path: Path) -> list[Path]:
    try:
        return list(Path(os.path.realpath(path)).parents)
    except (OSError, ValueError):
        return []


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()
