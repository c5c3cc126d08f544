"""The job: what is to be translated, and how.

Owns: the choices of a translation and their defaults. Does not know: what is done with them.
Units: units of a document, tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..documents import Unit
from ..errors import SettingsError
from .glossary import Glossary
from .guards import Limits
from .languages import Language
from .prompts import Pair


@dataclass(frozen=True)
class Attempt:
    """How the model is asked: greedy, or sampled above temperature 0; with how many context pairs at most."""

    temperature: float = 0.0
    repetition_penalty: float = 1.0
    context: int | None = None


ATTEMPTS = (
    Attempt(),
    Attempt(repetition_penalty=1.15),
    Attempt(temperature=0.5, repetition_penalty=1.1),
    Attempt(temperature=0.8, repetition_penalty=1.1, context=3),
)


@dataclass(frozen=True)
class Job:
    """What is to be translated, and how.

    Attributes:
        context_units: how many finished pairs a prompt shows (the paper's k).
        corrections: pairs of the user's own, in their order; a unit with such a source gets that translation.
        corrected: those that are of one unit, by its id: another unit with the same source may have another one.
        learn: what the adapter learns from: some of `LEARN`.
        names: whether names that were found are shown and looked for.
        carried: corrections of an earlier volume, which its adapter has learned; those of this one go before them.
        earlier: pairs that were accepted in earlier volumes: what names are called there.
        is_word: whether the model's tokenizer has a text whole; None where no model is there (`sounds`).
        lines: how many units are decoded side by side (`together`).
        candidates: drafts of a unit where the first leaves doubts (`drafts`): 1 looks at names alone.
    """

    units: Sequence[Unit]
    source: Language
    target: Language
    context_units: int = 8
    learn: frozenset[str] = frozenset({"self"})
    glossary: Glossary = field(default_factory=lambda: Glossary({}))
    corrections: Sequence[Pair] = ()
    corrected: Mapping[str, Pair] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    attempts: Sequence[Attempt] = ATTEMPTS
    names: bool = True
    candidates: int = 1
    lines: int = 1
    is_word: Callable[[str], bool] | None = None
    carried: Sequence[Pair] = ()
    earlier: Sequence[Pair] = ()

    def __post_init__(self) -> None:
        if self.context_units < 0:
            raise SettingsError(f"--context-units is {self.context_units}", "0 or more")
