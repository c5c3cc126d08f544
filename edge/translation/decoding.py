"""A line translated by the model: prompt, greedy or sampled decoding, early end.

Owns: what a prompt keeps when the window is too small, the token limit, when decoding ends.
Does not know: whether the result is any good (`guards`), what is learned from it.
Units: tokens.

Each attempt computes its prompt anew: a cache carried from unit to unit would hold other roundings than the one that a
resumed run makes, and its text could differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import ModelError
from ..generate import Picker, TextStream
from . import guards
from .languages import Language
from .loop import Draft, Request
from .prompts import Prompts

if TYPE_CHECKING:
    from ..session import Session

LOOK = 16  # tokens between two looks for a loop


class ModelTranslator:
    """The session's model as a `loop.Translator`."""

    def __init__(self, session: Session, prompts: Prompts, *, ratio: float = 3.0, extra: int = 24) -> None:
        """A translation may have `ratio` times the tokens of its source, and `extra`; never more than a chunk."""
        self.session, self.prompts = session, prompts
        self.ratio, self.extra = ratio, extra

    def translate(self, request: Request) -> Draft:
        """See `loop.Translator`. A line that no prompt has room for comes back empty and cut."""
        window = self.session.settings.window
        limit = int(self.ratio * len(encode_more(self.session, request.source))) + self.extra
        limit = min(limit, window.chunk)
        prompt = self._prompt(request, window.size - limit)
        if prompt is None:
            return Draft("", cut=True)
        return self.session.retrying(lambda: self._decode(prompt, limit, request))

    def _prompt(self, request: Request, room: int) -> list[int] | None:
        """The prompt with as many of the last context pairs as there is room for; None where there is none at all."""
        pairs = self.prompts.context(request.context)
        for first in range(len(pairs) + 1):
            text = self.prompts.prompt(pairs[first:], [request.source], request.terms)
            ids = encode_prompt(self.session, self.prompts, text)
            if len(ids) <= room:
                return ids
        return None

    def _decode(self, prompt: list[int], limit: int, request: Request) -> Draft:
        session, attempt = self.session, request.attempt
        settings = dataclasses.replace(
            session.settings.generate,
            temperature=attempt.temperature,
            repetition_penalty=attempt.repetition_penalty,
            seed=request.seed,
        )
        picker, stream = Picker(settings), TextStream(session.base, prompt, ("\n",))
        session.at_rest = False
        expects_loop = guards.loop(request.source, guards.Limits.loop // 3)
        made: list[int] = []
        text, cut = "", True
        with session.phase("decode"):
            logits, cache = session.forward.prefill(torch.tensor(prompt))
            while len(made) < limit:
                # the penalty looks at this line alone: names of the context are meant to come again
                token, _ = picker.pick(logits, made or prompt[:1], len(made))
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


def encode_more(session: Session, text: str) -> list[int]:
    """Token ids of a text that something stands before."""
    ids: list[int] = session.base.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def encode_prompt(session: Session, prompts: Prompts, text: str) -> list[int]:
    """Token ids of a prompt. A chat template writes the tokenizer's BOS itself."""
    return encode_more(session, text) if prompts.template.form == "chat" else session.base.encode(text)


def require_languages(session: Session, texts: Sequence[str], source: Language, target: Language) -> None:
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
