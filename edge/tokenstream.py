"""A text of any length -> token ids, tokenised as far as they are needed and the same as the whole text's.

Owns: asking a tokenizer, the pieces that are tokenised, where one is joined to the next. Does not know: models,
sessions, where text is from. Units: characters of text, token ids.

A tokenizer takes some 150 bytes a character, so a long text is cut. No place is safe to cut at in every tokenizer: so
pieces overlap, and are joined in the middle of a run of tokens that both have, at the same characters. What a tokenizer
makes of a place depends on what is near it; a run of `AGREED` tokens is more than any rule of a tokenizer looks at.
Where the pieces agree nowhere (a character a million times) the earlier one is lengthened, up to `LONGEST`; beyond that
it ends at a token of its own.

A damaged tokenizer.json may load, and fail at a word. The library of fast tokenizers is written in Rust: its panic is
no `Exception` in Python, and is written to file descriptor 2 before Python knows of it.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from .errors import ModelError, TemploraError, describe

Answer = TypeVar("Answer")
PIECE = 1 << 16  # characters that are tokenised at once
OVERLAP = 1 << 11  # of them that the next piece has too
AGREED = 32  # tokens in a row
LONGEST = 1 << 18
TYPE = "i"  # of an array of token ids: 4 bytes each


class _Process:
    """Whether standard error is nobody else's."""

    own = False


def own_process() -> None:
    """For a process that is the command and nothing else: what a panic says itself is not shown (`asked`)."""
    _Process.own = True


def has_failed(error: BaseException) -> bool:
    """Whether a tokenizer's library has failed: an exception that is none of ours, or a panic."""
    return is_panic(error) or (isinstance(error, Exception) and not isinstance(error, TemploraError | MemoryError))


def asked(call: Callable[[], Answer]) -> Answer:
    """What a tokenizer answers. All that is asked of one in a run is asked through here.

    Raises:
        ModelError: its library has failed.
    """
    try:
        return _quietly(call) if _Process.own else call()
    except BaseException as error:
        if not has_failed(error):
            raise
        raise ModelError(
            f"the model's tokenizer fails ({describe(error)})", "one that takes and gives any text",
            "its file is damaged: get the model again",
        ) from error  # fmt: skip


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust has met what it took for impossible."""
    return type(error).__name__ == "PanicException"


def _quietly(call: Callable[[], Answer]) -> Answer:
    """The same; what was written on file descriptor 2 meanwhile comes afterwards, or not at all where it panics.

    One function with a `finally` and no block of its own: there is no moment in which an interruption could leave the
    descriptor where it is put (some 10 us a call).
    """
    panics = False
    try:
        before = os.dup(2)
        aside = os.memfd_create("said")
    except OSError:  # it is closed, or there are too many
        return call()
    try:
        os.dup2(aside, 2)
        return call()
    except BaseException as error:
        panics = is_panic(error)
        raise
    finally:
        os.dup2(before, 2)
        os.close(before)
        said = b"" if panics else os.pread(aside, os.fstat(aside).st_size, 0)
        os.close(aside)
        if said:
            with contextlib.suppress(OSError):  # nobody reads it any more
                os.write(2, said)


class _Piece(NamedTuple):
    """Text from character `start` on, and its tokens; the first `given` of them belong to the piece before.

    `places`: where each token stands in `body`, (start, end).
    """

    start: int
    body: str
    ids: list[int]
    places: list[tuple[int, int]]
    given: int = 0

    @property
    def end(self) -> int:
        """The first character after it."""
        return self.start + len(self.body)


class TokenStream:
    """The token ids of a text, read forward once; they are made when they are needed.

    Attributes:
        ended: whether all of the text is tokenised.
    """

    def __init__(
        self, tokenizer: Any, text: Iterable[str], *, limit: int | None = None, first: int | None = None
    ) -> None:
        """`text`: its parts, in order. `limit`: of ids. `first`: an id before the text's own, such as BOS."""
        self._begin(_pieces(tokenizer, text), limit, () if first is None else (first,))

    @classmethod
    def of(cls, ids: Sequence[int]) -> TokenStream:
        """Of ids that are there already."""
        stream = cls.__new__(cls)
        stream._begin(iter(()), None, ids)
        return stream

    def _begin(self, more: Iterator[array[int]], limit: int | None, held: Sequence[int]) -> None:
        self._more = more
        self._held = array(TYPE, held)
        self._left = limit
        self.ended = False
        self._cut()

    def look(self, count: int) -> int:
        """How many of the next `count` ids there are; they are tokenised, and wait."""
        while len(self._held) < count and not self.ended:
            more = next(self._more, None)
            if more is None:
                self.ended = True
            else:
                self._held.extend(more)
                self._cut()
        return min(count, len(self._held))

    def take(self, count: int) -> array[int]:
        """The next `count` ids; fewer at the end."""
        taken = self._held[: self.look(count)]
        self._held = self._held[len(taken) :]
        if self._left is not None:
            self._left -= len(taken)
        return taken

    def skip(self, count: int) -> None:
        """Passes over the next `count` ids."""
        while count > 0 and (passed := len(self.take(min(count, PIECE)))):
            count -= passed

    @property
    def waiting(self) -> int:
        """How many ids are tokenised and not taken yet."""
        return len(self._held)

    def _cut(self) -> None:
        if self._left is not None and len(self._held) >= self._left:
            self._held = self._held[: self._left]
            self.ended = True


