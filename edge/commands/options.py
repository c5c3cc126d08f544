"""What the verbs share: common options, settings, loading, files.

Owns: the meaning of options that several verbs have. Does not know: any one verb.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import journal, places
from .. import settings as settings_module
from ..documents.text import Text
from ..errors import BudgetError, Interrupted, StorageError
from ..journal import Manifest
from ..machine import held
from ..settings import Settings
from ..terminal import Converting, say, working
from ..values.amounts import format_bytes
from . import consent

if TYPE_CHECKING:
    from ..resume import Run
    from ..session import Runtime

    Verbs: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # it has no public name

AHEAD = 1 << 20  # tokens that are made before a run begins: of any book all, so that its length is known


def verb(verbs: Verbs, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    """A verb's parser; `run` gets its arguments."""
    made = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    made.set_defaults(run=run, verb=name)
    return made


def common(verb: argparse.ArgumentParser, model: str = "demo") -> None:
    """The options of every verb that runs a model; `model` where none is named."""
    presets = ", ".join(settings_module.preset_names())
    verb.add_argument(
        "--model",
        type=named,
        default=model,
        help=f"an embedded model (`templora models`), hub id, model folder, 4-bit folder or .gguf (default: {model})",
    )
    verb.add_argument(
        "--preset", type=named, default="economical", help=f"{presets}, or a YAML file (default: economical)"
    )
    verb.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting, e.g. learn.lr=1e-4"
    )
    verb.add_argument(
        "--memory-budget", metavar="SIZE", help="keep under this much memory, e.g. 6GiB (default: what is free)"
    )
    verb.add_argument(
        "--allow-degrade", action="store_true", help="fit the budget by changing what affects results too"
    )
    verb.add_argument("--device", help="auto, cpu or cuda (default: auto)")
    verb.add_argument("--offline", action="store_true", help="never use the network")
    verb.add_argument("--json", action="store_true", help="print one JSON line last")


def forward(verb: argparse.ArgumentParser) -> None:
    """The option of every verb whose forward path may be another one."""
    verb.add_argument(
        "--forward",
        choices=("auto", "torch", "mixed", "onnx"),
        help="mixed: an exported graph writes, onnx: it scores too (default: auto: mixed where text is written and it "
        "pays, else torch)",
    )


def resumable(verb: argparse.ArgumentParser) -> None:
    """The options of every verb that keeps a run folder."""
    verb.add_argument(
        "--run",
        dest="run_folder",
        type=path,
        metavar="DIR",
        help="the run folder (default: one below ~/.local/state/templora/runs)",
    )
    verb.add_argument("--no-run", action="store_true", help="keep no run folder: what is stopped is lost")
    going_on(verb)


def going_on(verb: argparse.ArgumentParser) -> None:
    """How a run is resumed, and how often what that needs is kept."""
    how = verb.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="continue the run that is there, as without it; it must be")
    how.add_argument(
        "--fresh", action="store_true", help="start anew; the run that is there is kept under another name"
    )
    verb.add_argument(
        "--force",
        action="store_true",
        help="continue an unfinished run even where text, device, versions or settings differ; what is done stays",
    )
    verb.add_argument(
        "--snapshot-every", type=int, metavar="N", help="a snapshot after so many chunks (default: by their cost)"
    )
    verb.add_argument(
        "--snapshot-share", type=float, default=0.02, metavar="F",
        help="the share of the run's time that snapshots may take, by their measured cost (default: 0.02)",
    )  # fmt: skip


def place(
    args: argparse.Namespace,
    name: str,
    settings: Settings,
    text: str,
    texts: Mapping[str, str | Text],
    words: Mapping[str, Mapping[str, Any]] | None = None,
) -> places.Place:
    """Where the run of these arguments lies (`places.Place`); `texts`: what it is about, as far as that is known.

    `words`: as for `run`. Where they are named and a new run begins, it is said how an earlier one of the text differs.
    """
    journal.SnapshotPolicy(args.snapshot_share, every=args.snapshot_every)  # what is wrong with these is said now
    if args.no_run:
        return places.Place(None)
    asked = places.journal_settings(settings)
    key = {"text": text, "model": args.model, "settings": asked}
    found = places.place(args.verb, name, key, texts, folder=args.run_folder, resume=args.resume, fresh=args.fresh)
    if words is None or found.there is not None or found.first is None or args.fresh:
        return found
    prints = {**places.fingerprints(texts), "settings": journal.fingerprint(asked)}
    what = Manifest(args.verb, prints, settings=asked, extra={"model": args.model, "words": words})
    other = journal.furthest(found.first.parent, what)
    return replace(found, notes=(*found.notes, journal.said(*other))) if other else found


def settings_of(args: argparse.Namespace) -> Settings:
    """Settings from --preset, --set and the short options."""
    return settings_module.load(args.preset, _overrides(args))


def _overrides(args: argparse.Namespace) -> list[str]:
    overrides = list(args.set)
    if args.device:
        overrides.append(f"compute.device={json.dumps(args.device)}")
    if getattr(args, "forward", None):
        overrides.append(f"forward={args.forward}")
    if args.memory_budget:
        overrides.append(f"budget={json.dumps(args.memory_budget)}")
    return overrides


