"""Tables in text: rows of cells between tabs, commas or semicolons, in the dialect that a file is in.

Owns: whether a spreadsheet wrote a file, what its quotes mean, what separates its cells.
Does not know: what the cells are for.
Units: lines count from 1.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path

from ..documents import files, read_text

Rows = list[tuple[int, list[str]]]  # of a table, with the lines that they begin at

_QUOTE = re.compile(r'(?:^|(?<=\t))"(?P<whole>(?:[^"]|"")*+"(?=\t|\r?\n|\r|\Z))?', re.MULTILINE)
_CELL = re.compile(r"(?:^|(?<=\t))[^\t\r\n]", re.MULTILINE)
_NAMED = re.compile(r"sep=([,;\t|])\r?\n?")  # the first line by which some tell what separates


def read(path: Path) -> Rows:
    """The rows of a file; its suffix says whether cells stand between tabs or between commas or semicolons.

    Raises:
        InputError: it cannot be read, or is neither UTF-8 nor UTF-16 (as spreadsheets save Unicode text).
    """
    if files.is_utf16(path):
        data, _ = files.as_utf8(files.read_bytes(path, files.MARKUP_LIMIT), str(path))
        text = files.decode(data, str(path))
    else:
        text = read_text(path)
    return separated(text) if path.suffix.lower() == ".csv" else rows(text)


def rows(text: str) -> Rows:
    """The rows of a table between tabs, with the lines that they begin at.

    Spreadsheets quote cells that hold quotes, tabs or line ends, and double the quotes inside; some quote every cell.
    In other files a quote is a character. A file counts as a spreadsheet's where every cell that begins with a quote
    also ends with one, and either some cell holds what must be quoted, or all cells, four or more, are quoted.
    """
    if _is_quoted(text):
        if (found := _quoted(text, "\t")) is not None:
            return found
    lines = re.split(r"\r\n|\r|\n", text)  # and nowhere else: a cell may hold other line separators
    return [(number, line.split("\t")) for number, line in enumerate(lines, 1)]


def separated(text: str) -> Rows:
    """The rows of a table whose cells stand between commas, semicolons or tabs, whichever makes its rows alike."""
    if named := _NAMED.match(text):
        found = _quoted(text[named.end() :], named[1]) or []
        return [(number + 1, row) for number, row in found]
    best: Rows = []
    most = -1.0
    for separator in (";", "\t", ","):
        found = _quoted(text, separator) or []
        sizes = Counter(len(row) for _, row in found if any(row) and not row[0].startswith("#"))
        usual, count = max(sizes.items(), key=lambda item: item[1], default=(1, 0))
        # text in cells holds commas too: the most rows of one length win, and among equals the shorter rows
        alike = count / sizes.total() - 0.001 * usual if usual > 1 else -0.5
        if alike > most:
            best = found
            most = alike
    return best


def written(table: list[list[str]]) -> str:
    """The text of a table between commas, as spreadsheets write it: with a byte order mark, so that they know UTF-8."""
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\r\n").writerows(table)
    return "\ufeff" + stream.getvalue()


def _quoted(text: str, separator: str) -> Rows | None:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, doublequote=True)
    found: Rows = []
    number = 1
    try:
        for row in reader:
            found.append((number, row or [""]))
            number = reader.line_num + 1
    except csv.Error:
        return None  # a cell of more than 100,000 characters: no spreadsheet's
    return found


def _is_quoted(text: str) -> bool:
    begun = list(_QUOTE.finditer(text))
    whole = [match[0] for match in begun if match["whole"]]
    if not whole or len(whole) != len(begun):
        return False
    if any('""' in cell[1:-1] or "\n" in cell or "\t" in cell for cell in whole):
        return True
    return len(whole) >= 4 and len(whole) == len(_CELL.findall(text)) and '"' not in _QUOTE.sub("", text)
