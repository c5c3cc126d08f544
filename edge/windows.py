"""Chunk and window arithmetic: every token is new exactly once, and every window begins as the document does.

Owns: where chunks begin and end, what context each one sees, what a window begins with.
Does not know: models, what a token means.
Units: tokens. Positions are offsets into the document's token sequence, its BOS (if any) included.
Source: arXiv 2401.11504, section 3 (chunk size, window size, context L = W - chunk).

Sinks: models put much of their attention on the first tokens of what they see, and are worse without them (attention
sinks, arXiv 2309.17453). So a window that begins in the middle of a document has the document's first tokens before its
context: BOS alone where the tokenizer puts one, else the first `SINKS`. They count among the window's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .errors import SettingsError

SINKS = 4  # of a document whose tokenizer puts no BOS: what the paper on attention sinks found to be enough


@dataclass(frozen=True)
class Window:
    """One step: the new tokens [start, end), and before them the sinks [0, sinks) and
    the context [context_start, start).

    There are no sinks where the context begins with the document. The first new token is predicted from the
    last context token. Without context (the document's very first token) there is nothing to predict it from,
    so it is not a label.
    """

    index: int
    context_start: int
    start: int
    end: int
    sinks: int = 0

    @property
    def context(self) -> int:
        """Number of tokens before the chunk, sinks included."""
        return self.sinks + self.start - self.context_start

    @property
    def size(self) -> int:
        """Number of tokens that a forward over this window sees, sinks included."""
        return self.sinks + self.end - self.context_start

    @property
    def labels(self) -> int:
        """Number of new tokens that are predicted."""
        return self.end - max(self.start, self.context_start + 1)

    def of(self, tokens: Sequence[int]) -> list[int]:
        """The window's token ids, of a document's."""
        return [*tokens[: self.sinks], *tokens[self.context_start : self.end]]


def window_at(index: int, start: int, end: int, *, context: int, sinks: int = 0) -> Window:
    """The window of the chunk [start, end) with at most `context` tokens before it, `sinks` of
    them the document's first.
    """
    if start <= context:
        return Window(index, 0, start, end)
    sinks = max(0, min(sinks, context - 1))  # the token before the chunk predicts its first one
    return Window(index, start - context + sinks, start, end, sinks)


def last(tokens: Sequence[int], size: int, sinks: int) -> list[int]:
    """The last `size` of a document's tokens, `sinks` of them its first ones where others are left out."""
    return window_at(0, len(tokens), len(tokens), context=size, sinks=sinks).of(tokens)


def windows(num_tokens: int, *, chunk: int, context: int, sinks: int = 0) -> Iterator[Window]:
    """All windows of a document of `num_tokens` tokens, in order.

    Chunk k is [k * chunk, min((k + 1) * chunk, num_tokens)). `context` counts the `sinks`.

    Raises:
        SettingsError: `chunk` is not positive or `context` is negative.
    """
    check(chunk, chunk + context)
    for index, start in enumerate(range(0, num_tokens, chunk)):
        yield window_at(index, start, min(start + chunk, num_tokens), context=context, sinks=sinks)


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
