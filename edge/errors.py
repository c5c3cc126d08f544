"""The error tree: every mistake that a user can make, as a type with its exit code.

Owns: the message form (what was got, what was expected, what to do) and the exit codes.
Does not know: who raises what; how an error is shown (the command line catches `TemploraError` alone).

    TemploraError                1
    ├── SettingsError            2   unknown preset, unknown key, impossible value; also wrong usage
    ├── InputError               3   a text or document that cannot be read
    ├── ModelError               4   a model reference that cannot be loaded
    ├── BudgetError              5   what was asked for does not fit the memory budget
    ├── DeviceError              6   a device, kernel or provider that is not there or does not work
    ├── JournalError             7   a run folder that is locked, damaged or of another run
    ├── StorageError             8   no disk room, no permission
    ├── OutcomeError             9   the work ended, but units had to be marked as failed
    └── ExportError              10  a graph that cannot be made, is damaged or belongs to another base
    Interrupted                  130 stopped by the user; what was done so far is kept
"""

from __future__ import annotations

from typing import ClassVar

LONGEST = 500  # characters of what was found that a message quotes


class TemploraError(Exception):
    """Base of all errors that a user can cause or cure.

    What was found may be a whole file's worth; the line quotes its beginning and its end.

    Args:
        got: what was found, with its value.
        expected: what would have been right.
        remedy: what to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, got: str, expected: str = "", remedy: str = "") -> None:
        self.got = got
        self.expected = expected
        self.remedy = remedy
        super().__init__(self.line())

    def line(self) -> str:
        """The whole message on one line."""
        got = self.got if len(self.got) <= LONGEST else f"{self.got[: LONGEST - 100]} … {self.got[-90:]}"
        parts = [got.rstrip(".")]
        if self.expected:
            parts.append(f"expected {self.expected.rstrip('.')}")
        if self.remedy:
            parts.append(self.remedy.rstrip("."))
        return " ".join("; ".join(parts).split())


def describe(error: BaseException) -> str:
    """The type and the first line of an error that is not ours, short enough for one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def no_numbers(got: str = "the model gives no numbers", expected: str = "finite probabilities") -> ModelError:
    """What is raised where a model's probabilities, or what they are made of, are not numbers."""
    return ModelError(got, expected, "its weights are damaged: make or get it again")


class SettingsError(TemploraError):
    """A preset, key or value that is not valid."""

    exit_code = 2


class InputError(TemploraError):
    """A text or document that cannot be read."""

    exit_code = 3


class ModelError(TemploraError):
    """A model reference that cannot be resolved, is damaged, or is of an unsupported kind."""

    exit_code = 4


class BudgetError(TemploraError):
    """The settings do not fit the memory budget."""

    exit_code = 5


class DeviceError(TemploraError):
    """A device, kernel or provider that is missing or broken."""

    exit_code = 6


class JournalError(TemploraError):
    """A run folder that is locked, damaged, or belongs to another run."""

    exit_code = 7


class StorageError(TemploraError):
    """No room on the disk, or no permission to write."""

    exit_code = 8


class OutcomeError(TemploraError):
    """The run ended, but part of the output had to be marked as failed."""

    exit_code = 9


class ExportError(TemploraError):
    """A graph that cannot be exported, loaded, or trusted."""

    exit_code = 10


class Interrupted(KeyboardInterrupt):
    """Stopped by Ctrl-C or SIGTERM at a consistent point; what was done so far is kept."""

    exit_code: ClassVar[int] = 130
