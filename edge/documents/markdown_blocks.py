"""Markdown's block rules, each tried only where a line's first character can begin what the rule looks for.

Owns: which rules a line is offered to. Does not know: what a rule does with it, inline syntax.

A long paragraph offers each of its lines to a dozen rules, twice. Most lines begin with a letter, and most rules want
a mark: half of the time that a text takes to be opened goes there.
"""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.parser_block import RuleFuncBlockType
from markdown_it.ruler import Rule, Ruler
from markdown_it.rules_block import StateBlock

from .markdown_opaque import BLOCK_MARKS

# the first characters, after white space, of what a rule looks for; a rule that is not here is always tried
_MARKS = {
    "admonition": "!?",
    "blockquote": ">",
    "fence": "`~",
    "footnote_def": "[",
    "front_matter": "-",
    "heading": "#",
    "hr": "*-_",
    "html_block": "<",
    "list": "*+-0123456789",
    "opaque": BLOCK_MARKS,
    "reference": "[",
}


class _ByMark(Ruler[RuleFuncBlockType]):  # type: ignore[misc]  # no types are read from the library
    """The rules of another ruler; each chain is one rule, which tries those that a line's first character allows."""

    def __init__(self, rules: list[Rule[RuleFuncBlockType]]) -> None:
        super().__init__()
        self.__rules__ = rules

    def __compile__(self) -> None:
        super().__compile__()
        names = {rule.fn: rule.name for rule in self.__rules__}
        for chain, rules in self.__cache__.items():
            self.__cache__[chain] = [_one(rules, names)]


def by_mark(md: MarkdownIt) -> None:
    """A plugin: block rules are found by a line's first character. The same blocks are found."""
    md.block.ruler = _ByMark(md.block.ruler.__rules__)


def _one(rules: list[RuleFuncBlockType], names: dict[RuleFuncBlockType, str]) -> RuleFuncBlockType:
    anywhere = [rule for rule in rules if names[rule] not in _MARKS]
    by_first = {
        first: [rule for rule in rules if first in _MARKS.get(names[rule], first)]
        for first in set("".join(_MARKS.values()))
    }

    def tried(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        at = state.bMarks[start] + state.tShift[start]
        return any(rule(state, start, end, silent) for rule in by_first.get(state.src[at : at + 1], anywhere))

    return tried
