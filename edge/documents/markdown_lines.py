"""Markdown's blocks whose lines are words of their own: line blocks, several terms of one definition, definitions and
captions that no term stands before.

Owns: where such blocks begin and end, which lines before a definition are terms and which are prose.
Does not know: how one term and its definitions are read (the plugin for definition lists), inline syntax.
Units: lines; columns for the length of a term.

    | A line of verse,      Term one            : A table's caption
    |    and another        Term two
                            : Their definition

Pandoc has the first and the last, PHP Markdown Extra and kramdown the one between. As CommonMark each is a paragraph,
which would be written on one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock

from . import inline as tree

_VERSE = re.compile(r"\|(?:[ \t]+|$)", re.MULTILINE)
_DEFINITION = re.compile(r"[:~][ \t]+(?=\S)")
_WIDEST = 60  # columns of a term that stands before others; a line of prose is longer, or ends a clause
_ENDS = (".", "!", "?", ";", ",", "…", "。", "！", "？", "；", "，")


def block_plugin(md: MarkdownIt) -> None:
    """Each line of verse, term and definition gets an inline token of its own, without the mark that it begins with."""
    md.block.ruler.before("deflist", "lines", _lines)


def _lines(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if silent or state.sCount[start] - state.blkIndent >= 4:
        return False
    line = _line(state, start)
    if _VERSE.match(line):
        return _line_block(state, start, end)
    if line[:1] == ":" and _DEFINITION.match(line):
        return _definitions(state, start, end)
    return _terms(state, start, end)


def _line_block(state: StateBlock, start: int, end: int) -> bool:
    """Lines that begin with a bar; one that begins with white space continues the line before it."""
    after = _paragraph_end(state, start, end)
    begins = [at for at in range(start, after) if _VERSE.match(_line(state, at))]
    indented = sum(state.sCount[at] > state.blkIndent for at in set(range(start, after)) - set(begins))
    if len(begins) + indented < after - start:
        return False
    _push(state, "line", _VERSE, begins, after)
    return True


def _definitions(state: StateBlock, start: int, end: int) -> bool:
    """A paragraph that begins as a definition does: of a heading or a list's item, or a caption."""
    after = _paragraph_end(state, start, end)
    begins = [at for at in range(start, after) if _DEFINITION.match(_line(state, at))]
    _push(state, "paragraph", _DEFINITION, begins, after)
    return True


def _terms(state: StateBlock, start: int, end: int) -> bool:
    """All but the last of several terms; that one and what follows are left to the plugin for definition lists."""
    after = start
    while after < end and _is_term(state, after):
        after += 1
    if after < start + 2:
        return False
    below = after + 1 if after < end and state.isEmpty(after) else after
    if below >= end or state.sCount[below] < state.blkIndent or not _DEFINITION.match(_line(state, below)):
        return False
    if _paragraph_end(state, start, after) < after:
        return False
    _push(state, "dt", None, range(start, after - 1), after - 1)
    return True


def _is_term(state: StateBlock, at: int) -> bool:
    if state.isEmpty(at) or not 0 <= state.sCount[at] - state.blkIndent < 4:
        return False
    line = _line(state, at).rstrip()
    return tree.columns(line) <= _WIDEST and not line.endswith(_ENDS) and not _DEFINITION.match(line)


def _push(state: StateBlock, kind: str, mark: re.Pattern[str] | None, begins: Iterable[int], after: int) -> None:
    """Tokens for the texts that begin at these lines, each up to the next; `after`: the line after the last one."""
    firsts = list(begins)
    for first, following in zip(firsts, [*firsts[1:], after], strict=True):
        content = state.getLines(first, following, state.blkIndent, False).strip()
        content = mark.sub("", content, count=1) if mark else content
        if content.startswith("\n"):  # the mark stood alone
            first += 1
            content = content.strip()
        token = state.push(f"{kind}_open", "", 1)
        token.hidden = True  # no blank line stands between them
        token.map = [first, following]
        token = state.push("inline", "", 0)
        token.content = content
        token.map = [first, following]
        token.children = []
        state.push(f"{kind}_close", "", -1)
    state.line = after


def _paragraph_end(state: StateBlock, start: int, end: int) -> int:
    """The line after the paragraph that begins at `start`, as CommonMark ends it."""
    rules = state.md.block.ruler.getRules("paragraph")
    parent = state.parentType
    state.parentType = "paragraph"
    after = start + 1
    while after < end and not state.isEmpty(after):
        # neither what is indented nor a line without its quotation's mark can begin another block
        lazy = state.sCount[after] - state.blkIndent > 3 or state.sCount[after] < 0
        if not lazy and any(rule(state, after, end, True) for rule in rules):
            break
        after += 1
    state.parentType = parent
    return after


def _line(state: StateBlock, at: int) -> str:
    return state.src[state.bMarks[at] + state.tShift[at] : state.eMarks[at]]
