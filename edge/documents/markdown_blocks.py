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
        names = {"", *(name for rule in rules for name in rule.alt)}
        self._chains = {
            name: [_chain([rule for rule in rules if rule.enabled and (not name or name in rule.alt)])]
            for name in names
        }

    def getRules(self, chainName: str = "") -> list[RuleFuncBlockType]:
        return self._chains.get(chainName, [])


def by_mark(md: MarkdownIt) -> None:
    """A plugin, to be used last: block rules are found by a line's first character. The same blocks are found."""
    md.block.ruler = _ByMark(md.block.ruler.__rules__)


def _chain(rules: list[Rule[RuleFuncBlockType]]) -> RuleFuncBlockType:
    anywhere = [rule.fn for rule in rules if rule.name not in _MARKS]
    by_first = {
        first: [rule.fn for rule in rules if first in _MARKS.get(rule.name, first)]
        for first in set("".join(_MARKS.values()))
    }

    def tried(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        at = state.bMarks[start] + state.tShift[start]
        return any(rule(state, start, end, silent) for rule in by_first.get(state.src[at : at + 1], anywhere))

    return tried
