"""Another function in the place of a library's own, for the threads that ask for it and while they do.

Owns: how an attribute of a module or a class is replaced for a while, and put back. Does not know: which ones.
Units: none.

A process has one place for each attribute. Two threads that both save what they find and put it back later leave one's
function there for ever, and meanwhile all others call it too. Here what is put in the place asks which thread calls it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.RLock()


class _Place:
    """An attribute that some thread has a stand-in for.

    Attributes:
        before: what was there, and what threads without a stand-in still get.
        uses: how many blocks there are now, in all threads.
        run: what lies in its place. It may outlive its blocks, where somebody else saved it and puts it back: it is
            then `before` by another name.
    """

    def __init__(self, before: Callable[..., Any]) -> None:
        self.before = before
        self.uses = 0
        self._mine = threading.local()

        @functools.wraps(before)
        def run(*args: Any, **kwargs: Any) -> Any:
            own = self.own()
            return own[-1](before, *args, **kwargs) if own else before(*args, **kwargs)

        self.run: Any = run
        run.place = self  # type: ignore[attr-defined]

    def own(self) -> list[Callable[..., Any]]:
        """This thread's stand-ins, the innermost block's last."""
        own: list[Callable[..., Any]] = self._mine.__dict__.setdefault("own", [])
        return own


@contextmanager
def instead(holder: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Inside, in this thread, a call of `holder`'s function of that name is one of `function`, which is given the
    library's own before the arguments. Nothing where `holder` has none of its own.
    """
    if name not in vars(holder):
        yield
        return
    with _lock:
        place = _place(vars(holder)[name])
        if vars(holder)[name] is not place.run:
            setattr(holder, name, place.run)
        place.uses += 1
    own = place.own()
    own.append(function)
    try:
        yield
    finally:
        own.pop()
        with _lock:
            place.uses -= 1
            if not place.uses and vars(holder).get(name) is place.run:
                setattr(holder, name, place.before)


def _place(found: Any) -> _Place:
    """The place that `found` lies in; a new one where it is a library's own."""
    place = getattr(found, "place", None)  # a library's wrapper of `run` has its attributes, and is not it
    return place if isinstance(place, _Place) and place.run is found else _Place(found)
