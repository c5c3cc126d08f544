"""One document's life: a fresh adapter, the loops over its text, discard.

Owns: how text comes to the loops. Does not know: how a loop proceeds (`score.py`, `generate.py`), files, printing.
Units: tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import TracebackType

from . import generate as generating
from . import score as scoring
from .baseline import FullAttention
from .records import ChunkRead, ChunkScore, ChunkWritten, TextPiece
from .state import State
from .tokenstream import TokenStream


class Session(State):
    """One document: its tokens so far, and the adapter that learns them. Use it as a context manager.

    Calls add to the document in turn: `score` and `read` take text that exists, `generate` continues it.
    """

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def score(
        self, text: str, *, with_base: bool = True, max_tokens: int | None = None, full: bool = False
    ) -> Iterator[ChunkScore]:
        """Scores `text` chunk by chunk, each with the adapter that has learned all chunks before it.

        What `read` has left waiting is learned with the first chunk, and not scored. `full`: with the base that reads
        everything so far by attention, too (`baseline.py`).
        """
        return self.score_ids(self._encode(text)[:max_tokens], with_base=with_base, full=full)

    def score_ids(
        self, input_ids: Sequence[int] | TokenStream, *, with_base: bool = True, full: bool = False
    ) -> Iterator[ChunkScore]:
        """`score` for text that is tokenised, or that is while it is read."""
        self._feed(input_ids if isinstance(input_ids, TokenStream) else TokenStream.of(input_ids))
        against = None
        if full:
            against = FullAttention(self.torch_forward, self.plan, self.sinks, self.full_limit)
            self.full_limit = against.limit
        return scoring.score(self, with_base=with_base, against=against)

    def read(self, text: str) -> Iterator[ChunkRead]:
        """Reads `text` into the adapter; an unfinished last chunk waits for what comes next."""
        self._feed(TokenStream.of(()))
        self.tokens.extend(self._encode(text))
        return generating.read(self)

    def generate(
        self, prompt: str | TokenStream = "", *, max_tokens: int = 256, written: int = 0, reading: bool = False
    ) -> Iterator[ChunkRead | TextPiece | ChunkWritten]:
        """Continues the document, `prompt` appended to it, by at most `max_tokens` tokens.

        A document longer than the context is first read into the adapter; nothing is truncated. `written` and
        `reading` go on with a text that was begun before (`generate.generate`).
        """
        self._feed(prompt if isinstance(prompt, TokenStream) else TokenStream.of(()))
        if not isinstance(prompt, TokenStream) and (prompt or not self.tokens):
            self.tokens.extend(self._encode(prompt))
        return generating.generate(self, max_tokens, written=written, reading=reading)

    def _feed(self, text: TokenStream) -> None:
        self.fill(sys.maxsize)  # what was given before, where nobody has read it
        self.coming = text

    def _encode(self, text: str) -> list[int]:
        ids = self.base.encode(text)
        bos = self.base.tokenizer.bos_token_id
        return ids[1:] if self.tokens and ids[:1] == [bos] else ids
