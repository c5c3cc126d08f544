"""Scores of translations against references: BLEU, chrF, names.

Owns: which scorer with which options, and its signature. Does not know: how translations were made, files, printing.
Units: BLEU and chrF from 0 to 100 (sacrebleu, Post 2018); shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import consistency
from .candidates import Candidates
from .languages import Language
from .names import Memory
from .prompts import Pair


def overlap(translations: Sequence[str], references: Sequence[str], target: Language) -> dict[str, Any]:
    """Corpus BLEU and chrF with sacrebleu's signatures. Chinese is tokenised by sacrebleu's `zh`, Japanese, Thai and
    others without spaces by characters.
    """
    from sacrebleu.metrics import BLEU, CHRF

    tokenizers = {"zh": "zh", "ja": "char", "th": "char", "lo": "char", "km": "char", "my": "char"}
    result: dict[str, Any] = {"units": len(translations)}
    for name, metric in (("bleu", BLEU(tokenize=tokenizers.get(target.code, "13a"))), ("chrf", CHRF())):
        score = metric.corpus_score(list(translations), [list(references)])
        result[name] = score.score
        result[f"{name}_signature"] = str(metric.get_signature())
    return result


def name_consistency(
    names: Sequence[consistency.Name], pairs: Sequence[Pair], target: Language
) -> dict[str, float | int | None]:
    """`consistency.steadiness` of those `names` that occur in at least two of `pairs`."""
    found = consistency.follow([name.source for name in names], pairs, target)
    return consistency.steadiness([name for name in found if name.units >= 2])


def reference_names(pairs: Sequence[Pair], source: Language, target: Language) -> list[consistency.Name]:
    """The names of the source that the references render steadily: those that a memory of all of them has found."""
    memory = Memory(Candidates([pair.source for pair in pairs], source), target)
    for pair in pairs:
        memory.learn(pair)
    found = consistency.follow([name.source for name in memory.names()], pairs, target)
    return [name for name in found if consistency.is_name(name)]
