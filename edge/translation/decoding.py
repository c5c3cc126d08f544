"""A line translated by the model: prompt, greedy or sampled decoding, early end.

Owns: what a prompt keeps when the window is too small, the token limit, when decoding ends.
Does not know: whether the result is any good (`guards`), what is learned from it.
Units: tokens.

A prompt is read in parts (`Prompts.parts`), and the cache goes from unit to unit: what the next prompt has in common
with the last one is not read again. A run that continues after a stop reads the same parts one by one, so that
roundings, and with them the text, are the same. Lines that are decoded side by side share all parts but their last one.

Tokens of a line are proposed by a lookup in lines like it and in its prompt (`model/lookup.py`), and one forward of
several tokens verifies them: each is chosen as always, by the logits after those before it, and what was proposed
otherwise is taken out of the cache. The text is the one that is written without (`compute.plain=[drafts]`), as far as
one token and several in a forward round alike. Proposals follow from the request alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from .. import tokenstream
from ..errors import ModelError
from ..generate import TextStream
from ..model import control
from ..model.forward import Cache
from ..model.lookup import Lookup
from ..model.picking import Picker
from . import guards
from .context import FOLLOWING, arrange
from .languages import Language
from .loop import Draft, Request
from .prompts import Pair, Prompts, common

if TYPE_CHECKING:
    from ..core.state import State

T = TypeVar("T")

LOOK = 16  # tokens between two looks for a loop
KEPT_SIZES = 4096  # pairs whose length is remembered


class Reading:
    """What a translator has read: a cache, the parts of prompts whose tokens it holds, and for which adapter."""

    def __init__(self, cache: Cache, version: int) -> None:
        self.cache = cache
        self.version = version
        self.parts: list[list[int]] = []


class ModelTranslator:
    """The session's model as a `loop.Translator`."""

    def __init__(self, session: State, prompts: Prompts, *, ratio: float = 3.0, extra: int = 24) -> None:
        """A translation may have `ratio` times the tokens of its source, and `extra`; never more than a chunk."""
        self.session = session
        self.prompts = prompts
        self.ratio = ratio
        self.extra = extra
        self._encoded: dict[str, list[int]] = {}
        self._sizes: dict[Pair, int] = {}

    def translate(self, request: Request) -> Draft:
        """See `loop.Translator`. A line that no prompt has room for comes back empty and cut."""
        limit = self._limit(request)
        parts = self._parts([request], self.session.settings.window.size - limit)
        if parts is None:
            return Draft("", cut=True)
        return self._whole_or_nothing(lambda: self._decode(parts[0], limit, request))

    def translate_lines(self, requests: Sequence[Request]) -> Sequence[Draft]:
        """See `loop.Translator`. One by one where they have no part in common, or not enough room."""
        limits = [self._limit(request) for request in requests]
        parts = self._parts(requests, self.session.settings.window.size - max(limits))
        drafts: Sequence[Draft] | None = None
        if parts is not None and len(parts[0]) > 1 and all(of[:-1] == parts[0][:-1] for of in parts):
            asked = [Asked(*of) for of in zip(parts, limits, requests, strict=True)]
            drafts = self._whole_or_nothing(lambda: self._side_by_side(asked))
        return drafts or [self.translate(request) for request in requests]

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

    def _parts(self, requests: Sequence[Request], room: int) -> list[list[list[int]]] | None:
        """Token ids of the parts of each prompt, all with as many of the last pairs as there is room for; None where
        there is none. The context is the first request's.
        """
        forgets = self.session.forward.forgets  # else all of a prompt is read each time: a short one, at once
        room_of_pairs = 3 * self.session.settings.window.size // 4
        block, lines = arrange(requests[0].context, room_of_pairs, self._size, FOLLOWING if forgets else 1)
        block = self.prompts.context(block)
        while True:
            texts = [self.prompts.parts(block, lines, [of.source], of.terms) for of in requests]
            found = [self._ids(of if forgets else ["".join(of)]) for of in texts]
            if all(sum(map(len, parts)) <= room for parts in found):
                return found
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
        reading = self._hold(parts[:-1])
        ids = torch.tensor(parts[-1])
        if reading is None:
            logits, cache = forward.prefill(ids)
            reading = Reading(cache, self._version)
        else:
            forward.mark(reading.cache)
            logits = forward.extend(ids, reading.cache)
        reading.parts = list(parts)
        self.session.reading = reading
        return logits, reading.cache

    def _hold(self, parts: Sequence[list[int]]) -> Reading | None:
        """A cache that holds the parts and nothing else, or None of none.

        Every part is read by itself, whether or not those before it were there: the numbers are the same.
        """
        forward = self.session.forward
        held = self.session.reading
        self.session.reading = None
        reading = held if isinstance(held, Reading) and held.version == self._version else None
        held_parts = common(reading.parts, parts) if reading is not None else 0
        while reading is not None and held_parts:
            length = sum(map(len, reading.parts[:held_parts]))
            if length == reading.cache.length or forward.rewind(reading.cache, length):
                break
            held_parts -= 1
        if not held_parts:
            reading = None
        for part in parts[held_parts:]:
            ids = torch.tensor(part)
            if reading is None:
                reading = Reading(forward.prefill(ids)[1], self._version)
            else:
                forward.extend(ids, reading.cache)
        if reading is not None:
            reading.parts = list(parts)
        return reading

    @property
    def _version(self) -> int:
        adapter = self.session.adapter
        return adapter.version if adapter is not None else 0

    # --- the answer ---

    def _decode(self, parts: Sequence[list[int]], limit: int, request: Request) -> Draft:
        session = self.session
        session.at_rest = False
        line = Line(session, parts, limit, request)
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

    def _side_by_side(self, asked: Sequence[Asked]) -> list[Draft] | None:
        """A draft of each; None where the forward path cannot."""
        session = self.session
        session.at_rest = False
        with session.memory.phase("decode"):
            reading = self._hold(asked[0].parts[:-1])
            assert reading is not None
            session.reading = reading
            # 1. a cache for each, the longest first: they end last, and only the first ones are decoded on
            order = sorted(range(len(asked)), key=lambda number: (-asked[number].limit, number))
            tails = [torch.tensor(asked[number].parts[-1]) for number in order]
            room = max(map(len, tails)) + asked[order[0]].limit
            caches = session.forward.lines(reading.cache, len(order), room)
            if caches is None:
                return None
            lines = [Line(session, *asked[number]) for number in order]
            going = [
                line.take(session.forward.extend(tail, cache))
                for line, tail, cache in zip(lines, tails, caches, strict=True)
            ]
            # 2. a token of each
            while any(going):
                count = len(going) - going[::-1].index(True)
                logits = session.forward.decode_lines([line.token for line in lines[:count]], caches)
                going = [
                    wanted and line.take(row) for wanted, line, row in zip(going[:count], lines, logits, strict=False)
                ]
        return [lines[order.index(number)].draft() for number in range(len(asked))]


