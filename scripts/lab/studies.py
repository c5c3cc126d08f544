"""What the studies in this folder share: rows of a file, and how much a text repeats itself.

Owns: nothing that the product needs. Units: token ids; shares of n-grams.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class RowFile:
    """Rows of a study, one JSON object a line, kept as they are made; a line that a stop tore is made again.

    Attributes:
        rows: what is there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.rows: list[dict[str, Any]] = []
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            try:
                self.rows.append(json.loads(line))
            except ValueError:
                break

    def add(self, row: dict[str, Any]) -> None:
        """Keeps a row."""
        self.rows.append(row)
        self.path.write_text("".join(json.dumps(kept) + "\n" for kept in self.rows), "utf-8")


def distinct(tokens: Sequence[int], n: int) -> float:
    """Different n-grams over all n-grams (distinct-n of arXiv 1510.03055); 1 for a text too short to have one."""
    grams = list(zip(*(tokens[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def longest_repeat(tokens: Sequence[int]) -> int:
    """Length of the longest span that occurs at least twice, by neighbours in the
    sorted suffixes; the two may overlap.
    """
    suffixes = sorted(list(tokens[i:]) for i in range(len(tokens)))
    longest = 0
    for one, two in zip(suffixes, suffixes[1:], strict=False):
        if len(one) > longest and one[:longest] == two[:longest]:
            length = next(
                (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
            )
            longest = max(longest, length)
    return longest
