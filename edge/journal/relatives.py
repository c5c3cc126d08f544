"""Runs of the same text that began otherwise: with other settings, options or another model.

Owns: which runs are such, what is said of them.
Does not know: how runs are named or continue.
Units: units of `RunInfo.position`.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import TemploraError
from . import catalogue, disk, manifest
from .catalogue import RunInfo, folders
from .manifest import Manifest

TEXT = "text"  # the fingerprint that two runs of one text share


def furthest(root: Path, what: Manifest) -> tuple[RunInfo, list[str]] | None:
    """Of the runs in `root` of the same command and text as `what`, that which has got furthest, and how it differs.

    Only what `what` names is compared. None where there is no such run, or it does not differ.

    Raises:
        StorageError: `root` cannot be read.
    """
    text = what.fingerprints.get(TEXT)
    best: tuple[RunInfo, list[str]] | None = None
    with disk.guarded(f"read {root}"):
        found = folders(root)
    for folder in found:
        try:
            began = manifest.load(folder)
            if began.command != what.command or began.fingerprints.get(TEXT) != text:
                continue
            run = catalogue.peek(folder)
        except TemploraError:  # no run, a damaged one, or one that cannot be read
            continue
        known = {name: value for name, value in began.fingerprints.items() if name in what.fingerprints}
        known |= {"settings": began.extra["asked"]} if "asked" in began.extra else {}
        asked = began.extra.get("asked_settings", began.settings)
        differs = Manifest(began.command, known, settings=asked, extra=began.extra).differences(what)
        model = [began.extra.get("model"), what.extra.get("model")]
        differs += [f"model {model[0]} -> {model[1]}"] if all(model) and model[0] != model[1] else []
        if run.count and differs and (best is None or (run.position or 0) > (best[0].position or 0)):
            best = run, differs
    return best


def said(run: RunInfo, differs: list[str]) -> str:
    """One line about it, for who begins a new run."""
    done = f"{run.position} of {run.total}" if run.total else f"{run.count} records"
    how = (
        f"templora render {run.folder.name} writes its outputs"
        if run.state == "finished"
        else f"--run {run.folder} --force goes on with that one instead"
    )
    return f"a new run begins; {run.folder.name} ({run.state}, {done}) began otherwise: {', '.join(differs)}; {how}"