class Asked(NamedTuple):
    """A prompt's parts, the tokens that its answer may have, and what it asks for."""

    parts: Sequence[list[int]]
    limit: int
    request: Request


class Line:
    """One line while it is written.

    Attributes:
        token: the last one.
    """

    def __init__(self, session: State, parts: Sequence[list[int]], limit: int, request: Request) -> None:
        attempt = request.attempt
        settings = dataclasses.replace(
            session.settings.generate,
            temperature=attempt.temperature,
            repetition_penalty=attempt.repetition_penalty,
        )
        self.token = -1
        self._limit = limit
        self._ends = session.base.eos_ids
        # the penalty looks at this line alone: names of the context are meant to come again
        barred = control.barred(session.base)
        if request.without:
            barred = torch.cat([barred, control.written_in(session.base, *request.without)])
        self._picker = Picker(settings, barred, request.seed)
        self._stream = TextStream(session.base, list(chain(*parts)), ("\n",))
        self._expects_loop = guards.loop(request.source, guards.Limits.loop // 3)
        self._count = 0
        self._text = ""
        self._cut = True

    @property
    def room(self) -> int:
        """Tokens that the line may still have behind the next one."""
        return max(0, self._limit - self._count - 1)

    def take(self, logits: torch.Tensor) -> bool:
        """Chooses the next token by (V,) logits; whether another one is to follow."""
        self.token, _ = self._picker.pick(logits, self._count)
        self._count += 1
        if self.token in self._ends:
            self._cut = False
            return False
        self._text += self._stream.add(self.token)
        if self._stream.stopped:
            self._cut = False
            return False
        if self._count % LOOK == 0 and not self._expects_loop and guards.loop(self._text):
            return False
        return self._count < self._limit

    def draft(self) -> Draft:
        """What was written."""
        return Draft(self._text + self._stream.flush(), self._count, self._cut)


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
