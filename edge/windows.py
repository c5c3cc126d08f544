"""Chunk and window arithmetic: every token is new exactly once.

Owns: where chunks begin and end, and what context each one sees.
Does not know: token ids, models.
Units: tokens. Positions are offsets into the document's token sequence, its BOS (if any) included.
Source: arXiv 2401.11504, section 3 (chunk size, window size, context L = W - chunk).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .errors import SettingsError


@dataclass(frozen=True)
class Window:
    """One step: the new tokens [start, end) and the context [context_start, start) before them.

    The first new token is predicted from the last context token. Without context (the document's
    very first token) there is nothing to predict it from, so it is not a label.
    """

    index: int
    context_start: int
    start: int
    end: int

    @property
    def context(self) -> int:
        """Number of context tokens."""
        return self.start - self.context_start

    @property
    def size(self) -> int:
        """Number of tokens that a forward over this window sees."""
        return self.end - self.context_start

    @property
    def labels(self) -> int:
        """Number of new tokens that are predicted."""
        return self.end - max(self.start, self.context_start + 1)

    @property
    def label_start(self) -> int:
        """Offset inside the window of the first label; its prediction comes from `label_start - 1`."""
        return self.size - self.labels


def window_at(index: int, start: int, end: int, *, context: int) -> Window:
    """The window of the chunk [start, end) with at most `context` tokens before it."""
    return Window(index, max(0, start - context), start, end)


def windows(num_tokens: int, *, chunk: int, context: int) -> Iterator[Window]:
    """All windows of a document of `num_tokens` tokens, in order.

    Chunk k is [k * chunk, min((k + 1) * chunk, num_tokens)).

    Raises:
        SettingsError: `chunk` is not positive or `context` is negative.
    """
    check(chunk, chunk + context)
    for index, start in enumerate(range(0, num_tokens, chunk)):
        yield window_at(index, start, min(start + chunk, num_tokens), context=context)


def check(chunk: int, size: int) -> None:
    """Refuses impossible sizes.

    Raises:
        SettingsError: the chunk is not positive, or leaves no context token to predict its first token from.
    """
    if chunk < 1:
        raise SettingsError(f"window.chunk is {chunk}", "at least 1 token", "set window.chunk higher")
    if size <= chunk:
        raise SettingsError(
            f"window.size is {size} and window.chunk is {chunk}",
            "a window larger than its chunk (the first new token is predicted from the last context token)",
            "raise window.size or lower window.chunk",
        )
