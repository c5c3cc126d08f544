"""Whether a translation says what its source says, judged by the base, which reads it backwards.

Owns: how much a translation helps the base to predict its source. Does not know: what follows from it.
Units: nats per token.

A model finds its own translation likely whatever it says. But a source line is likelier after a translation of
it than after one of another line, and the more so, the more of it was translated (reverse scoring, as
noisy-channel rerankers use it, arXiv 1908.05731). All lines stand in one window, each after its translation,
and once more after another line's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from .. import windows
from .decoding import encode_more
from .prompts import Pair, Prompts, load_template

if TYPE_CHECKING:
    from ..core.state import State


class Meaning:
    """The base's judgement on pairs of one language pair; the adapter has no part in it."""

    def __init__(self, session: State, prompts: Prompts) -> None:
        source, target = prompts.languages
        self.session = session
        self.backwards = Prompts(load_template("plain"), target, source)

    def gains(self, pairs: Sequence[Pair]) -> list[float]:
        """For each pair: nats per source token after another line's translation, less those after its own."""
        others = [*pairs[1:], *pairs[:1]] if len(pairs) > 1 else self._example(pairs)
        own = self._nats([(pair.target, pair.source) for pair in pairs])
        foreign = self._nats([(other.target, pair.source) for pair, other in zip(pairs, others, strict=True)])
        return [after - before for before, after in zip(own, foreign, strict=True)]

    def _example(self, pairs: Sequence[Pair]) -> list[Pair]:
        """A pair to compare a single one with: the template's, seen backwards."""
        examples = self.backwards.examples[:1]
        return [Pair(example.target, example.source) for example in examples for _ in pairs] or list(pairs)

    def _nats(self, lines: Sequence[tuple[str, str]]) -> list[float]:
        """Nats per token of the second text of each, after the first, and after all lines before."""
        result = []
        for ids, spans in self._windows(lines):
            first = spans[0].start
            nats = self._score(ids, len(ids) - first)
            result += [float(nats[span.start - first : span.stop - first].double().mean()) for span in spans]
        return result

    def _score(self, ids: list[int], labels: int) -> torch.Tensor:
        session = self.session
        with session.memory.phase("score"):
            return session.memory.retrying(lambda: session.torch_forward.nll(torch.tensor(ids), labels, adapter=False))

    def _windows(self, lines: Sequence[tuple[str, str]]) -> Iterator[tuple[list[int], list[slice]]]:
        """Token ids of as many lines as a window takes, after the template's examples; and where the second texts are.

        A line that is longer than a window loses its beginning.
        """
        form = self.backwards
        size = self.session.settings.window.size
        start = self.session.base.encode(form.parts(form.examples, [], [""])[0])
        ids = list(start)
        spans = list[slice]()
        for given, line in lines:
            before = encode_more(self.session, form.block([given]))
            after = encode_more(self.session, form.targets([line]))[: size - 1]
            if spans and len(ids) + len(before) + len(after) > size:
                yield ids, spans
                ids = list(start)
                spans = []
            ids = windows.last([*ids, *before], size - len(after), self.session.sinks)
            spans.append(slice(len(ids), len(ids) + len(after)))
            ids += after
        if spans:
            yield ids, spans
