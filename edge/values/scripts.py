"""Scripts: the characters that belong to some of them.

Owns: the pattern. Does not know: languages, tokens, which script is wanted where.
Units: scripts by their Unicode names (Han, Hiragana, Cyrillic).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import regex


def characters(scripts: Sequence[str]) -> Any:
    """A compiled pattern (of `regex`) for one character of these scripts; of none it matches nothing."""
    return _characters(tuple(scripts))


@functools.cache
def _characters(scripts: tuple[str, ...]) -> Any:
    inside = "".join(rf"\p{{Script={script}}}" for script in scripts)
    return regex.compile(f"[{inside}]" if inside else r"(?!)")
