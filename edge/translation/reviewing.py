"""What a review says, whatever file it is in: which rows are corrections.

Owns: the fingerprint by which an edited translation is told from an untouched one, what counts as confirmed.
Does not know: formats (`pairs`, `xliff`, `po`), what the corrections are for.
Units: rows.

A row is a correction where its translation is not what was written any more, or where it was confirmed: `ok` or
`corrected` in a table, a state such as `final` in XLIFF, no `fuzzy` mark in PO.
"""

from __future__ import annotations

from typing import NamedTuple

from ..journal import fingerprint

CONFIRMED = ("ok", "corrected")  # statuses that a table says it by


class Entry(NamedTuple):
    """One pair of a file.

    Attributes:
        id: of the unit that it belongs to; empty where the file is no review.
        check: the fingerprint of the translation as it was written; empty where the file is no review.
        confirmed: the file says that the translation is right.
    """

    source: str
    target: str
    id: str = ""
    check: str = ""
    confirmed: bool = True

    @property
    def is_correction(self) -> bool:
        """Whether it is to be used, and learned."""
        if not self.source.strip() or not self.target.strip():
            return False
        return self.confirmed or bool(self.check and check(self.target) != self.check)


def check(text: str) -> str:
    """The fingerprint of a translation; white space does not count."""
    return fingerprint(" ".join(text.split()))[:8]
