"""Loop: tokens -> ChunkScore records. Each chunk is scored first and learned after.

Owns: the order of scoring and learning. Does not know: how either is computed, files, printing.
Units: nats, tokens, seconds, bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from .learner import labels_of
from .records import ChunkScore, Learned
from .windows import Window

if TYPE_CHECKING:
    from .baseline import FullAttention
    from .session import Session


def score(session: Session, *, with_base: bool = True, against: FullAttention | None = None) -> Iterator[ChunkScore]:
    """Scores what is coming as the document's next tokens, chunk by chunk.

    Args:
        against: scores each chunk too, for comparison.

    Yields:
        One record per chunk, after the adapter has learned it.
    """
    first = len(session.tokens)  # what waits before it is learned with its chunk, and not scored
    chunk = session.settings.window.chunk
    while session.fill(session.position + chunk) or len(session.tokens) > max(first, session.position):
        window = session.window(min(len(session.tokens), session.position + chunk))
        labels = min(window.labels, window.end - first)
        start = time.perf_counter()
        # 1. the base, unless the adapter is still the base or is not there
        base_nll = None
        if labels and (session.learner is None or (with_base and not session.fresh)):
            with session.phase("score"):
                base_nll = nll_sum(session, window, labels, adapter=False)
        if base_nll is None:
            session.probe_drift(window)
        # 2. the adapter's score, then 3. learning; one forward for both where that is exact
        was_fresh = session.fresh
        adapter_nll, scored, learned = _score_and_learn(session, window, labels)
        if with_base and was_fresh and adapter_nll is not None:
            base_nll = adapter_nll
        if base_nll is not None and adapter_nll is not None:
            learned = session.compare(learned, adapter_nll, base_nll, labels)
        # 4. what reading everything by attention would have given
        full_nll = None
        if against is not None:
            with session.phase("score"):
                read = partial(against.nll, session.tokens, window.end - labels, window.end)
                full_nll = session.retrying(read)
        # 5. the record
        session.watch()
        session.finish_chunk(window.end)
        session.at_rest = True
        yield ChunkScore(
            index=window.index,
            start=window.start,
            end=window.end,
            tokens=labels,
            base_nll=base_nll if labels else 0.0,
            adapter_nll=adapter_nll,
            seconds=time.perf_counter() - start,
            peak_bytes=session.meter.peak,
            text_bytes=len(session.base.decode(session.tokens[window.end - labels : window.end]).encode()),
            score_seconds=scored,
            learned=learned,
            full_nll=full_nll,
        )


def nll_sum(session: Session, window: Window, labels: int, *, adapter: bool) -> float:
    """Summed nats of the window's last `labels` tokens."""
    nll = session.retrying(lambda: session.forward.nll(session.ids(window), labels, adapter=adapter))
    return float(nll.double().sum())


def _score_and_learn(session: Session, window: Window, labels: int) -> tuple[float | None, float, Learned | None]:
    """The adapter's nats over the last `labels` tokens, seconds of scoring alone (0 where fused), and what was learned."""
    learner = session.learner
    if learner is None or not labels:
        return (None if learner is None else 0.0), 0.0, None
    rests = learner.drift.rests()
    teach = 0 if rests else labels_of(window, session.settings.learn)
    if session.fuses and teach:
        with session.phase("learn"):
            learned, nll = learner.learn(session.ids(window), teach)
        return float(nll[-labels:].double().sum()), 0.0, learned
    start = time.perf_counter()
    with session.phase("score"):
        total = nll_sum(session, window, labels, adapter=True)
    seconds = time.perf_counter() - start
    if not teach:
        return total, seconds, Learned(skipped=True, reason="resting") if rests else None
    with session.phase("learn"):
        lesson = session.window(window.end, learning=True)
        learned, _ = learner.learn(session.ids(lesson), lesson.labels)
    return total, seconds, learned
