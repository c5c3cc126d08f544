"""A model's own chat template, rendered in bounded time and memory: whatever it does, a text or an error of one line.

Owns: the limits of a template (seconds, bytes, characters), what its errors become, the date that it is told.
Does not know: which messages there are. The sandbox is transformers' (jinja2's immutable one).
Units: seconds, bytes, characters.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, TemplateError

from ..errors import ModelError, describe
from ..machine import held
from . import families

SECONDS = 5.0  # a sound template takes a thousandth of this
CHARACTERS = 20_000_000
ROOM = 500_000_000  # bytes that the process may grow by: what so many characters take, joined from their pieces
# Some templates write today's date into every prompt: a run that goes on tomorrow would ask otherwise than today. They
# are told one day for ever, the one that Llama 3's template falls back on.
_DAY = {"%d": "26", "%b": "Jul", "%B": "July", "%Y": "2024", "%m": "07", "%y": "24", "%H": "12", "%M": "00", "%S": "00"}
_CLOCK = "{%- macro strftime_now(form) %}{{ form" + "".join(f'|replace("{k}", "{v}")' for k, v in _DAY.items()) + " }}"


class _TooLong(BaseException):
    """Thrown into a template that does not end."""


def undated(tokenizer: Any) -> dict[str, Any]:
    """Options for `apply_chat_template` with which a template that asks for today's date is told a fixed one."""
    template = families.template_of(tokenizer)
    if "strftime_now" not in template:
        return {}
    return {"chat_template": _CLOCK + "{% endmacro -%}" + template}


def check(template: str) -> None:
    """Refuses a power of numbers: one of them can take hours, in which nothing of this process runs.

    Raises:
        ModelError: there is one. What is no template is refused where it is rendered.
    """
    before = ""
    try:
        for line, _, token in Environment().lex(template):
            if token == "**" and before not in ("(", ","):  # there it stands before the arguments of a call
                got = f"the model's chat template takes a power of numbers (line {line})"
                raise ModelError(got, "a template for turns of user and assistant", "use --template plain")
            before = token if token.strip() else before
    except TemplateError:
        return


def bounded(render: Callable[[], object], seconds: float = SECONDS) -> str:
    """What `render` gives.

    Runs in a thread of its own: a loop of a template is bytecode, into which an exception can be thrown.

    Raises:
        ModelError: it fails, takes too long or too much memory, or gives no text or too much of it.
    """
    done: list[object] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(render())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with held.capped_growth(ROOM):
        thread.start()
        thread.join(seconds)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_TooLong))
        thread.join(1)
        raise ModelError(f"the model's chat template takes more than {seconds:g} s", "a text", "use --template plain")
    if failed:
        raise ModelError(
            f"the model's chat template cannot be used ({describe(failed[0])})",
            "a template for turns of user and assistant",
            "use --template plain",
        ) from failed[0]
    if not isinstance(done[0], str) or len(done[0]) > CHARACTERS:
        raise ModelError("the model's chat template gives no usable text", "a text", "use --template plain")
    return done[0]
