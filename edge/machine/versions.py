"""Whether the libraries that are installed are those that this package was made for.

Owns: the lowest versions, as the package's own metadata says them. Does not know: what the libraries do.

`pip install` sees to it; a library that another package has put back later is not noticed by anything else, and ends
in an import that fails somewhere inside.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator

from ..errors import DeviceError

_LOWEST = re.compile(r"([\w.-]+)>=([\d.]+)")  # a requirement of an extra goes on, and is left out


def too_old() -> Iterator[tuple[str, str, str]]:
    """Name, version and lowest version of each library below what is needed; none where metadata is not there."""
    try:
        requirements = importlib.metadata.requires("templora") or ()
    except importlib.metadata.PackageNotFoundError:  # it runs from its sources
        return
    for requirement in requirements:
        found = _LOWEST.fullmatch(requirement)
        if found is None:
            continue
        name, lowest = found.groups()
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # what imports it says so
            continue
        if _numbers(version) < _numbers(lowest):
            yield name, version, lowest


def require() -> None:
    """Refuses libraries that are too old.

    Raises:
        DeviceError: naming the first one.
    """
    for name, version, lowest in too_old():
        raise DeviceError(f"{name} {version} is installed", f"{lowest} or newer", f"pip install '{name}>={lowest}'")


def _numbers(version: str) -> list[int]:
    """What a version begins with, to be compared: 2.13.0+cpu is [2, 13]."""
    begins = re.match(r"[\d.]*", version)
    numbers = [int(part) for part in re.findall(r"\d+", begins[0] if begins else "")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers
