"""What Markdown's dialects add to CommonMark and no reader here understands: it is kept byte for byte.

Owns: where maths, shortcodes, templates, wiki links, attributes, emoji names, container fences, alerts, statements of
MDX and tables that are drawn begin and end. Does not know: tokens, units; how CommonMark is read.
Units: characters; lines for blocks.

Inside a paragraph each such thing is hidden from the reader behind as many `MASK` characters as it has, so that every
offset stays right and a template may stand in a link. Between paragraphs it is a block of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock

MASK = "\ufdd0"  # never a character of a text; one that stands in a source all the same is kept as it is
_LONGEST = 2000  # characters of one thing
_MATHS = 400

# {#id}, {.class}, {: .class key="value" }, {width=50%}: pandoc, kramdown, Python-Markdown
_ATTRIBUTES = re.compile(
    r"""\{:{0,2}+(?:[ \t]{0,9}+(?:[#.][\w:.-]{1,200}+|"""
    r"""[\w:-]{1,99}+=(?:"[^"{}]{0,200}"|'[^'{}]{0,200}'|[^\s"'{}]{1,200}+)|-(?![\w-])))++"""
    r"""[ \t]{0,9}+\}|\{:{1,2}[^{}\n]{0,200}\}"""
)
_WIKI = re.compile(r"\[\[[^\[\]\n]{1,500}\]\](?![(\[])")
_TAG = re.compile(r"</?[A-Za-z][^<>{}]{0,500}>")
_TICKS = re.compile(r"`+")
_EMOJI = re.compile(r"(?<![^\W_]):[a-z][a-z0-9_+-]{1,40}:(?!\w)")
_NEXT = re.compile(r"[\\`<${\[:\ufdd0]")
_COMMAND = re.compile(r"\\[a-zA-Z]+(?:\{[^{}]*\})?")
_PROSE = re.compile(r"[^\W\d_]{2,}[,;]?\s+[^\W\d_]{2,}")
_FORMULA = re.compile(r"(?<!\\)(?:\\[a-zA-Z]{2,}|(?<=\w)[\^_][{\w])|\w\s{0,3}=\s{0,3}[\w\\]")
_CLOSINGS = {"{{": "}}", "{%": "%}", "{#": "#}", "{{{": "}}}"}


def attributes_at_end(source: str) -> int:
    """Where the attributes begin that a heading's source ends with, the white space before them too; its end where
    there are none.
    """
    start = max(source.rfind("{", 0, -1), 0)
    found = _ATTRIBUTES.fullmatch(source.rstrip(), start)
    return len(source[:start].rstrip()) if found and start else len(source)


def mask(content: str, references: frozenset[str] = frozenset()) -> str:
    """The content with all that is kept byte for byte behind `MASK`; as long as before.

    Args:
        content: a paragraph's source.
        references: names of the document's link definitions, as they were read; `[[name]]` is one of these links.
    """
    if _NEXT.search(content) is None:
        return content
    parts: list[str] = []
    at = 0
    for start, end in _things(content, references):
        parts += [content[at:start], MASK * (end - start)]
        at = end
    parts.append(content[at:])
    return "".join(parts)


def _things(content: str, references: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Where things begin and end, in order; code, escapes and tags are passed over."""
    lasts: dict[int, int] = {}  # length of a run of backticks -> its last place
    for run in _TICKS.finditer(content):
        lasts[len(run[0])] = run.start()
    at = 0
    while found := _NEXT.search(content, at):
        start = found.start()
        char = found[0]
        at = start + 1
        if char == MASK:
            yield start, at
        elif char == "`":
            at = _code_end(content, start, lasts)
        elif char == "<":
            tag = _TAG.match(content, start)
            at = tag.end() if tag else at
        elif (end := _end(content, start, references)) is not None:
            yield start, end
            at = end
        elif char == "\\" or (char == "$" and content.startswith("$$", start)):
            at = start + 2


def _end(content: str, start: int, references: frozenset[str]) -> int | None:
    """Where a thing that begins at `start` ends; None where none does."""
    char = content[start]
    if char == "$":
        return _maths_end(content, start)
    if char == "{":
        attributes = _ATTRIBUTES.match(content, start)
        if attributes:
            return attributes.end()
        for opening in ("{{{", "{{", "{%", "{#"):
            if content.startswith(opening, start):
                closing = _CLOSINGS[opening]
                end = content.find(closing, start + len(opening), start + _LONGEST)
                return end + len(closing) if end >= 0 else None
        return None
    if char == ":":
        emoji = _EMOJI.match(content, start)
        return emoji.end() if emoji else None
    if char == "[":
        wiki = _WIKI.match(content, start)
        known = wiki and " ".join(wiki[0][2:-2].split()).casefold() in references
        return wiki.end() if wiki and not known else None
    if char == "\\" and content[start + 1 : start + 2] in ("(", "["):  # maths as LaTeX writes it, or mere escapes
        closing = "\\)" if content[start + 1] == "(" else "\\]"
        end = content.find(closing, start + 2, start + _MATHS)
        return end + 2 if end >= 0 and _is_formula(content[start + 2 : end]) else None
    return None


def _maths_end(content: str, start: int) -> int | None:
    """TeX maths as pandoc reads it: $x$ with no blank inside its ends and no digit after it, or $$x$$."""
    if content.startswith("$$", start):
        end = content.find("$$", start + 2, start + _LONGEST)
        return end + 2 if end > start + 2 else None
    before = content[start - 1 : start] or " "
    if (before.isascii() and before.isalnum()) or content[start + 1 : start + 2].isspace():
        return None
    end = start
    while (end := content.find("$", end + 1, start + _MATHS)) >= 0:
        after = content[end + 1 : end + 2] or " "
        if content[end - 1] == "\\" or content[end - 1].isspace() or (after.isascii() and after.isalnum()):
            continue
        inner = content[start + 1 : end]
        return end + 1 if inner and not _PROSE.search(_COMMAND.sub(" ", inner)) else None
    return None


def _is_formula(text: str) -> bool:
    return _FORMULA.search(text) is not None and not _PROSE.search(_COMMAND.sub(" ", text))


def _code_end(content: str, start: int, lasts: dict[int, int]) -> int:
    """Where a code span that begins at `start` ends; where its backticks do if it does not close."""
    opened = _TICKS.match(content, start)
    assert opened is not None
    size = len(opened[0])
    if lasts.get(size, -1) > start:  # an escaped backtick before it may have made the run shorter
        for run in _TICKS.finditer(content, opened.end()):
            if len(run[0]) == size:
                return run.end()
    return opened.end()


# --- blocks ---

# lines that stand for themselves: fences of containers, a table of contents, abbreviations, Quarto's divs
_LINE = re.compile(r":{3,}.{0,500}|\[\[?_?toc_?\]\]?|\{:?toc\}|\*\[[^\]\n]{1,100}\]:.{0,500}", re.IGNORECASE)

# statements of MDX: a sentence may begin with import or export, too, so that more of a statement has to be there
_NAME = r"[A-Za-z_$][\w$]*+"
_QUOTED = r"""(?:"[^"\n]++"|'[^'\n]++')"""
_FUNCTION = r"(?:async\s++)?function\b[^(\n]*+\(.*[({,;}]"
_STATEMENT = re.compile(
    rf"""(?:
    import(?:\s++|(?=["'{{*])) (?:type\s++)?
        (?: (?: (?: {_NAME} | (?:{_NAME}\s*+,\s*+)? (?: \{{[^{{}}\n]*+\}} | \*\s*+as\s++{_NAME} ) ) \s*+from\s*+ )?
            {_QUOTED}\s*+;?
          | (?:{_NAME}\s*+,\s*+)? \{{[^{{}}\n]*+ )
    | export\s++default\s++
        (?: {_FUNCTION} | class\b[^{{\n]*+\{{.* | [A-Z][\w$.]*+;? | {_NAME}[.\w$]*+(?:\(.*|;)
          | (?:async\s*+)? (?: {_NAME} | \([^()\n]*+\) ) \s*+=>.* | [(\[{{].*[])}}({{[,;>] | {_QUOTED};? )
    | export\s++(?:const|let|var)\s++ (?: {_NAME}\s*+(?: :[^=\n]*+ )?=.* | {_NAME}\s*+; | [{{\[].* )
    | export\s++{_FUNCTION}
    | export\s++(?:class|type|interface|enum)\s++{_NAME}[^={{\n]*+[={{].*
    | export\s*+(?:type\s++)?\{{[^{{}}\n]*+ (?: \}}\s*+(?:from\s*+{_QUOTED}\s*+)?;? )?
    | export\s*+\*\s*+(?:as\s++{_NAME}\s++)?from\s*+{_QUOTED}\s*+;?
    )(?:\s*+//.*)?""",
    re.VERBOSE,
)
_STRING = re.compile(rf"{_QUOTED}|`[^`\n]*`")
_MOST_LINES = 300  # of one statement
# Pandoc's grid tables: the line above them; those below begin with a bar or another such line
_BORDER = re.compile(r"\+(?::?[-=]+:?\+)+\s*")
GRID = "grid table"  # `info` of their tokens: they hold words that stay as they are
# the first characters that these and those of _SPANS can have
BLOCK_MARKS = ":[{*$\\%+ie"
# what holds code or maths over several lines: how it begins, how it ends
_SPANS = (
    (re.compile(r"\$\$(?!.*\$\$)"), re.compile(r".*\$\$\s*(?:\{[^{}]*\}|\([^()]*\))?\s*")),
    (re.compile(r"\\\[\s*"), re.compile(r".*\\\]\s*")),
    (re.compile(r"\\begin\{([a-z*]+)\}"), re.compile(r".*\\end\{[a-z*]+\}\s*")),
    (
        re.compile(r"\{\{[<%]\s*(?:highlight|code|mermaid|math|katex|raw)\b"),
        re.compile(r".*\{\{[<%]\s*/\s*\w+\s*[>%]\}\}\s*"),
    ),
    (
        re.compile(r"\{%-?\s*(?:highlight|raw|code|mermaid)\b(?!.*\{%-?\s*end)"),
        re.compile(r".*\{%-?\s*end\w+\s*-?%\}\s*"),
    ),
    (re.compile(r"%%(?!.*%%)"), re.compile(r".*%%\s*")),
)  # fmt: skip


def block_plugin(md: MarkdownIt) -> None:
    """Blocks that are kept as they are become tokens of type `opaque`, without content."""
    md.block.ruler.before("fence", "opaque", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]})


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if state.sCount[start] - state.blkIndent >= 4:
        return False
    line = _line(state, start)
    grid = _grid_end(state, line, start, end)
    alone = start + 1 if line and _LINE.fullmatch(line.rstrip()) else None
    after = grid or alone or _statement_end(state, line, start, end) or _span_end(state, line, start, end)
    if after is None:
        return False
    if not silent:
        token = state.push("opaque", "", 0)
        token.map = [start, after]
        token.info = GRID if grid else ""
        state.line = after
    return True


def _span_end(state: StateBlock, line: str, start: int, end: int) -> int | None:
    if line[:1] not in ("$", "\\", "{", "%"):
        return None
    unclosed: dict[tuple[int, int], int] = state.env.setdefault("unclosed", {})  # searched once, not from each line
    for number, (opening, closing) in enumerate(_SPANS):
        if not opening.match(line) or unclosed.get((number, end), end) <= start:
            continue
        for at in range(start + 1, end):
            if state.sCount[at] < state.blkIndent and not state.isEmpty(at):
                break
            if closing.fullmatch(_line(state, at)):
                return at + 1
        else:
            unclosed[number, end] = start
    return None


def _statement_end(state: StateBlock, line: str, start: int, end: int) -> int | None:
    """The line after the one in which the last bracket of a statement is closed; the next one where none does it."""
    if not line.startswith(("import", "export")) or not _STATEMENT.fullmatch(line.rstrip()):
        return None
    searched: dict[int, int] = state.env.setdefault("searched", {})  # to which line in vain: not from each line again
    if searched.get(end, start) > start:
        return start + 1
    opened = 0
    last = min(end, start + _MOST_LINES)
    for at in range(start, last):
        if state.sCount[at] < state.blkIndent and not state.isEmpty(at):
            last = at
            break
        text = _STRING.sub("", _line(state, at))
        opened += sum(map(text.count, "([{")) - sum(map(text.count, ")]}"))
        if opened <= 0:
            return at + 1
    searched[end] = last
    return start + 1


def _grid_end(state: StateBlock, line: str, start: int, end: int) -> int | None:
    if not _BORDER.fullmatch(line):
        return None
    after = start + 1
    while after < end and state.sCount[after] >= state.blkIndent and _line(state, after).startswith(("|", "+")):
        after += 1
    return after if after > start + 1 else None


def _line(state: StateBlock, at: int) -> str:
    return state.src[state.bMarks[at] + state.tShift[at] : state.eMarks[at]]
