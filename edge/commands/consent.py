"""An embedded model that is not on this disk: whoever sits at the terminal is asked once whether to fetch it.

Owns: the question. Does not know: where models come from (`store/`), which verb needs one.
"""

from __future__ import annotations

import sys

from ..store import embedded, folders
from ..terminal import Progress, say
from ..values.amounts import format_bytes


def fetch_if_wanted(reference: str) -> None:
    """Fetches an embedded model where one is named that is not here, and somebody says yes.

    Without a terminal nothing is asked: the error of the model that is missing names the command that fetches it.
    """
    model = embedded.ENTRIES.get(reference)
    if model is None or folders.offline() or not _attended() or embedded.find(model, say) is not None:
        return
    say(f"{model.name} ({model.title}, {format_bytes(model.size)}, {model.licence[0]}) is not on this disk.")
    say("Fetch it now? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        return
    with Progress(model.name, model.size, "bytes") as progress:
        embedded.fetch(model, notice=say, report=progress)
        progress(None)


def _attended() -> bool:
    """Whether there is somebody to ask, and to read the question."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
