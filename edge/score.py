"""Loop: tokens -> ChunkScore records. Each chunk is scored first and learned after.

Owns: the order of scoring and learning. Does not know: how either is computed, files, printing.
Units: nats, tokens, seconds, bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from . import windows
from .learner import labels_of
from .records import ChunkScore, Learned
from .windows import Window

if TYPE_CHECKING:
    from .baseline import FullAttention
    from .session import Session


def score(
    session: Session, input_ids: list[int], *, with_base: bool = True, against: FullAttention | None = None
) -> Iterator[ChunkScore]:
    """Scores `input_ids` as the document's next tokens, chunk by chunk.

    Args:
        against: scores each chunk too, for comparison.

    Yields:
        One record per chunk, after the adapter has learned it.
    """
    first = session.position
    session.tokens[first:] = input_ids
    chunk = session.settings.window.chunk
    for piece in windows.windows(len(input_ids), chunk=chunk, context=session.settings.window.context):
        window = session.window(first + piece.end)
        start = time.perf_counter()
        # 1. the base, unless the adapter is still the base or is not there
        base_nll = None
        if window.labels and (session.learner is None or (with_base and not session.fresh)):
            with session.phase("score"):
                base_nll = nll_sum(session, window, adapter=False)
        if base_nll is None:
            session.probe_drift(window)
        # 2. the adapter's score, then 3. learning; one forward for both where that is exact
        was_fresh = session.fresh
        adapter_nll, scored, learned = _score_and_learn(session, window)
        if with_base and was_fresh and adapter_nll is not None:
            base_nll = adapter_nll
        if base_nll is not None and adapter_nll is not None:
            learned = session.compare(learned, adapter_nll, base_nll, window.labels)
        # 4. what reading everything by attention would have given
        full_nll = None
        if against is not None:
            with session.phase("score"):
                read = partial(against.nll, session.tokens, window.start, window.end)
                full_nll = session.retrying(read)
        # 5. the record
        session.watch()
        session.finish_chunk(window.end)
        session.at_rest = True
        yield ChunkScore(
            index=window.index,
            start=window.start,
            end=window.end,
            tokens=window.labels,
            base_nll=base_nll if window.labels else 0.0,
            adapter_nll=adapter_nll,
            seconds=time.perf_counter() - start,
            peak_bytes=session.meter.peak,
            text_bytes=len(session.base.decode(session.tokens[window.end - window.labels : window.end]).encode()),
            score_seconds=scored,
            learned=learned,
            full_nll=full_nll,
        )


def nll_sum(session: Session, window: Window, *, adapter: bool) -> float:
    """Summed nats of the window's labels."""
    nll = session.retrying(lambda: session.forward.nll(session.ids(window), window.labels, adapter=adapter))
    return float(nll.double().sum())


def _score_and_learn(session: Session, window: Window) -> tuple[float | None, float, Learned | None]:
    """The adapter's nats, seconds of scoring alone (0 where fused), and what was learned."""
    learner = session.learner
    if learner is None or not window.labels:
        return (None if learner is None else 0.0), 0.0, None
    rests = learner.drift.rests()
    teach = 0 if rests else labels_of(window, session.settings.learn)
    if session.fuses and teach:
        with session.phase("learn"):
            learned, nll = learner.learn(session.ids(window), teach)
        return float(nll.double().sum()), 0.0, learned
    start = time.perf_counter()
    with session.phase("score"):
        total = nll_sum(session, window, adapter=True)
    seconds = time.perf_counter() - start
    if not teach:
        return total, seconds, Learned(skipped=True, reason="resting") if rests else None
    with session.phase("learn"):
        lesson = session.window(window.end, learning=True)
        learned, _ = learner.learn(session.ids(lesson), lesson.labels)
    return total, seconds, learned