@contextmanager
def within_budget(args: argparse.Namespace, name: str) -> Iterator[None]:
    """Inside the block a document called `name` is read, which must fit the budget where one is named.

    Raises:
        BudgetError: it does not.
    """
    budget = settings_of(args).budget
    try:
        with nullcontext() if budget is None else held.capped_process(budget):
            yield
    except MemoryError as error:
        raise BudgetError(
            f"{name} does not fit in memory while it is read", f"no more than {format_bytes(budget or 0)}",
            "split it into smaller files, or use a larger budget",
        ) from error  # fmt: skip


def as_begun(args: argparse.Namespace, where: places.Place, settings: Settings) -> Settings:
    """`settings`, computed as the run at `where` began where one continues; says so where it was asked for otherwise.

    With --force it is computed as asked for.
    """
    began = where.settings(settings)
    keys = (override.partition("=")[0].strip().partition(".") for override in _overrides(args))
    asked = {name: getattr(settings.compute, name) for section, _, name in keys if section == "compute" and name}
    left = ("auto", "0")  # to the planner; false is asked for
    other = {
        name: value for name, value in asked.items() if str(value) not in left and value != getattr(began.compute, name)
    }
    if other and args.force:
        return replace(began, compute=replace(began.compute, **other))
    for name, value in other.items():
        kept = getattr(began.compute, name)
        say(f"note: the run continues compute.{name}={kept} as it began, not {value}; --force changes it")
    return began


def load(args: argparse.Namespace, settings: Settings, *, decodes: bool, writes: bool = False) -> Runtime:
    """The runtime that the options name; says what was given up to fit the budget.

    `writes`: it is there to write text, so a graph may be made that does so faster.
    """
    import edge

    consent.fetch_if_wanted(args.model)
    with working(f"loading {args.model}") as status, Converting(args.model, status) as converting:
        runtime = edge.load(
            args.model, settings=settings, decodes=decodes, allow_degrade=args.allow_degrade, converting=converting,
            making=(lambda line: say(f"note: {line}")) if writes else None,
        )  # fmt: skip
    if runtime.plan.given_up:
        budget = format_bytes(runtime.plan.budget)
        say(f"to fit {budget}: " + "; ".join(runtime.plan.given_up))
    for note in runtime.notes:
        say(f"note: {note}")
    return runtime


def run(
    args: argparse.Namespace,
    where: places.Place,
    command: str,
    runtime: Runtime,
    texts: Mapping[str, str | Text],
    total: int | None,
    words: Mapping[str, Mapping[str, Any]] | None = None,
    defaults: Sequence[str] = (),
) -> Run:
    """The run of these arguments (`resume.Run`), new or resumed; `words`, `defaults`: see `resume.open_run`."""
    from .. import resume

    opened = resume.open_run(
        where,
        command,
        runtime,
        texts,
        total=total,
        words=words,
        defaults=defaults,
        force=args.force,
        fraction=args.snapshot_share,
        every=args.snapshot_every,
    )
    for note in opened.notes:
        say(f"note: {note}")
    if opened.finished:
        say(f"the run in {opened.folder} is finished: its outputs are written again; --fresh starts over")
    return opened


def say_how_to_go_on(run: Run, named: Path | None = None) -> None:
    """After a stop: where the run is, and the options that continue it.

    `named`: what --run takes, where that is not the run's own folder.
    """
    if run.folder is not None:
        say(f"the run is kept in {run.folder}: the same command with --run {named or run.folder} --resume continues")


def stopped_by(error: KeyboardInterrupt | BudgetError) -> int:
    """The exit code of a run that was stopped; says so where memory ran out."""
    if isinstance(error, BudgetError):
        say(f"error: {error.line()}")
        return error.exit_code
    return Interrupted.exit_code


def positive(text: str) -> int:
    """A whole number above 0, from an argument."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def named(text: str) -> str:
    """A name or path, from an argument."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; expected a name or path")
    return text


def path(text: str) -> Path:
    """A path, from an argument; Python would take an empty one for the folder that we are in."""
    return Path(named(text))


def make_folder(folder: Path) -> None:
    """Makes it and its parents before work begins that would be lost without it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot make {folder}: {error.strerror}", "a writable folder", "name another one"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or nothing; through a symbolic link, the file that it names."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # a file's name may be no text


def write_bytes(path: Path, data: bytes) -> None:
    """The same for bytes."""
    journal.atomic_write(path.resolve(), data)


@contextmanager
def as_private_as(texts: Sequence[Path]) -> Iterator[None]:
    """Inside the block, what is written may be read by nobody who may not read all of `texts`."""
    kept = os.umask(0o077)
    mask = kept
    for path in texts:
        with suppress(OSError, ValueError):
            found = os.stat(path).st_mode
            if stat.S_ISREG(found):
                mask |= ~(found | (found & 0o044) >> 2) & 0o077  # a folder may be entered where it may be read
    os.umask(mask)
    try:
        yield
    finally:
        os.umask(kept)
