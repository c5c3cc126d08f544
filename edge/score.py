"""Loop: tokens -> ChunkScore records. Each chunk is scored first and learned after.

Owns: the order of scoring and learning. Does not know: how either is computed, files, printing.
Units: nats, tokens, seconds, bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from .learning.learner import labels_of
from .records import ChunkScore, Learned
from .windows import Window

if TYPE_CHECKING:
    from .core.state import State
    from .model.baseline import FullAttention


def score(state: State, *, with_base: bool = True, against: FullAttention | None = None) -> Iterator[ChunkScore]:
    """Scores what is coming as the document's next tokens, chunk by chunk.

    Args:
        against: scores each chunk too, for comparison.

    Yields:
        One record per chunk, after the adapter has learned it.
    """
    first = len(state.tokens)  # tokens before it were read: they are learned, and not scored
    chunk = state.settings.window.chunk
    while state.fill(state.position + chunk) or len(state.tokens) > max(first, state.position):
        window = state.window(min(len(state.tokens), state.position + chunk))
        labels = min(window.labels, window.end - first)
        start = time.perf_counter()
        # 1. the base, unless the adapter is still the base or is not there
        base_nll = None
        if labels and (state.learner is None or (with_base and not state.fresh)):
            with state.memory.phase("score"):
                base_nll = state.nll_sum(window, labels, adapter=False)
        if base_nll is None:
            state.probe_drift(window)
        # 2. the adapter's score, then 3. learning; one forward for both where that is exact
        was_fresh = state.fresh
        adapter_nll, scored, learned = _score_and_learn(state, window, labels)
        if with_base and was_fresh and adapter_nll is not None:
            base_nll = adapter_nll
        if base_nll is not None and adapter_nll is not None:
            learned = state.compare(learned, adapter_nll, base_nll, labels)
        # 4. what reading everything by attention would have given
        full_nll = None
        if against is not None:
            with state.memory.phase("score"):
                read = partial(against.nll, state.tokens, window.end - labels, window.end)
                full_nll = state.memory.retrying(read)
        # 5. the record
        state.memory.watch()
        state.finish_chunk(window.end)
        state.at_rest = True
        yield ChunkScore(
            index=window.index,
            start=window.start,
            end=window.end,
            tokens=labels,
            base_nll=base_nll if labels else 0.0,
            adapter_nll=adapter_nll,
            seconds=time.perf_counter() - start,
            peak_bytes=state.meter.peak,
            text_bytes=len(state.base.decode(state.tokens[window.end - labels : window.end]).encode()),
            score_seconds=scored,
            learned=learned,
            full_nll=full_nll,
        )


def _score_and_learn(state: State, window: Window, labels: int) -> tuple[float | None, float, Learned | None]:
    """The adapter's nats over the last `labels` tokens, seconds of scoring alone (0
    where fused), and what was learned.
    """
    if state.learner is None or not labels:
        return (None if state.learner is None else 0.0), 0.0, None
    if state.fuses and labels_of(window):
        learned, nats = state.teach(window)
        assert nats is not None
        return float(nats[-labels:].double().sum()), 0.0, learned
    start = time.perf_counter()
    with state.memory.phase("score"):
        total = state.nll_sum(window, labels, adapter=True)
    seconds = time.perf_counter() - start
    learned, _ = state.teach(window)
    return total, seconds, learned
