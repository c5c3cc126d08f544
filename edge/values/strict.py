"""Plain values -> frozen dataclasses, strictly: unknown keys and wrong types are refused by name.

Owns: the conversion and its messages.
Does not know: which settings there are, YAML, files.
"""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from ..errors import SettingsError

MOST = 3.4e38  # of a number with a fraction: tensors are float32, and a larger one ends in an overflow

Special = Mapping[str, Callable[[Any, str], Any]]


def build(cls: type[Any], data: Mapping[str, Any], source: str, special: Special, prefix: str = "") -> Any:
    """A frozen dataclass from plain values.

    Args:
        source: what the values come from, for messages.
        special: for a key's full name, what turns its value into the field's.

    Raises:
        SettingsError: an unknown or a missing key, a value of the wrong type; what the dataclass itself raises.
    """
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    for key in data:
        if key not in names:
            where = f"{prefix}{key}"
            raise SettingsError(
                f"unknown key '{where}' in {source}",
                "one of " + ", ".join(prefix + name for name in names),
                suggest(str(key), names) or "remove it",
            )
    for f in dataclasses.fields(cls):
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and f.name not in data:
            raise SettingsError(f"{source} has no '{prefix}{f.name}'", "it to be set", f"add {prefix}{f.name}")
    values = {key: _convert(hints[key], value, source, special, f"{prefix}{key}") for key, value in data.items()}
    return cls(**values)


def _convert(hint: Any, value: Any, source: str, special: Special, where: str) -> Any:
    def wrong(expected: str) -> SettingsError:
        return SettingsError(f"{where} is {_shown(value)} in {source}", expected, "correct the value")

    origin = get_origin(hint)
    args = get_args(hint)
    if where in special:
        if value is not None:
            return special[where](value, where)
        if type(None) not in args:
            raise wrong("a value")
        return None
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise wrong("a mapping of keys")
        return build(typing.cast(type[Any], hint), value, source, special, f"{where}.")
    if origin is Literal:
        value = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
        if value not in args:
            raise wrong("one of " + ", ".join(map(str, args)))
        return value
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, source, special, where)
    if origin is tuple:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise wrong("a list")
        if args[-1] is not Ellipsis and len(items) != len(args):
            raise wrong(f"a list of {len(args)}")
        return tuple(_convert(args[0], item, source, special, where) for item in items)
    if hint is bool:
        if not isinstance(value, bool):
            raise wrong("true or false")
        return value
    if hint is int:
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**62:
            raise wrong("a whole number")
        return value
    if hint is float:
        if isinstance(value, str):  # YAML 1.1 reads 5e-5 as text
            try:
                value = float(value)
            except ValueError:
                raise wrong("a number") from None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -MOST <= value <= MOST:
            raise wrong("a finite number, no larger than float32 holds")
        return float(value)
    if not isinstance(value, str):
        raise wrong("text")
    return value


def _shown(value: Any) -> str:
    """A value for a message; of a large one its beginning, without writing out the whole."""
    short = reprlib.Repr()
    short.maxlevel = 2
    short.maxstring = short.maxother = 200
    return short.repr(value)


def suggest(name: str, known: Sequence[str]) -> str:
    """A question that names the known word closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else ""


def name_of(value: Any) -> str:
    """What a value is, for messages."""
    return "nothing" if value is None else f"a {type(value).__name__}"
