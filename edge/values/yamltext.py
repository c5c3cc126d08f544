"""YAML from anyone, read as plain values in bounded time and memory.

Owns: which YAML is read at all: no tags of Python's, no aliases, nothing longer than a settings file can be.
Does not know: what the values are for.
Units: bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 200_000  # the reader takes seconds for more
MAX_DEPTH = 30


class _Loader(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for more values than any machine holds."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A value, and what is in it."""
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"the alias *{event.anchor}", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "nested too deeply", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def load(text: str) -> Any:
    """The values of a YAML text.

    Raises:
        yaml.YAMLError: it is no YAML, holds aliases or a number of thousands of digits, is too long
            or nested too deeply.
    """
    if len(text) > MAX_BYTES:
        raise yaml.YAMLError(f"more than {MAX_BYTES} characters")
    try:
        return yaml.load(text, _Loader)
    except (ValueError, OverflowError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error


def read(path: Path) -> Any:
    """The values of a YAML file.

    Raises:
        yaml.YAMLError: as `load`.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    with path.open("rb") as file:
        return load(file.read(MAX_BYTES + 1).decode("utf-8"))
