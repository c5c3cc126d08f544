"""A line translated by the model: its prompt, and the tokens after it.

Owns: what a prompt keeps when the window is too small, the token limit, which tokens are proposed.
Does not know: whether the result is any good (`guards`), what is learned from it.
Units: tokens.

A prompt is read in parts (`Prompts.parts`), and the cache goes from unit to unit: what the next prompt has in common
with the last one is not read again. A run that continues after a stop reads the same parts one by one, so that
roundings, and with them the text, are the same (`reading`). Several lines can be written side by side (`beside`).

Tokens of a line are proposed by a lookup in lines like it and in its prompt (`model/lookup.py`), and one forward of
several tokens verifies them: each is chosen as always, by the logits after those before it, and what was proposed
otherwise is taken out of the cache. The text is the one that is written without (`compute.plain=[drafts]`), as far as
one token and several in a forward round alike. Proposals follow from the request alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, TypeVar

import torch

from .. import tokenstream
from ..errors import ModelError
from ..model.forward import Cache
from ..model.lookup import Lookup
from . import reading
from .beside import Beside, Prompt
from .context import arrange
from .languages import Language
from .loop import Draft, Request
from .prompts import Pair, Prompts
from .reading import Reading
from .writing import Line

if TYPE_CHECKING:
    from ..core.state import State

T = TypeVar("T")

KEPT_SIZES = 4096  # pairs whose length is remembered


class ModelTranslator:
    """The session's model as a `loop.Writer`."""

    def __init__(self, session: State, prompts: Prompts, *, ratio: float = 3.0, extra: int = 24) -> None:
        """A translation may have `ratio` times the tokens of its source, and `extra`; never more than a chunk."""
        self.session = session
        self.prompts = prompts
        self.ratio = ratio
        self.extra = extra
        self._encoded: dict[str, list[int]] = {}
        self._sizes: dict[Pair, int] = {}
        self._beside = Beside(session)
        self._asked: dict[int, Request] = {}

    def translate(self, request: Request) -> Draft:
        """See `loop.Writer`. A line that no prompt has room for comes back empty and cut."""
        prompt = self._prompt(request)
        if prompt is None:
            return Draft("", cut=True)
        return self._whole_or_nothing(lambda: self._decode(prompt))

    def begin(self, slot: int, request: Request, *, again: bool = False) -> None:
        """See `loop.Writer`."""
        self._asked[slot] = request
        self._beside.begin(slot, self._prompt(request), again=again)

    def finish(self, slot: int) -> Draft:
        """See `loop.Writer`. By itself where the forward path has no lines side by side."""
        draft = self._whole_or_nothing(lambda: self._beside.finish(slot))
        return self.translate(self._asked[slot]) if draft is None else draft

    def forget(self) -> None:
        """See `loop.Writer`."""
        self._beside.forget()

    def _prompt(self, request: Request) -> Prompt | None:
        """None where no window has room for it."""
        limit = self._limit(request)
        parts = self._parts(request, self.session.settings.window.size - limit)
        return None if parts is None else Prompt(parts, limit, request)

    def _limit(self, request: Request) -> int:
        """Tokens that a translation may have."""
        limit = int(self.ratio * len(encode_more(self.session, request.source))) + self.extra
        return min(limit, self.session.settings.window.chunk)

    def _whole_or_nothing(self, decode: Callable[[], T]) -> T:
        def tried() -> T:
            try:
                return decode()
            except BaseException:
                self.session.reading = None  # half a token longer, or too much for the memory
                raise

        return self.session.memory.retrying(tried)

    # --- the prompt ---

    def _parts(self, request: Request, room: int) -> list[list[int]] | None:
        """Token ids of the parts of a prompt, with as many of the last pairs as there is room for; None where there is
        none.
        """
        block, lines = arrange(request.context, 3 * self.session.settings.window.size // 4, self._size)
        block = self.prompts.context(block)
        while True:
            parts = self._ids(self.prompts.parts(block, lines, [request.source], request.terms))
            if sum(map(len, parts)) <= room:
                return parts
            if not block and not lines:
                return None
            block, lines = (block[1:], lines) if block else ([], lines[1:])

    def _size(self, pair: Pair) -> int:
        if pair not in self._sizes:
            if len(self._sizes) > KEPT_SIZES:
                self._sizes.clear()
            text = self.prompts.prompt([], [pair.source]) + self.prompts.targets([pair.target])
            self._sizes[pair] = len(encode_more(self.session, text))
        return self._sizes[pair]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each part: together those of the whole, but where a token would reach across a border."""
        before = self._encoded
        self._encoded = {}
        ids: list[int] = []
        parts: list[list[int]] = []
        for end, text in enumerate(accumulate(texts)):
            whole = before.get(text) or encode_prompt(self.session, self.prompts, text)
            self._encoded[text] = whole
            fits = whole[: len(ids)] == ids
            parts.append(whole[len(ids) :] if fits else encode_more(self.session, texts[end]))
            ids = [*ids, *parts[-1]]
        return [part for part in parts if part]

    def _read(self, parts: Sequence[list[int]]) -> tuple[torch.Tensor, Cache]:
        """Logits after the parts, and a cache that holds them: the last one read since, those before it kept."""
        forward = self.session.forward
        ids = torch.tensor(parts[-1])
        main = reading.hold(self.session, parts[:-1])
        if main is None:
            logits, cache = forward.prefill(ids)
            reading.kept(self.session).main = Reading(cache)
            return logits, cache
        forward.mark(main.cache)
        return forward.extend(ids, main.cache), main.cache

    # --- the answer ---

    def _decode(self, prompt: Prompt) -> Draft:
        session = self.session
        session.at_rest = False
        parts, _, request = prompt
        line = Line(session, *prompt)
        with session.memory.phase("decode"):
            logits, cache = self._read(parts)
            lookup = self._lookup(parts, request)
            going = line.take(logits)
            while going:
                going = self._go_on(line, cache, lookup)
        return line.draft()

    def _lookup(self, parts: Sequence[Sequence[int]], request: Request) -> Lookup | None:
        """Where the line's tokens may be found; None where none are proposed."""
        session = self.session
        if "drafts" in session.settings.compute.plain:
            return None
        like = [encode_more(session, target) for target in request.similar]
        return Lookup(list(chain(*parts)), like, session.base.eos_ids)

    def _go_on(self, line: Line, cache: Cache, lookup: Lookup | None) -> bool:
        """Writes the tokens after the last one: those that were proposed and are right, and one more; whether another
        is to follow.
        """
        forward = self.session.forward
        proposed: list[int] = []
        if lookup is not None:
            lookup.wrote(line.token)
            proposed = lookup.propose(line.room)
            proposed = proposed[: max(0, forward.spare(cache) - 1)] if proposed else []
        if lookup is None or not proposed:
            return line.take(forward.decode(line.token, cache))
        held = cache.length + 1
        going = False
        right = 0
        for right, logits in enumerate(forward.verify(torch.tensor([line.token, *proposed]), cache)):
            going = line.take(logits)
            if not going or proposed[right : right + 1] != [line.token]:
                break
            lookup.wrote(line.token)
        forgotten = forward.rewind(cache, held + right)
        assert forgotten
        lookup.verified(len(proposed), right)
        return going


def encode_more(session: State, text: str) -> list[int]:
    """Token ids of a text that something stands before."""
    return tokenstream.ids_of(session.base.tokenizer, text)


def encode_prompt(session: State, prompts: Prompts, text: str) -> list[int]:
    """Token ids of a prompt. A chat template writes the tokenizer's BOS itself."""
    return session.base.encode(text) if prompts.template.form == "plain" else encode_more(session, text)


def require_languages(session: State, texts: Sequence[str], source: Language, target: Language) -> None:
    """Refuses a model whose tokenizer cannot write one of the languages.

    Args:
        texts: some of the source.

    Raises:
        ModelError: a text does not come back from its tokens.
    """
    for language, sample in ((source, "\n".join(texts)), (target, target.endonym)):
        ids = encode_more(session, sample)
        back = session.base.decode(ids)
        unknown = tokenstream.asked(lambda: session.base.tokenizer.unk_token_id)
        lost = [c for c in sample if not c.isspace() and c not in back] if back.split() != sample.split() else []
        if (unknown is not None and ids.count(unknown) > len(sample) // 100) or 100 * len(lost) > len(sample):
            raise ModelError(
                f"{session.base.reference} cannot write {language.name} (its tokenizer loses '{''.join(lost[:5])}')",
                "a model that knows both languages",
                "use another model",
            )
