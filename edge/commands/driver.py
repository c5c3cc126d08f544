"""A loop beside its journal: where it begins, every record kept before it is shown, what a stop leaves, and its end.

Owns: the order of restoring, keeping, showing, stopping, writing outputs and finishing, for every verb that keeps runs.
Does not know: any one loop or verb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import BudgetError, Interrupted
from ..records import Record, TextPiece
from ..terminal import Stop, say
from . import options

if TYPE_CHECKING:
    from ..resume import Run
    from ..session import Session


def drive(
    run: Run,
    session: Session,
    stop: Stop,
    begin: Callable[[list[Record]], Iterable[Record]],
    shown: Callable[[Record], None],
    outputs: Callable[[int], Mapping[str, Any] | None],
    *,
    whole: bool = False,
    more: Callable[[Record], bool] = lambda record: True,
    enough: Callable[[Record], bool] = lambda record: False,
) -> int:
    """Runs a loop from where its run was left, to its end or to where it is stopped, and writes what comes of it.

    Args:
        begin: gets the records that are done, and gives the loop over what is still to come.
        shown: gets every record when it is kept (pieces of text are not), in order.
        outputs: gets the exit code of a stop, or 0, and writes all outputs; what it returns is the summary of a
            finished run, None where more is to come.
        whole: all that is wanted is in the records: the session is not put back to where it was.
        more: whether something is left to do after a record; a stop that was asked for after the last one is none.
        enough: whether a record is the last one that is wanted now; the run is left as after a stop.

    Returns:
        0, or the exit code of a stop: what was shown is kept, and the run resumes from there.
    """
    stopped = 0
    told = len(run.notes)
    done = list(run.kept) if whole else run.restore(session)
    for note in run.notes[told:]:
        say(f"note: {note}")
    records = begin(done)
    try:
        for record in records:
            kept = record if isinstance(record, TextPiece) else run.add(record, session)
            shown(kept)
            if enough(kept) or (stop.asked and more(kept)):
                run.snapshot(session)
                stopped = 0 if enough(kept) else Interrupted.exit_code
                break
        else:
            run.all_done(session)
    except (KeyboardInterrupt, BudgetError) as error:
        stopped = options.stopped_by(error)
    summary = outputs(stopped)
    if summary is not None and not stopped:
        run.finish(summary)
    return stopped
