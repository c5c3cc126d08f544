"""Plain text for scoring: one UTF-8 file or standard input, read whole.

Owns: which input is a text at all.
Does not know: paragraphs and units (`plain.py`), tokens.
Units: bytes in errors, characters in the result.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..errors import InputError
from . import files


def read_text(source: str | Path, *, limit: int = files.RAW_LIMIT) -> str:
    """The text of a UTF-8 file, or of standard input for '-'; a byte order mark is stripped, nothing else is changed.

    Args:
        source: a path, or '-'.
        limit: bytes; a longer text is refused.

    Raises:
        InputError: the file is missing, a folder, too large, binary, not UTF-8 (naming the byte), or has no text.
    """
    if str(source) == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed", "a text", "name a file")
        data = files.read_stream(sys.stdin.buffer, "standard input", limit, text=True)
        return files.decode(data, "standard input")
    return files.decode(files.read_bytes(Path(source), limit, text=True, regular=False), str(source))
