"""A line translated by the model: prompt, greedy or sampled decoding, early end.

Owns: what a prompt keeps when the window is too small, the token limit, when decoding ends.
Does not know: whether the result is any good (`guards`), what is learned from it.
Units: tokens.

A prompt is read in parts (`Prompts.parts`), and the cache goes from unit to unit: what the next prompt has in common
with the last one is not read again. A run that continues after a stop reads the same parts one by one, so that
roundings, and with them the text, are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import torch

from ..errors import ModelError
from ..generate import TextStream
from ..model import control
from ..model.forward import Cache
from ..model.picking import Picker
from . import guards
from .context import arrange
from .languages import Language
from .loop import Draft, Request
from .prompts import Pair, Prompts

if TYPE_CHECKING:
    from ..core.state import State

LOOK = 16  # tokens between two looks for a loop
KEPT_SIZES = 4096  # pairs whose length is remembered


class Reading:
    """What a translator has read: a cache, the parts of prompts whose tokens it holds, and for which adapter."""

    def __init__(self, cache: Cache, version: int) -> None:
        self.cache = cache
        self.version = version
        self.parts: list[list[int]] = []

    def common(self, parts: Sequence[Sequence[int]]) -> int:
        """How many of the first parts it holds."""
        pairs = enumerate(zip(self.parts, parts, strict=False))
        return next((i for i, (held, part) in pairs if held != part), min(len(self.parts), len(parts)))


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
        window = self.session.settings.window
        limit = int(self.ratio * len(encode_more(self.session, request.source))) + self.extra
        limit = min(limit, window.chunk)
        parts = self._parts(request, window.size - limit)
        if parts is None:
            return Draft("", cut=True)
        return self.session.memory.retrying(lambda: self._whole_or_nothing(parts, limit, request))

    def _whole_or_nothing(self, parts: Sequence[list[int]], limit: int, request: Request) -> Draft:
        try:
            return self._decode(parts, limit, request)
        except BaseException:
            self.session.reading = None  # half a token longer, or too much for the memory
            raise

    # --- the prompt ---

    def _parts(self, request: Request, room: int) -> list[list[int]] | None:
        """Token ids of a prompt's parts, with as many of the last pairs as there is
        room for; None where there is none.
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
        """Logits after the parts, and a cache that holds them: the last one read since, those before it kept.

        Every part is read by itself, whether or not those before it were there: the numbers are the same.
        """
        session = self.session
        adapter = self.session.adapter
        version = adapter.version if adapter is not None else 0
        reading = session.reading
        common = 0
        session.reading = None
        if isinstance(reading, Reading) and reading.version == version:
            common = reading.common(parts[:-1])
            length = sum(map(len, reading.parts[:common]))
            if not common or not session.forward.rewind(reading.cache, length):
                reading = None
                common = 0
        else:
            reading = None
        for index, part in enumerate(parts[common:], common):
            ids = torch.tensor(part)
            if reading is None:
                logits, cache = session.forward.prefill(ids)
                reading = Reading(cache, version)
            else:
                if index == len(parts) - 1:
                    session.forward.mark(reading.cache)
                logits = session.forward.extend(ids, reading.cache)
        assert reading is not None
        reading.parts = list(parts[:-1])
        session.reading = reading
        return logits, reading.cache

    # --- the answer ---

    def _decode(self, parts: Sequence[list[int]], limit: int, request: Request) -> Draft:
        session = self.session
        attempt = request.attempt
        settings = dataclasses.replace(
            session.settings.generate,
            temperature=attempt.temperature,
            repetition_penalty=attempt.repetition_penalty,
            seed=request.seed,
        )
        picker = Picker(settings, control.barred(session.base))
        stream = TextStream(session.base, list(chain(*parts)), ("\n",))
        session.at_rest = False
        expects_loop = guards.loop(request.source, guards.Limits.loop // 3)
        made: list[int] = []
        text = ""
        cut = True
        with session.memory.phase("decode"):
            logits, cache = self._read(parts)
            while len(made) < limit:
                # the penalty looks at this line alone: names of the context are meant to come again
                token, _ = picker.pick(logits, len(made))
                made.append(token)
                if token in session.base.eos_ids:
                    cut = False
                    break
                text += stream.add(token)
                if stream.stopped:
                    cut = False
                    break
                if len(made) % LOOK == 0 and not expects_loop and guards.loop(text):
                    break
                if len(made) < limit:
                    logits = session.forward.decode(token, cache)
        return Draft(text + stream.flush(), len(made), cut)


def encode_more(session: State, text: str) -> list[int]:
    """Token ids of a text that something stands before."""
    ids: list[int] = session.base.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


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
        unknown = session.base.tokenizer.unk_token_id
        lost = [c for c in sample if not c.isspace() and c not in back] if back.split() != sample.split() else []
        if (unknown is not None and ids.count(unknown) > len(sample) // 100) or 100 * len(lost) > len(sample):
            raise ModelError(
                f"{session.base.reference} cannot write {language.name} (its tokenizer loses '{''.join(lost[:5])}')",
                "a model that knows both languages",
                "use another model",
            )
