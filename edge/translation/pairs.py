"""Aligned texts in files: TSV, TMX, XLIFF, JSON, and the project's own review file.

Owns: reading pairs of source and target lines, in their order; writing a review file and telling what was edited in it.
Does not know: what the pairs are for (corrections, evaluation).
Units: lines count from 1.

A review file is a TSV of five columns: source, target, status, id, check. `check` is a fingerprint of the target as it
was written, so that an edited row can be told from an untouched one: rows whose target was changed, or whose status was
set to `ok`, are corrections, and so are those that were one before (`corrected`), until they are removed. A cell that a
spreadsheet would take for a formula has an apostrophe before it, which is taken away again.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..documents import files, read_text, xml
from ..errors import InputError
from ..journal import fingerprint
from ..records import UnitTranslated
from . import languages, tsv
from .languages import Language
from .prompts import Pair

Rows = list[tuple[int, list[str]]]  # of a table, with the lines that they begin at

REVIEW = (
    "# templora review: edit the second column; set the third to ok where it is right as it is; "
    "look first where the last says ?"
)
_FORMULA = re.compile("'*[=+\\-@＝＋－＠]")  # and what looks like one already made harmless
# codes of TMX and XLIFF around which the words stand: <bpt>&lt;b&gt;</bpt>, <ph>&lt;br/&gt;</ph>
_CODES = frozenset(("bpt", "ept", "ph", "it", "ut", "x", "bx", "ex", "sc", "ec", "cp"))
_ANOTHER_VARIANT = 1  # of `languages.closeness`
_UNTRANSLATED = frozenset(("new", "needs-translation", "initial"))
_ARTEFACTS = re.compile(r"#<#|#>#")  # the corpus of arXiv 2401.11504 marks quotations that it split


def read(path: str | Path, source: Language, target: Language) -> list[list[Pair]]:
    """The pairs of a file, in chunks where it has any, else as one; its suffix says what it is.

    Raises:
        InputError: it cannot be read, is malformed (where is named), or has no pair of these languages.
    """
    readers: dict[str, Callable[[Path, Language, Language], list[list[Pair]]]] = {
        ".tsv": _read_tsv,
        ".txt": _read_tsv,
        ".tmx": _read_tmx,
        ".xlf": _read_xliff,
        ".xliff": _read_xliff,
        ".json": _read_json,
    }
    path = Path(path)
    if path.suffix.lower() not in readers:
        raise InputError(
            f"{path} has the suffix '{path.suffix}'", "one of " + ", ".join(readers), "convert or rename it"
        )
    chunks = [chunk for chunk in readers[path.suffix.lower()](path, source, target) if chunk]
    if not chunks:
        raise InputError(
            f"{path} has no pair of {source.name} and {target.name}", "aligned texts of both", "check --from and --to"
        )
    return chunks


def review(records: Iterable[UnitTranslated], doubtful: Container[str] = ()) -> str:
    """The text of a review file; `doubtful`: ids of units that are to be looked at first."""
    rows = [
        (r.source, r.text, r.status, r.id, _check(r.text), "?" if r.id in doubtful else "")
        for r in records
        if r.status != "copied"
    ]
    return "\n".join([REVIEW, *("\t".join(_cell(cell) for cell in row) for row in rows)]) + "\n"


def _cell(text: str) -> str:
    text = re.sub(r"[\t\n\r]+", " ", text)
    return f"'{text}" if _FORMULA.match(text) else text


def _text_of(cell: str) -> str:
    """What `_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _check(text: str) -> str:
    return fingerprint(" ".join(text.split()))[:8]


def _read_tsv(path: Path, source: Language, target: Language) -> list[list[Pair]]:
    rows = tsv.rows(read_text(path))
    if _is_review(rows):
        return [list(_read_review(path, rows).values())]
    pairs: list[Pair] = []
    for number, row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        if not any(cells) or row[0].startswith("#"):
            continue
        if len(cells) < 2:
            got = f"{path} line {number} has {len(cells)} column(s)"
            raise InputError(got, "source, tab, target", "put tabs between the columns")
        if cells[0] and cells[1]:
            pairs.append(Pair(_line(cells[0]), _line(cells[1])))
    return [pairs]


def by_unit(path: str | Path) -> dict[str, Pair]:
    """The corrections in a review file, by unit id; none in a file of another kind.

    Raises:
        InputError: it cannot be read, or is malformed.
    """
    if Path(path).suffix.lower() not in (".tsv", ".txt"):
        return {}
    rows = tsv.rows(read_text(Path(path)))
    return _read_review(Path(path), rows) if _is_review(rows) else {}


def _is_review(rows: Rows) -> bool:
    return bool(rows) and rows[0][1][0].startswith("# templora review")


def _read_review(path: Path, rows: Rows) -> dict[str, Pair]:
    """The corrections in a review file by unit id, exactly as they stand there."""
    pairs: dict[str, Pair] = {}
    for number, cells in rows[1:]:
        if not any(cell.strip() for cell in cells):
            continue
        if cells[0].startswith("#") and len(cells) < 5:  # a row may begin with # as well
            continue
        if len(cells) < 5:
            got = f"{path} line {number} has {len(cells)} column(s)"
            raise InputError(got, "source, target, status, id, check", "put tabs between the columns")
        source = _text_of(cells[0])
        target = _text_of(cells[1])
        kept = cells[2].strip().lower() in ("ok", "corrected") or _check(target) != cells[4].strip()
        if kept and source.strip() and target.strip():
            pairs[cells[3].strip() or f"line {number}"] = Pair(source, target)
    return pairs


def _read_tmx(path: Path, source: Language, target: Language) -> list[list[Pair]]:
    pairs = []
    for texts in _variants(path):
        sides = (_variant(texts, source), _variant(texts, target))
        pairs.append(Pair(*(texts.get(tag, "") for tag in sides)))
    return [[pair for pair in pairs if all(pair)]]


def _variants(path: Path) -> Iterator[dict[str, str]]:
    """Of each unit of a TMX file, its text by language tag."""
    for unit in _elements(_tree(path, "tmx"), "tu"):
        texts: dict[str, str] = {}
        for variant in _elements(unit, "tuv"):
            tag = variant.get("{http://www.w3.org/XML/1998/namespace}lang") or variant.get("lang") or ""
            for segment in _elements(variant, "seg"):
                texts.setdefault(tag, _text(segment))
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
    if path.suffix.lower() != ".tmx":
        return []
    others: Counter[tuple[str, str]] = Counter()
    for texts in _variants(path):
        sides = [(_variant(texts, language), language.tag) for language in (source, target)]
        if all(tag for tag, _ in sides):
            others.update(side for side in sides if languages.closeness(*side) == _ANOTHER_VARIANT)
    return [
        f"{path}: {count} text(s) are in {tag}, for there is none in {asked}" for (tag, asked), count in others.items()
    ]


def _read_xliff(path: Path, source: Language, target: Language) -> list[list[Pair]]:
    """XLIFF 1.2 (`trans-unit`) and 2 (`segment`); what is marked as not yet translated is left out.

    Raises:
        InputError: the file says that it is of other languages.
    """
    root = _tree(path, "xliff")
    for element in root.iter():
        named = [_language_of(element, "source"), _language_of(element, "target")]
        for tag, asked in zip(named, (source, target), strict=True):
            if tag and not languages.closeness(tag, asked.tag):
                raise InputError(
                    f"{path} is from '{named[0] or '?'}' to '{named[1] or '?'}'",
                    f"from '{source.tag}' to '{target.tag}'",
                    "name a file of these languages, or check --from and --to",
                )
    pairs = []
    for holder in [*_elements(root, "trans-unit"), *_elements(root, "segment")]:
        found = {xml.local_name(e): e for e in reversed(holder) if xml.local_name(e) in ("source", "target")}
        state = (found["target"].get("state") if "target" in found else None) or holder.get("state") or ""
        if state in _UNTRANSLATED or holder.get("translate") == "no":
            continue
        texts = {name: _text(element) for name, element in found.items()}
        pairs.append(Pair(texts.get("source", ""), texts.get("target", "")))
    return [[pair for pair in pairs if all(pair)]]


def _language_of(element: Any, side: str) -> str:
    """What an XLIFF element says of the language of one side: 1.2 on its files, 2 on its root."""
    names = (f"{side}-language", "srcLang" if side == "source" else "trgLang")
    return next((value for name in names if (value := element.get(name))), "")


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


def _tree(path: Path, name: str) -> Any:
    root = xml.parse(files.read_bytes(path, files.MARKUP_LIMIT), str(path))
    if xml.local_name(root) != name:
        raise InputError(f"{path} holds <{xml.local_name(root)}>", f"<{name}>", "check the file")
    return root


def _elements(root: Any, name: str) -> Iterator[Any]:
    return (element for element in root.iter() if xml.local_name(element) == name)


def _text(element: Any) -> str:
    """An element's words; codes of the file's own format (TMX, XLIFF 1.2) are none, subflows in them neither."""
    parts: list[str] = [element.text or ""]
    for child in element:
        name = xml.local_name(child)
        if name and name not in _CODES:
            parts.append(_text(child))
        parts.append(child.tail or "")
    return _line("".join(parts))
