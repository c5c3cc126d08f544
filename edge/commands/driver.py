"""A loop beside its journal: every record is kept before it is shown, and a stop leaves a run that continues.

Owns: the order of keeping, showing and stopping, for every verb that keeps a run. Does not know: any one loop or verb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..errors import BudgetError, Interrupted
from ..records import Record, TextPiece
from ..terminal import Stop
from . import options

if TYPE_CHECKING:
    from ..resume import Run
    from ..session import Session


def drive(
    records: Iterable[Record],
    run: Run,
    session: Session,
    stop: Stop,
    shown: Callable[[Record], None],
    *,
    more: Callable[[Record], bool] = lambda record: True,
    enough: Callable[[Record], bool] = lambda record: False,
) -> int:
    """Runs a loop to its end, or to where it is stopped.

    Args:
        records: what the loop yields.
        shown: gets every record when it is kept (pieces of text are not), in order.
        more: whether something is left to do after a record; a stop that was asked for after the last one is none.
        enough: whether a record is the last one that is wanted now; the run is left as after a stop.

    Returns:
        0, or the exit code of a stop: what was shown is kept, and the run resumes from there.
    """
    try:
        for record in records:
            kept = record if isinstance(record, TextPiece) else run.add(record, session)
            shown(kept)
            if enough(kept) or (stop.asked and more(kept)):
                run.snapshot(session)
                return 0 if enough(kept) else Interrupted.exit_code
        run.all_done(session)
    except (KeyboardInterrupt, BudgetError) as error:
        return options.stopped_by(error)
    return 0
