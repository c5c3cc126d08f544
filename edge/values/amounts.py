"""Amounts of memory, as people write and read them.

Owns: the units. Does not know: settings, what an amount is for.
Units: bytes; kB, MB, GB are decimal, KiB, MiB, GiB binary.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import SettingsError

_UNITS = {"": 1, "b": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_UNITS |= {f"{letter}b": value for letter, value in _UNITS.items() if letter and letter != "b"}
_UNITS |= {f"{letter}ib": 1024 ** (i + 1) for i, letter in enumerate("kmgt")}


def parse_bytes(value: Any, where: str = "budget") -> int:
    """Bytes from '6GiB', '800MB', '1.5G' or a plain number of bytes.

    Raises:
        SettingsError: the text is not an amount of memory.
    """
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([a-z]*)\s*", str(value).lower())
    if isinstance(value, bool) or not match or match[2] not in _UNITS or float(match[1]) == 0:
        raise SettingsError(f"{where} is '{value}'", "an amount of memory", "write it like 6GiB, 800MB or 1.5GB")
    return int(float(match[1]) * _UNITS[match[2]])


def format_bytes(amount: float) -> str:
    """Bytes for people: '1.5 GB', '812 MB' (decimal units)."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(amount) >= size:
            return f"{amount / size:.2f} {unit}" if unit == "GB" else f"{amount / size:.0f} {unit}"
    return f"{amount:.0f} B"
