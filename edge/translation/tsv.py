"""Tables in text: rows of cells between tabs, in the dialect that a file is in.

Owns: whether a spreadsheet wrote a file, and what its quotes mean.
Does not know: what the cells are for.
Units: lines count from 1.
"""

from __future__ import annotations

import csv
import io
import re

_QUOTE = re.compile(r'(?:^|(?<=\t))"(?P<whole>(?:[^"]|"")*+"(?=\t|\r?\n|\r|\Z))?', re.MULTILINE)


def rows(text: str) -> list[tuple[int, list[str]]]:
    """The rows of a table with the lines that they begin at.

    Spreadsheets quote cells that hold quotes, tabs or line ends, and double the quotes inside. In other files a
    quote is a character. A file is a spreadsheet's where every cell that begins with a quote is quoted as a whole,
    and one needed to be.
    """
    if _is_quoted(text):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", doublequote=True)
        found: list[tuple[int, list[str]]] = []
        number = 1
        try:
            for row in reader:
                found.append((number, row or [""]))
                number = reader.line_num + 1
            return found
        except csv.Error:
            pass  # a cell of more than 100,000 characters: no spreadsheet's
    lines = re.split(r"\r\n|\r|\n", text)  # and nowhere else: a cell may hold other line separators
    return [(number, line.split("\t")) for number, line in enumerate(lines, 1)]


def _is_quoted(text: str) -> bool:
    begun = list(_QUOTE.finditer(text))
    whole = [match[0] for match in begun if match["whole"]]
    needed = any('""' in cell[1:-1] or "\n" in cell or "\t" in cell for cell in whole)
    return bool(whole) and len(whole) == len(begun) and needed
