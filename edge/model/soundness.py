"""Whether a base keeps its word when old keys and values are dropped: measured on a short text, once a base.

Owns: the text, the comparison, where its result is kept.
Does not know: what follows from it (`runtime.load`), plans, printing.
Units: tokens; perplexity.

Kept keys and values (`learn.prefix=cached`) are those of a longer text than a window. Most models read them as well as
a window that is computed anew, where the first tokens stay; one that does not would be made worse by every chunk.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import journal, windows
from ..errors import no_numbers
from ..machine.held import is_out_of_memory
from ..settings import Settings
from ..store import folders
from ..weights import alone
from .base import Base
from .forward import TorchForward

TEXT = Path(__file__).with_name("soundness.txt")
LABELS = 128  # tokens that are scored, after `LABELS` of context in a window
READ = 3 * LABELS  # tokens of the text that are read in all
ALLOWED = 0.05  # of perplexity; the models that are shipped or named in the tables lie within 0.01


@dataclass(frozen=True)
class Soundness:
    """Perplexity of the same tokens after the same context.

    Attributes:
        anew: in a window that is computed by itself.
        kept: behind keys and values that were kept while older ones were dropped.
    """

    anew: float
    kept: float

    @property
    def worse(self) -> float:
        """By which share kept keys are worse; below 0 where they are better."""
        return self.kept / self.anew - 1

    @property
    def sound(self) -> bool:
        """Whether kept keys may be used; no number is no yes."""
        return self.worse <= ALLOWED

    def said(self) -> str:
        """One line for the user."""
        if math.isnan(self.kept):
            return "this model's layers cannot keep keys and values while old ones are dropped"
        return (
            f"with keys and values kept and old ones dropped this model's perplexity is {self.kept:.1f} "
            f"on a test text, {self.anew:.1f} in a window of its own ({self.worse:+.0%})"
        )


def measure(base: Base, settings: Settings) -> Soundness:
    """Compares both, with the sinks that the settings name; 640 tokens are computed. `settings`: a plan's, without
    `auto`.

    Raises:
        ModelError: the model gives no numbers in a window of its own.
    """
    forward = TorchForward(base, None, settings.compute)
    sinks = base.sinks(settings.window)
    ids = base.encode(TEXT.read_text("utf-8"))[:READ]
    window = windows.last(ids, 2 * LABELS, sinks)
    with alone.making(base.reference):
        anew = forward.nll(torch.tensor(window), LABELS, adapter=False)
    if not anew.isfinite().all():
        raise no_numbers()
    first = READ - LABELS - 1  # the token before the labels predicts the first of them
    try:
        prefix = forward.read_prefix(torch.tensor(ids[:first]), LABELS - 1, sinks, adapter=False)
        kept = forward.nll(torch.tensor(ids[first:]), LABELS, adapter=False, prefix=prefix)
    except Exception as error:  # layers that have no keys and values raise whatever they like
        if is_out_of_memory(error):
            raise
        kept = torch.tensor(math.nan)
    return Soundness(*(_perplexity(float(nats.double().mean())) for nats in (anew, kept)))


def _perplexity(nats: float) -> float:
    return nats if math.isnan(nats) else math.exp(min(700.0, nats))


def of(base: Base, settings: Settings) -> Soundness:
    """What `measure` gives; kept in the cache for a 4-bit folder made here, whose
    files are known by their checksums.
    """
    if not base.manifest():
        return measure(base, settings)
    what = {
        "weights": base.fingerprint(),
        "text": journal.file_fingerprint(TEXT),
        "sinks": base.sinks(settings.window),
        "device": f"{base.device.kind} {base.device.units}",
    }
    path = folders.cache_root() / "soundness" / f"{journal.fingerprint(what)}.json"
    try:
        found = Soundness(**json.loads(path.read_text("utf-8")))
        if all(isinstance(value, float) and value > 0 for value in dataclasses.astuple(found)):
            return found
    except (OSError, ValueError, TypeError):
        pass  # not there yet, or not whole: measured again
    found = measure(base, settings)
    folders.remember(path, json.dumps(dataclasses.asdict(found)).encode())
    return found