def ids_of(tokenizer: Any, text: str, *, special: bool = False) -> list[int]:
    """The token ids of a short text, in one piece; with `special`, those that the tokenizer puts around it."""
    return list(asked(lambda: tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]))


def encode(tokenizer: Any, text: str) -> array[int]:
    """The token ids of a text that is in memory; no special token is added."""
    ids = array(TYPE)
    for piece in _pieces(tokenizer, parts(text)):
        ids.extend(piece)
    return ids


def parts(text: str, size: int = PIECE) -> Iterator[str]:
    """A text in parts."""
    return (text[start : start + size] for start in range(0, len(text), size))


def _pieces(tokenizer: Any, text: Iterable[str]) -> Iterator[array[int]]:
    """Token ids, piece by piece; together those of the whole text."""
    source = _Characters(text)
    if not getattr(tokenizer, "is_fast", False):  # it does not say where its tokens stand
        yield array(TYPE, ids_of(tokenizer, source.rest()))
        return
    piece = _tokenised(tokenizer, 0, source.take(PIECE))
    while following := source.take(PIECE):
        joined = _join(tokenizer, piece, following)
        if joined is not None:
            ids, piece = joined
            yield ids
        elif len(piece.body) < LONGEST:
            longer = _tokenised(tokenizer, piece.start, piece.body + following)
            piece = longer._replace(given=piece.given)
        else:
            ids, rest = _ended(piece)
            yield ids
            piece = _tokenised(tokenizer, piece.end - len(rest), rest + following)
    yield array(TYPE, piece.ids[piece.given :])


def _tokenised(tokenizer: Any, start: int, body: str) -> _Piece:
    made = asked(lambda: tokenizer(body, add_special_tokens=False, return_offsets_mapping=True, verbose=False))
    return _Piece(start, body, made["input_ids"], made["offset_mapping"])


def _join(tokenizer: Any, piece: _Piece, following: str) -> tuple[array[int], _Piece] | None:
    """The ids of `piece` up to where the next one, which begins inside it, takes over, and that next one."""
    overlap = OVERLAP
    while overlap <= max(OVERLAP, len(piece.body) // 2):
        # the next one begins with a token of this one
        first = bisect_left(piece.places, (max(0, len(piece.body) - overlap), 0))
        if first <= piece.given:
            return None
        begin = piece.places[first][0]
        after = _tokenised(tokenizer, piece.start + begin, piece.body[begin:] + following)
        run = _agreed(piece, first, after)
        if run is not None:
            here, there = run
            return array(TYPE, piece.ids[piece.given : here]), after._replace(given=there)
        overlap *= 4
    return None


def _agreed(piece: _Piece, first: int, after: _Piece) -> tuple[int, int] | None:
    """The middle of the longest run of tokens that both have at the same characters, as an index into each.

    None where no run has `AGREED` tokens. `first`: where to begin in `piece`.
    """
    shift = after.start - piece.start
    inside = bisect_left(after.places, (len(piece.body) - shift, 0))
    places = [
        (after.ids[index], start + shift, end + shift) for index, (start, end) in enumerate(after.places[:inside])
    ]
    known = {place: index for index, place in reversed(list(enumerate(places)))}  # the first of equal ones
    best = length = 0
    best_end = (0, 0)
    found = -1
    for index in range(first, len(piece.ids)):
        place = (piece.ids[index], *piece.places[index])
        goes_on = 0 <= found < inside - 1 and places[found + 1] == place  # equal ones: two like bytes of a character
        found = found + 1 if goes_on else known.get(place, -1)
        length = 0 if found < 0 else length + 1 if goes_on else 1
        if length > best:
            best = length
            best_end = (index, found)
    if best < AGREED:
        return None
    here, there = best_end
    return here - best // 2, there - best // 2


def _ended(piece: _Piece) -> tuple[array[int], str]:
    """The ids of a piece without its last `OVERLAP` characters or so, and those characters."""
    last = bisect_left(piece.places, (len(piece.body) - OVERLAP, 0))
    while last > piece.given + 1 and piece.places[last - 1][1] != piece.places[last][0]:
        last -= 1  # inside one character
    return array(TYPE, piece.ids[piece.given : last]), piece.body[piece.places[last][0] :]


class _Characters:
    """Text in parts of any size, read in others."""

    def __init__(self, text: Iterable[str]) -> None:
        self._parts = iter(text)
        self._held: list[str] = []
        self._size = 0

    def take(self, size: int) -> str:
        """The next `size` characters; fewer at the end."""
        while self._size < size and (part := next(self._parts, None)) is not None:
            self._held.append(part)
            self._size += len(part)
        whole = "".join(self._held)
        self._held = [whole[size:]]
        self._size = max(0, self._size - size)
        return whole[:size]

    def rest(self) -> str:
        """All that is left."""
        return "".join([*self._held, *self._parts])
