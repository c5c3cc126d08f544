"""Tokens that may come next, looked up in what was said before; a forward of several tokens verifies them.

Owns: where is looked, how many are proposed, when it has not paid and ends.
Does not know: logits, caches, how tokens are verified, where earlier lines come from.
Units: tokens; the balance in forwards of one token.

Speculative decoding (arXiv 2211.17192) with a lookup in place of a small model. A wrong proposal costs time and never
a token: what is written is what the model chooses. Two places are looked at. A line that was written before and should
be nearly the same is followed from its beginning; where the text leaves it, it is taken up again behind the last
tokens that both have. Else the text itself, prompt included, is searched for the last tokens, and what followed them
there is proposed.

A proposed token makes a forward longer, and one that was right saves a forward. The balance of both says whether to go
on: a text in which nothing is found again pays for a few rows, and is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from ..memory.sizes import PROPOSED

FIRST = 2  # tokens that a find in the text itself gives at first; twice as many after each that was right
MATCH = 2  # tokens that must be the same there
ROW = 0.14  # forwards of one token that a row more costs: measured, tests/measurements/lookup.md
START = 0.5  # forwards that may be lost in one text
MOST = 2.0  # forwards that may be lost later, however many were saved before
MISSES = 4  # tokens in a row that an earlier line does not have, after which one that it has is no sign
NEAR = 6  # tokens around the place in an earlier line where the text is taken up again


class Lookup:
    """What may come next in one text."""

    def __init__(self, before: Sequence[int], like: Sequence[Sequence[int]] = (), ends: AbstractSet[int] = frozenset()):
        """`before`: the tokens that the text follows; `like`: earlier lines that it may repeat, the likeliest first;
        `ends`: tokens that end a text, which are never proposed.
        """
        self._ends = ends
        self._lines = [_Earlier(line) for line in like if line]
        self._text = list(before)
        self._places: dict[tuple[int, ...], int] = {}  # the token after each run of `MATCH`, the last one
        for end in range(MATCH, len(self._text)):
            self._places[tuple(self._text[end - MATCH : end])] = end
        self._size = FIRST
        self._balance = START if not self._lines else MOST

    def wrote(self, token: int) -> None:
        """One token of the text."""
        if len(self._text) >= MATCH:
            self._places[tuple(self._text[-MATCH:])] = len(self._text)
        self._text.append(token)
        for line in self._lines:
            line.wrote(self._text[-2:])

    def propose(self, room: int) -> list[int]:
        """Up to `room` tokens that may come next; nothing where nothing is found, or where it does not pay."""
        if self._balance < ROW:
            return []
        affordable = int(self._balance / ROW)
        found = self._found(min(room, PROPOSED, affordable))
        end = next((at for at, token in enumerate(found) if token in self._ends), len(found))
        return found[:end]

    def verified(self, proposed: int, right: int) -> None:
        """What became of a proposal: how many of its first tokens were written."""
        self._balance = min(MOST, self._balance + right - ROW * proposed)
        self._size = min(2 * self._size, PROPOSED) if right == proposed else FIRST

    def _found(self, room: int) -> list[int]:
        for line in self._lines:
            if line.follows:
                return line.rest(room)
        at = self._places.get(tuple(self._text[-MATCH:]))
        if at is None:
            return []
        return self._text[at : at + min(room, self._size)]


class _Earlier:
    """A line that was written before, and the place in it that the text has come to.

    Attributes:
        follows: whether the text still goes along it.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self.follows = True
        self._tokens = list(tokens)
        self._at = 0
        self._missed = 0

    def rest(self, count: int) -> list[int]:
        """The next `count` tokens."""
        return self._tokens[self._at : self._at + count]

    def wrote(self, last: Sequence[int]) -> None:
        """Takes in what the text's last two tokens are."""
        if self.follows and self.rest(1) == [last[-1]]:
            self._at += 1
            self._missed = 0
            return
        again = self._behind(last) or (self._behind(last[-1:]) if self._missed < MISSES else 0)
        self.follows = again > 0
        self._at = again or self._at
        self._missed = 0 if again else self._missed + 1

    def _behind(self, tokens: Sequence[int]) -> int:
        """The place behind these tokens; the nearest one, 0 where they are nowhere near."""
        count = len(tokens)
        ends = range(max(count, self._at - NEAR), min(len(self._tokens), self._at + NEAR) + 1)
        found = [end for end in ends if self._tokens[end - count : end] == list(tokens)]
        return min(found, key=lambda end: abs(end - self._at), default=0)
