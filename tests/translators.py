"""Translators that stand for a model."""

from __future__ import annotations

from collections.abc import Sequence

from edge.translation.asking import Draft, Request


class OneByOne:
    """A translator that drafts lines side by side as it drafts one."""

    def translate(self, request: Request) -> Draft:
        """See `Translator`."""
        raise NotImplementedError

    def translate_lines(self, requests: Sequence[Request]) -> list[Draft]:
        """See `Translator`."""
        return [self.translate(request) for request in requests]
