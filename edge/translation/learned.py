"""What all learned metrics of translations have in common.

Owns: a pair with its reference, where a checkpoint's tokenizer lies, batches. Does not know: any metric.
Units: tokens, bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BudgetError, ModelError, no_numbers
from ..tokenstream import asked
from ..values.amounts import format_bytes

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 2048  # tokens of a batch, padding included
CONFIG = "config.json"
TOKENIZERS = ("tokenizer.json", "sentencepiece.bpe.model", "spiece.model")
ROOM = 300 << 20  # bytes that a batch takes beside the weights: its attention scores, and three rows as wide as an MLP


@dataclass(frozen=True)
class Sample:
    """A translation with what it is compared with."""

    source: str
    translation: str
    reference: str


@dataclass(frozen=True)
class Metric:
    """A checkpoint that lies on this disk, looked at and not loaded.

    Attributes:
        name: of the metric.
        better: `higher` or `lower`, which scores are.
        reads: what it compares a translation with.
        size: bytes that it holds while it works.
        load: to the named torch device; what it returns gives one score for each sample.
    """

    name: str
    better: str
    reads: tuple[str, ...]
    size: int
    load: Callable[[str], Callable[[Sequence[Sample]], list[float]]]

    def require_room(self, held: int, budget: int) -> None:
        """Refuses a metric that cannot fit where a base was, before either works.

        Args:
            held: bytes of the process without a base.

        Raises:
            BudgetError: they and the metric's are more than the budget.
        """
        if held + self.size > budget:
            raise BudgetError(
                f"{self.name} takes {format_bytes(held + self.size)}", f"no more than {format_bytes(budget)}",
                "use a larger --memory-budget or a smaller checkpoint",
            )  # fmt: skip

    def scores(self, device: str, texts: Mapping[str, Sequence[Sample]]) -> dict[str, dict[str, Any]]:
        """For each of `texts` the mean score and those of its samples, for reports; loads the metric once.

        Raises:
            ModelError: a score is no number.
        """
        score = self.load(device)
        found = {}
        for name, samples in texts.items():
            each = score(samples) if samples else []
            if not all(map(math.isfinite, each)):
                raise no_numbers(f"{self.name} gives scores that are no numbers", "finite scores")
            found[name] = {
                "name": self.name,
                "better": self.better,
                "reads": list(self.reads),
                "score": sum(each) / len(each) if each else None,
                "scores": each,
            }
        return found


def tokenizer_folder(folder: Path, hub_ids: Sequence[str]) -> Path:
    """The first folder that has a tokenizer and a config: the checkpoint's own, or one in the hub's cache.

    Raises:
        ModelError: there is none.
    """
    from huggingface_hub import try_to_load_from_cache

    places = [folder]
    for hub_id in hub_ids:
        with suppress(ValueError):  # the folder of whoever trained it is no hub id
            found = try_to_load_from_cache(hub_id, CONFIG)
            places += [Path(found).parent] if isinstance(found, str) else []
    for place in places:
        if (place / CONFIG).is_file() and any((place / name).is_file() for name in TOKENIZERS):
            return place
    raise ModelError(
        f"{folder} has no tokenizer, and the cache of the hub has none of {' or '.join(hub_ids)}",
        f"{CONFIG} and tokenizer.json beside the checkpoint", f"copy them from {hub_ids[0]}",
    )  # fmt: skip


class Words:
    """A metric's tokenizer.

    Attributes:
        filler: the id of padding. end: that of a text's end.
    """

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer`: transformers' own, with an id for padding."""
        self.tokenizer = tokenizer
        self.filler: int = asked(lambda: int(tokenizer.pad_token_id))
        self.end: int = asked(lambda: int(tokenizer.sep_token_id or tokenizer.eos_token_id))

    def ids(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        """Token ids of each text with its special tokens, at most `limit` of them."""
        return [
            list(row)
            for row in asked(lambda: self.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"])
        ]


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of texts of about the same length, at most `BATCH` tokens of them together."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and lengths[index] * (len(batch) + 1) > BATCH:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], filler: int, device: str) -> tuple[Tensor, Tensor]:
    """(N, S) token ids, and 1 where they are no padding."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask


def in_batches(
    rows: Sequence[Sequence[int]], words: Words, device: str, compute: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """What `compute` gives for each of N texts, (N, ...): it is asked for some at a time, (n, S) ids and their mask."""
    import torch

    found: dict[int, Tensor] = {}
    for batch in batches([len(row) for row in rows]):
        ids, mask = padded([rows[i] for i in batch], words.filler, device)
        found |= zip(batch, compute(ids, mask), strict=True)
    return torch.stack([found[i] for i in range(len(rows))])
