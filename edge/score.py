"""Loop: tokens -> ChunkScore records. Each chunk is scored first and learned after.

Owns: the order of scoring and learning. Does not know: how either is computed, files, printing.
Units: nats, tokens, seconds, bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from .records import ChunkScore

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
        labels = max(0, min(window.labels, window.end - first))
        start = time.perf_counter()
        # 1. base and adapter score it, 2. the adapter learns it; one forward for both where that is exact
        taught = state.teach(window, labels=labels, base=with_base)
        # 3. what reading everything by attention would have given
        full_nll = None
        if against is not None:
            with state.memory.phase("score"):
                read = partial(against.nll, state.tokens, window.end - labels, window.end)
                full_nll = state.memory.retrying(read)
        # 4. the record
        state.memory.watch()
        state.finish_chunk(window.end)
        state.at_rest = True
        yield ChunkScore(
            index=window.index,
            start=window.start,
            end=window.end,
            tokens=labels,
            base_nll=taught.base_nll if labels else 0.0,
            adapter_nll=taught.nll,
            seconds=time.perf_counter() - start,
            peak_bytes=state.meter.peak,
            text_bytes=len(state.base.decode(state.tokens[window.end - labels : window.end]).encode()),
            score_seconds=taught.seconds,
            learned=taught.learned,
            full_nll=full_nll,
        )
