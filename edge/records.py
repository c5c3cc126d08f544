"""The records that the loops yield: plain facts about what was done, ready for JSON.

Owns: the shape of every record, and how one becomes a JSON object and back.
Does not know: torch, models, files, printing.
Units: positions and counts in tokens, `nll` in nats (a sum, never a mean), time in seconds, memory in bytes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Record:
    """Base of all records; `kind` names the type inside JSON."""

    kind: ClassVar[str] = "record"

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object, its `kind` included."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Learned:
    """What the learner did with one chunk.

    Attributes:
        losses: the chunk's summed nll before each epoch's step, in nats.
        kept: False where the guard rolled the update back.
        reason: why it was rolled back or skipped; empty otherwise.
        seconds: wall time of the learning alone.
        grad_norm: the gradient's norm at the last step.
        skipped: nothing was learned: learning rests, or the text repeats itself.
    """

    losses: tuple[float, ...] = ()
    kept: bool = True
    reason: str = ""
    seconds: float = 0.0
    grad_norm: float = 0.0
    skipped: bool = False


@dataclass(frozen=True)
class ChunkScore(Record):
    """One scored chunk: tokens [start, end) of the document, of which `tokens` were predicted.

    The document's first token has nothing before it and is never scored, so the first chunk has
    `tokens == end - start - 1`. `full_nll`: of the base with full attention over all tokens before
    (`model/baseline.py`).
    """

    kind: ClassVar[str] = "score"

    index: int
    start: int
    end: int
    tokens: int
    base_nll: float | None
    adapter_nll: float | None
    seconds: float
    peak_bytes: int
    text_bytes: int = 0
    score_seconds: float = 0.0
    learned: Learned | None = None
    full_nll: float | None = None


@dataclass(frozen=True)
class ChunkRead(Record):
    """One chunk of a prompt that was read into the adapter: nothing is generated for it."""

    kind: ClassVar[str] = "read"

    index: int
    start: int
    end: int
    of: int
    tokens: int
    adapter_nll: float
    seconds: float
    peak_bytes: int
    learned: Learned | None = None


@dataclass(frozen=True)
class TextPiece(Record):
    """Newly generated text, as soon as it is certain (whole characters, stop strings held back)."""

    kind: ClassVar[str] = "text"

    text: str
    tokens: int


@dataclass(frozen=True)
class ChunkWritten(Record):
    """One generated chunk, after the adapter has learned from it."""

    kind: ClassVar[str] = "written"

    index: int
    start: int
    end: int
    tokens: int
    nll: float
    seconds: float
    decode_seconds: float
    peak_bytes: int
    token_ids: tuple[int, ...] = ()
    learned: Learned | None = None
    finish: str = ""


@dataclass(frozen=True)
class UnitTranslated(Record):
    """One unit of a document with the translation that it got.

    Attributes:
        end: how many units are done with this one.
        status: `model`, `pieces` (sentence by sentence), `corrected` (the user's own), `copied` (nothing to translate),
            `marked` (no attempt passed the guards).
        text: the translation; of a marked unit the best attempt, or empty where none is of use.
        problems: what the guards found in the attempts that failed, each kind once.
        attempts: how often the model was asked, pieces included.
        tokens: generated in all attempts.
    """

    kind: ClassVar[str] = "unit"

    end: int
    id: str
    source: str
    text: str
    status: str
    problems: tuple[str, ...] = ()
    attempts: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Lesson(Record):
    """The end of a chunk of a translation, and what the adapter learned from it.

    Attributes:
        of: `self`, `source`, `corrections`, or `none` where nothing is learned.
        start: units [start, end) of the document; both are the units done before, for corrections.
        tokens: label tokens.
        nll: their nats before they were learned; None where nothing was.
        seconds: since the lesson before.
        gains: of the model's own translations, each one's gain (`translation.meaning`), in their order.
    """

    kind: ClassVar[str] = "lesson"

    index: int
    of: str
    start: int
    end: int
    tokens: int
    nll: float | None
    seconds: float
    peak_bytes: int
    learned: Learned | None = None
    gains: tuple[float, ...] = ()


@dataclass(frozen=True)
class Corrected(Record):
    """What the user has corrected while the run went on, taken in at the end of a chunk.

    Attributes:
        end: how many units were done.
        ids: the units, done or still to come; `sources` and `targets` are their texts.
        taught: whether a lesson on them follows, and on those before that had none.
        again: the units that are translated again after it, by their ids.
    """

    kind: ClassVar[str] = "corrected"

    end: int
    ids: tuple[str, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    taught: bool = False
    again: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChunkEvaluated(Record):
    """One chunk of an evaluation: the nats of its references, and what was translated of it.

    Attributes:
        start, end: pairs [start, end) of the aligned text.
        tokens: of the references.
        nll: of the references, before anything of this chunk was learned.
        texts: the translations, one a pair; empty where the chunk was not translated.
        marked: how many of them failed the guards.
    """

    kind: ClassVar[str] = "evaluated"

    index: int
    start: int
    end: int
    tokens: int
    nll: float
    seconds: float
    peak_bytes: int
    texts: tuple[str, ...] = ()
    marked: int = 0
    learned: Learned | None = None


@dataclass(frozen=True)
class Side:
    """A running total: one contender (base or adapter) over all its chunks."""

    nll: float = 0.0
    tokens: int = 0
    text_bytes: int = 0
    chunk_perplexities: tuple[float, ...] = field(default=(), repr=False)

    def add(self, nll: float, tokens: int, text_bytes: int = 0) -> Side:
        """A new total with one more chunk in it."""
        per_chunk = (*self.chunk_perplexities, perplexity(nll, tokens)) if tokens else self.chunk_perplexities
        return Side(self.nll + nll, self.tokens + tokens, self.text_bytes + text_bytes, per_chunk)

    def to_json(self) -> dict[str, float | None]:
        """`nll`, `perplexity`, `bits_per_byte`, and the mean of per-chunk perplexities under its own name."""
        chunks = self.chunk_perplexities
        return {
            "nll": self.nll,
            "perplexity": finite(perplexity(self.nll, self.tokens)),
            "bits_per_byte": finite(self.nll / math.log(2) / self.text_bytes) if self.text_bytes else None,
            "mean_chunk_perplexity": finite(math.fsum(chunks) / len(chunks)) if chunks else None,
        }


def perplexity(nll: float, tokens: int) -> float:
    """exp(sum of nats / sum of tokens); infinite where that overflows, nan without tokens."""
    if not tokens:
        return math.nan
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return math.inf


def finite(value: float) -> float | None:
    """`value`, or None where JSON has no word for it (nan, inf)."""
    return value if math.isfinite(value) else None


def total(chunks: Iterable[ChunkScore], side: str) -> Side:
    """The total of `base`, `adapter` or `full` over `chunks`, in order; chunks without that side are left out."""
    result = Side()
    for chunk in chunks:
        nll = getattr(chunk, f"{side}_nll")
        if nll is not None:
            result = result.add(nll, chunk.tokens, chunk.text_bytes)
    return result


_KINDS: dict[str, type[Record]] = {
    cls.kind: cls
    for cls in (ChunkScore, ChunkRead, TextPiece, ChunkWritten, UnitTranslated, Lesson, Corrected, ChunkEvaluated)
}


def from_json(data: Mapping[str, Any]) -> Record:
    """The record that `Record.to_json` wrote.

    Raises:
        KeyError: the kind is not known.
        TypeError: a field is missing or unknown.
    """
    values = dict(data)
    cls = _KINDS[values.pop("kind")]
    if isinstance(values.get("learned"), Mapping):
        learned = dict(values["learned"])
        learned.pop("after", None)  # always empty in what earlier versions wrote by default
        learned["losses"] = tuple(learned.get("losses", ()))
        values["learned"] = Learned(**learned)
    for name in ("token_ids", "problems", "texts", "gains", "ids", "sources", "targets", "again"):
        if name in values:
            values[name] = tuple(values[name])
    return cls(**values)
