"""Reviews as files of other tools: XLIFF, PO and tables, so that an editor for translators can be the review.

Owns: which form a file's name asks for.
Does not know: the forms themselves (`pairs`, `xliff`, `po`), how the text gets into a file.
Units: one row for each unit that was translated.

`pairs.read` and `pairs.by_unit` read each of them back: what was edited or confirmed there is a correction.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

from ..errors import SettingsError
from ..records import UnitTranslated
from . import pairs, po, tsv, xliff
from .languages import Language

SUFFIXES = (".tsv", ".csv", ".xlf", ".xliff", ".po")


def check(path: str | Path) -> None:
    """Refuses a name that no review can have.

    Raises:
        SettingsError: its ending is none of `SUFFIXES`.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise SettingsError(
            f"{path} has the suffix '{Path(path).suffix}'", "a review as one of " + ", ".join(SUFFIXES), "rename it"
        )


def write(
    path: str | Path,
    rows: Iterable[UnitTranslated],
    source: Language,
    target: Language,
    doubtful: Container[str] = (),
) -> str:
    """The text of a review, in the form that the ending of `path` asks for; UTF-8, and nothing is written to a file.

    `.xlf` is XLIFF 1.2, `.xliff` XLIFF 2.0.

    Args:
        rows: what was translated; what was only copied is left out.
        doubtful: ids of units that a table names to be looked at first.

    Raises:
        SettingsError: as `check`.
    """
    check(path)
    suffix = Path(path).suffix.lower()
    kept = [row for row in rows if row.status != "copied"]
    if suffix == ".po":
        return po.write(kept, source, target)
    if suffix in (".xlf", ".xliff"):
        return xliff.write(kept, source, target, version="1.2" if suffix == ".xlf" else "2.0")
    if suffix == ".csv":
        return tsv.written([[pairs.REVIEW], *pairs.review_rows(kept, doubtful)])
    return pairs.review(kept, doubtful)
