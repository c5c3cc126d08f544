"""What a review says, whatever file it is in: which rows are corrections.

Owns: the fingerprint by which an edited translation is told from an untouched one, what counts as confirmed.
Does not know: formats (`pairs`, `xliff`, `po`), what the corrections are for.
Units: rows.

A row is a correction where its translation is not what was written any more, or where it was confirmed: `ok` or
`corrected` in a table, a state such as `final` in XLIFF, no `fuzzy` mark in PO.

A fingerprint begins with a letter beyond f: of eight hexadecimal digits one in sixty is a number to a spreadsheet,
which writes 00012345 as 12345 and 12345e12 as 1.23E+16. A file that was saved half-way may end inside of one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..journal import fingerprint

CONFIRMED = ("ok", "corrected")  # statuses that a table says it by
CHECK = re.compile(r"templora check ([0-9a-v][0-9a-f]{7})")  # in the note of a row
_FIRST = "ghijklmnopqrstuv"  # for the first digit


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
        if self.confirmed or not self.check:
            return self.confirmed
        written = check(self.target)
        return not written.startswith(self.check) and self.check != _older(written)


def check(text: str) -> str:
    """The fingerprint of a translation; white space does not count."""
    found = fingerprint(" ".join(text.split()))[:8]
    return _FIRST[int(found[0], 16)] + found[1:]


def _older(check: str) -> str:
    """The same as earlier versions wrote it: all of it hexadecimal."""
    return f"{_FIRST.index(check[0]):x}{check[1:]}"
