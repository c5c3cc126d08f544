"""Translators that stand for a model, and a teacher."""

from __future__ import annotations

from collections.abc import Sequence

from edge.records import Lesson
from edge.translation.asking import Draft, Request
from edge.translation.prompts import Pair


class OneByOne:
    """A translator that drafts lines side by side as it drafts one."""

    def translate(self, request: Request) -> Draft:
        """See `Translator`."""
        raise NotImplementedError

    def translate_lines(self, requests: Sequence[Request]) -> list[Draft]:
        """See `Translator`."""
        return [self.translate(request) for request in requests]


class Notes:
    """A teacher that writes down what it is to teach; a chunk is four pairs or lines."""

    def __init__(self) -> None:
        self.taught: list[tuple[str, tuple[int, int], list[Pair] | list[str], list[Pair] | list[str]]] = []

    def full(self, pairs: Sequence[Pair], of: str = "self") -> bool:
        """See `Teacher`."""
        return len(pairs) > 4

    def source_full(self, sources: Sequence[str]) -> bool:
        """See `Teacher`."""
        return len(sources) > 4

    def teach(self, of: str, span: tuple[int, int], context: Sequence[Pair], pairs: Sequence[Pair]) -> Lesson:
        """See `Teacher`."""
        self.taught.append((of, span, list(context), list(pairs)))
        return Lesson(len(self.taught) - 1, of, *span, len(pairs), None, 0.0, 0)

    def teach_source(self, span: tuple[int, int], before: Sequence[str], sources: Sequence[str]) -> Lesson:
        """See `Teacher`."""
        self.taught.append(("source", span, list(before), list(sources)))
        return Lesson(len(self.taught) - 1, "source", *span, len(sources), None, 0.0, 0)
