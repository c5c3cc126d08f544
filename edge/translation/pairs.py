"""Aligned texts in files: tables, TMX, XLIFF, PO, JSON, and the project's own review files.

Owns: reading pairs of source and target lines, in their order; a review as a table.
Does not know: what the pairs are for (corrections, evaluation), the syntax of XLIFF (`xliff`) and PO (`po`).
Units: lines count from 1.

A review table has five columns and more: source, target, status, id, check. `check` is a fingerprint of the target as
it was written, so that an edited row can be told from an untouched one (`reviewing`). A cell that a spreadsheet would
take for a formula has an apostrophe before it, which is taken away again.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..documents import read_text
from ..errors import InputError
from ..records import UnitTranslated
from . import heads, languages, po, reviewing, tsv, xliff
from .languages import Language
from .prompts import Pair
from .reviewing import Entry
from .tsv import Rows

REVIEW = (
    "# templora review: edit the second column; set the third to ok where it is right as it is; "
    "look first where the last says ?"
)
_HEAD = "# templora review"
_FORMULA = re.compile("'*[=+\\-@＝＋－＠]")  # and what looks like one already made harmless
_ANOTHER_VARIANT = 1  # of `languages.closeness`
_ARTEFACTS = re.compile(r"#<#|#>#")  # the corpus of arXiv 2401.11504 marks quotations that it split
_TABLES = (".tsv", ".txt", ".csv")


def read(path: str | Path, source: Language, target: Language) -> list[list[Pair]]:
    """The pairs of a file, in chunks where it has any, else as one; its suffix says what it is.

    Raises:
        InputError: it cannot be read, is malformed (where is named), has no pair of these languages, or is a review
            that nobody has edited.
    """
    readers: dict[str, Callable[[Path, Language, Language], list[list[Pair]]]] = {
        **dict.fromkeys(_TABLES, _read_table),
        ".tmx": _read_tmx,
        ".xlf": _read_xliff,
        ".xliff": _read_xliff,
        ".po": _read_po,
        ".json": _read_json,
    }
    path = Path(path)
    if path.suffix.lower() not in readers:
        raise InputError(
            f"{path} has the suffix '{path.suffix}'", "one of " + ", ".join(readers), "convert or rename it"
        )
    chunks = [chunk for chunk in readers[path.suffix.lower()](path, source, target) if chunk]
    if not chunks and path.stat().st_size and is_review(path):
        got = f"{path} is a review in which no translation was edited or confirmed"
        raise InputError(got, "at least one that was", "edit a row of it, or leave --corrections out")
    if not chunks:
        raise InputError(
            f"{path} has no pair of {source.name} and {target.name}", "aligned texts of both", "check --from and --to"
        )
    return chunks


def review(records: Iterable[UnitTranslated], doubtful: Container[str] = ()) -> str:
    """The text of a review file; `doubtful`: ids of units that are to be looked at first."""
    return "\n".join([REVIEW, *("\t".join(row) for row in review_rows(records, doubtful))]) + "\n"


def review_rows(records: Iterable[UnitTranslated], doubtful: Container[str] = ()) -> Iterator[list[str]]:
    """The rows of a review table, their cells made harmless for spreadsheets."""
    for r in records:
        if r.status != "copied":
            row = (r.source, r.text, r.status, r.id, reviewing.check(r.text), "?" if r.id in doubtful else "")
            yield [_cell(cell) for cell in row]


def _cell(text: str) -> str:
    text = re.sub(r"[\t\n\r]+", " ", text)
    return f"'{text}" if _FORMULA.match(text) else text


def _text_of(cell: str) -> str:
    """What `_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _read_table(path: Path, source: Language, target: Language) -> list[list[Pair]]:
    rows = tsv.read(path)
    if _is_review(rows):
        return [list(_corrections(_review_entries(path, rows)).values())]
    first, second, rows = heads.without(rows, source, target)
    pairs: list[Pair] = []
    for number, row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        if not any(cells) or row[0].startswith("#"):
            continue
        if len(cells) <= max(first, second):
            got = f"{path} line {number} has {len(cells)} column(s)"
            raise InputError(got, "source, tab, target", "put tabs between the columns")
        if cells[first] and cells[second]:
            pairs.append(Pair(_line(cells[first]), _line(cells[second])))
    return [pairs]


def by_unit(path: str | Path) -> dict[str, Pair]:
    """The corrections in a review file, by unit id; none in a file of another kind.

    Raises:
        InputError: it cannot be read, or is malformed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".xlf", ".xliff"):
        return _corrections(xliff.reviewed(path))
    if suffix == ".po":
        return _corrections(po.reviewed(path))
    if suffix not in _TABLES:
        return {}
    rows = tsv.read(path)
    return _corrections(_review_entries(path, rows)) if _is_review(rows) else {}


def is_review(path: str | Path) -> bool:
    """Whether a file is a review, or empty of rows; what another tool made has no fingerprints.

    Raises:
        InputError: it cannot be read, or is malformed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        rows = tsv.read(path)
        return _is_review(rows) or not any(cell.strip() for _, cells in rows for cell in cells)
    if suffix == ".po":
        return po.is_review(path)
    return suffix in (".xlf", ".xliff") and xliff.is_review(path)


def _corrections(entries: Iterable[Entry]) -> dict[str, Pair]:
    return {entry.id: Pair(entry.source, entry.target) for entry in entries if entry.is_correction}


def _is_review(rows: Rows) -> bool:
    return any(cells[0].startswith(_HEAD) for _, cells in rows)  # wherever sorting has put it


def _review_entries(path: Path, rows: Rows) -> Iterator[Entry]:
    """The rows of a review table, exactly as they stand there."""
    for number, cells in rows:
        if cells[0].startswith(_HEAD) or not any(cell.strip() for cell in cells):
            continue
        if cells[0].startswith("#") and len(cells) < 5:  # a row may begin with # as well
            continue
        if len(cells) < 5:
            got = f"{path} line {number} has {len(cells)} column(s)"
            raise InputError(got, "source, target, status, id, check", "put tabs between the columns")
        confirmed = cells[2].strip().lower() in reviewing.CONFIRMED
        id = cells[3].strip() or f"line {number}"
        if cells is rows[-1][1] and len(cells) == 5 and not cells[4] and not confirmed:
            # an editor is writing it
            raise InputError(f"{path} ends inside of line {number}", "a whole review", "save it once more")
        # without a fingerprint a row is as good as edited
        yield Entry(_text_of(cells[0]), _text_of(cells[1]), id, cells[4].strip() or "-", confirmed)


def _read_tmx(path: Path, source: Language, target: Language) -> list[list[Pair]]:
    pairs = []
    for texts in _variants(path):
        sides = (_variant(texts, source), _variant(texts, target))
        if sides[0] != sides[1]:  # a text is no translation of itself
            pairs.append(Pair(*(texts.get(tag, "") for tag in sides)))
    return [[pair for pair in pairs if all(pair)]]


def _variants(path: Path) -> Iterator[dict[str, str]]:
    """Of each unit of a TMX file, its text by language tag."""
    for unit in xliff.elements(xliff.tree(path, "tmx"), "tu"):
        texts: dict[str, str] = {}
        for variant in xliff.elements(unit, "tuv"):
            tag = variant.get("{http://www.w3.org/XML/1998/namespace}lang") or variant.get("lang") or ""
            for segment in xliff.elements(variant, "seg"):
                texts.setdefault(tag, _line(xliff.words(segment)))
        yield texts


def _variant(texts: Mapping[str, str], language: Language) -> str:
    """The tag that is asked for; another variant's of the same language only where that is missing."""
    fits = {tag: languages.closeness(tag, language.tag) for tag in texts}
    best = max(fits, key=lambda tag: fits[tag], default="")
    return best if best and fits[best] > 0 else ""


def notes(path: str | Path, source: Language, target: Language) -> list[str]:
    """What the user should know of a file of pairs: texts that are in another variant of a language than was asked for.

    Raises:
        InputError: as `read`.
    """
    path = Path(path)
    others: Counter[tuple[str, str]] = Counter()
    for tags in _tags(path, source, target):
        sides = [(tag, language.tag) for tag, language in zip(tags, (source, target), strict=True)]
        if all(tag for tag, _ in sides):
            others.update(side for side in sides if languages.closeness(*side) == _ANOTHER_VARIANT)
    if path.suffix.lower() == ".tmx":
        return [f"{path}: {n} text(s) are in {tag}, for there is none in {asked}" for (tag, asked), n in others.items()]
    return [f"{path} is in {tag}, not in {asked}" for tag, asked in others]


def _tags(path: Path, source: Language, target: Language) -> Sequence[tuple[str, str]]:
    """The languages that texts of a file are in: of each unit of TMX, of each part of XLIFF, of a PO file."""
    suffix = path.suffix.lower()
    if suffix == ".tmx":
        return [(_variant(texts, source), _variant(texts, target)) for texts in _variants(path)]
    if suffix in (".xlf", ".xliff"):
        return xliff.tags(path)
    return [po.tags(path)] if suffix == ".po" else []


def _read_xliff(path: Path, source: Language, target: Language) -> list[list[Pair]]:
    return [_pairs(xliff.entries(path, source, target))]


def _read_po(path: Path, source: Language, target: Language) -> list[list[Pair]]:
    return [_pairs(po.entries(path, source, target))]


def _pairs(entries: Sequence[Entry]) -> list[Pair]:
    """What is right of a file's pairs: rows of a review exactly as they are, others as lines."""
    chosen = [entry for entry in entries if entry.is_correction]
    return [Pair(e.source, e.target) if e.check else Pair(_line(e.source), _line(e.target)) for e in chosen]


def _read_json(path: Path, source: Language, target: Language) -> list[list[Pair]]:
    """A list of chunks; a chunk is a list of {code: text} objects, or an object that holds one as `inference`."""

    def wrong(where: str) -> InputError:
        return InputError(
            f"{path} {where}",
            f'chunks of {{"{source.code}": ..., "{target.code}": ...}}',
            "see edge/translation/README.md for the form",
        )

    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise wrong("is not readable JSON") from error
    if not isinstance(data, list):
        raise wrong("is not a list")
    if data and isinstance(data[0], Mapping) and "inference" not in data[0]:
        data = [data]
    chunks = []
    for number, chunk in enumerate(data, 1):
        entries = chunk.get("inference") if isinstance(chunk, Mapping) else chunk
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise wrong(f"chunk {number} is not a list of pairs")
        pairs = [Pair(_line(entry.get(source.code)), _line(entry.get(target.code))) for entry in entries]
        chunks.append([pair for pair in pairs if all(pair)])
    return chunks


def _line(text: Any) -> str:
    """One line, the corpus's own marks left out; empty where it is no text."""
    return " ".join(_ARTEFACTS.sub("", text).split()) if isinstance(text, str) else ""
