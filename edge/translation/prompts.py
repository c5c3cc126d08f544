"""Prompts: what a model reads before it translates, the same form while decoding and while learning.

Owns: templates (files in `configs/templates/`), the text of a prompt and of what must follow it.
Does not know: torch, sessions, how much fits a window, which template fits a model (`families`).
Units: lines; a unit is one line.

The form is the paper's (arXiv 2401.11504, section 4.2): a source block then its target block as context, then the block
to translate. While decoding the block to translate is one line; which pairs the context block holds, and which follow
it line by line, is decided in `context`. A lesson has both: half of a chunk as a block, the other half line by line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from .. import settings
from ..errors import SettingsError
from ..values import strict, yamltext
from . import chat, families
from .languages import Language


class Pair(NamedTuple):
    """A source line and its translation."""

    source: str
    target: str


def key(text: str) -> str:
    """What source texts that are the same to a reader have in common."""
    return " ".join(text.replace("\u00ad", "").split())


Terms = Sequence[tuple[str, str]]
Message = dict[str, Any]  # a turn of a chat: its role, and its content
_NEXT = "what is said next"  # stands for a turn while the text before it is looked for


@dataclass(frozen=True)
class Template:
    """The texts that a prompt is made of; {names} in braces are filled in.

    Attributes:
        form: `plain` text; `chat` through the tokenizer's own template; `structured`, the same where a user's turn is
            a text with the codes of its languages, and all words about the task are the tokenizer's: terms are then a
            turn of their own.
        start: what comes first ({source_name}, {target_name}).
        terms: the line about glossary terms ({terms}), each of which is a `term` ({source}, {target}).
        block: what stands before the target lines ({source}: the source lines; the names).
        end: what follows the last target line.
        examples: the same sentence in several languages, by code; they are the context before there is any.
        between: what stands between two terms.
        names: what languages are called, by code or tag, where that is not their English name.
    """

    form: Literal["plain", "chat", "structured"]
    start: str
    terms: str
    term: str
    block: str
    end: str
    examples: tuple[Mapping[str, str], ...] = ()
    description: str = ""
    between: str = "; "
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, needed in (("block", "{source}"), ("terms", "{terms}"), ("term", "{target}")):
            if needed not in getattr(self, name):
                raise SettingsError(f"a template's {name} has no {needed}", f"a text with {needed}", "add it")
        if not self.end.startswith("\n"):
            raise SettingsError(f"a template's end is {self.end!r}", "a text that begins with a line break", "add it")


def template_names() -> list[str]:
    """Names of the shipped templates."""
    return sorted(path.stem for path in (settings.presets_folder() / "templates").glob("*.yaml"))


def load_template(name: str) -> Template:
    """A shipped template by its name, or one from a YAML file.

    Raises:
        SettingsError: there is none, or it is not valid.
    """
    named = name.endswith((".yaml", ".yml")) or "/" in name
    path = Path(name) if named else settings.presets_folder() / "templates" / f"{name}.yaml"
    if not os.path.isfile(path):
        raise SettingsError(
            f"there is no template '{name}'", "one of " + ", ".join(template_names()), "or a .yaml file"
        )
    try:
        data = yamltext.read(path)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError, ValueError) as error:
        raise SettingsError(f"{path} is not readable YAML", "a template file", "correct the file") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{path} holds {strict.name_of(data)}", "a mapping", "see configs/templates/plain.yaml")
    made: Template = strict.build(Template, data, str(path), {"examples": _examples, "names": _names})
    return made


def _examples(value: Any, where: str) -> tuple[Mapping[str, str], ...]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(e, dict) and all(isinstance(v, str) for pair in e.items() for v in pair) for e in entries):
        raise SettingsError(f"{where} are not texts", "a list of code: sentence", "quote them (yes and no are no text)")
    return tuple(entries)


def _names(value: Any, where: str) -> Mapping[str, str]:
    (found,) = _examples([value], where)
    return found


def common(one: Sequence[object], other: Sequence[object]) -> int:
    """How many of the first entries are the same in both."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))


class Prompts:
    """Prompts of one language pair in one template."""

    def __init__(self, template: Template, source: Language, target: Language, tokenizer: Any = None) -> None:
        """`tokenizer`: whose chat template is used, for every form but `plain`.

        Raises:
            SettingsError: a chat template is needed, and the tokenizer has none.
            ModelError: it is one that cannot be bounded.
        """
        if template.form != "plain" and not getattr(tokenizer, "chat_template", None):
            raise SettingsError("the model has no chat template", "an instruction-tuned model", "use --template plain")
        if template.form != "plain":
            chat.check(families.template_of(tokenizer))
        self.template = template
        self.languages = source, target
        self.names = {"source_name": self._name(source), "target_name": self._name(target)}
        self.examples = [
            Pair(example[source.code], example[target.code])
            for example in template.examples
            if source.code in example and target.code in example and source.code != target.code
        ]
        self._tokenizer = tokenizer
        self._turns: list[Message] = []  # those that were over in the last prompt
        self._texts: dict[tuple[str, int], str] = {}  # of so many of them, by how they are rendered

    def context(self, pairs: Sequence[Pair]) -> list[Pair]:
        """`pairs`; while there are fewer of them than examples, the last examples stand before them."""
        return [*self.examples[min(len(pairs), len(self.examples)) :], *pairs]

    def prompt(self, context: Sequence[Pair], sources: Sequence[str], terms: Terms = ()) -> str:
        """All that comes before the target lines of `sources`."""
        return "".join(self.parts(context, (), sources, terms))

    def parts(
        self, context: Sequence[Pair], lines: Sequence[Pair], sources: Sequence[str], terms: Terms = ()
    ) -> list[str]:
        """A prompt in parts, to be joined: what stands before the next unit as before this one, and the last part.

        The first part ends with the context block, then comes each of `lines` as a block of its own: what is asked, as
        it is asked without terms, and what was answered; then `sources`. A chat template that asks otherwise than it
        repeats leaves one part of a line, one that writes earlier turns otherwise than later ones leaves one part.
        """
        if lines and not context:
            context = lines[:1]
            lines = lines[1:]
        if self.template.form != "plain":
            return self._chat_parts(self._earlier(context, lines), sources, terms)
        first = self._fill(self.template.start)
        if context:
            first += self.block([p.source for p in context]) + self.targets([p.target for p in context])
        said = (text for line in lines for text in (self.block([line.source]), self.targets([line.target])))
        return [first, *said, self._asked(sources, terms)]

    def _chat_parts(self, earlier: list[Message], sources: Sequence[str], terms: Terms) -> list[str]:
        same = common(self._turns, earlier)
        self._texts = {key: text for key, text in self._texts.items() if key[1] <= same}
        self._turns = earlier
        asked = self._chat([*earlier, *self._asking(earlier, sources, terms)])
        ends = range(2, len(earlier) + 1, 2)
        for before in (self._ended, self._gone_on):
            texts = [self._turned(before, end) for end in ends]
            in_two = [text for end in ends[1:] for text in (self._turned(self._chat, end - 1), texts[end // 2 - 1])]
            for parts in ([*texts[:1], *in_two, asked], [*texts, asked]):
                if all(after.startswith(start) for start, after in pairwise(parts)):
                    return [after[len(start) :] for start, after in pairwise(["", *parts])]
        return [asked]

    def _turned(self, form: Callable[[list[Message]], str], count: int) -> str:
        """The first of the last prompt's turns, rendered once."""
        key = (form.__name__, count)
        if key not in self._texts:
            self._texts[key] = form(self._turns[:count])
        return self._texts[key]

    def _ended(self, earlier: list[Message]) -> str:
        return self._chat(earlier, answered=True)

    def _gone_on(self, earlier: list[Message]) -> str:
        """Turns as they stand when another one follows: some templates write the last answer otherwise."""
        text = self._chat([*earlier, self._said(_NEXT)])
        return text[: max(0, text.rfind(_NEXT))]

    def targets(self, targets: Sequence[str]) -> str:
        """What follows a prompt: the target lines and their end."""
        return "\n".join(targets) + self.template.end

    def lesson(
        self,
        context: Sequence[Pair],
        pairs: Sequence[Pair],
        terms: Callable[[str], Terms] = lambda source: (),
        *,
        whole: bool = False,
    ) -> list[tuple[str, str]]:
        """What is given and what must be said, in turn: the first half of `pairs` as one block, the
        others line by line.

        Joined it is the text of a prompt and its answers, ends of turns included.

        Args:
            terms: the glossary terms that apply to source lines.
            whole: all of `pairs` as one block, which is the paper's form.
        """
        half = len(pairs) if whole else (len(pairs) + 1) // 2
        blocks = [pairs[:half], *([pair] for pair in pairs[half:])]
        if self.template.form != "plain":
            return self._chat_lesson(context, blocks, terms) or self._chat_lesson(context, [pairs], terms)
        before = "".join(self.parts(context, (), ())[:-1])
        turns = []
        for block in blocks:
            sources = [pair.source for pair in block]
            given = before + self._asked(sources, terms("\n".join(sources)))
            turns.append((given, self.targets([pair.target for pair in block])))
            before = ""
        return turns

    def _chat_lesson(
        self, context: Sequence[Pair], blocks: Sequence[Sequence[Pair]], terms: Callable[[str], Terms]
    ) -> list[tuple[str, str]]:
        """Nothing where the template writes turns otherwise when more of them follow."""
        messages = self._earlier(context, ())
        before = ""
        turns = list[tuple[str, str]]()
        for block in blocks:
            sources = [pair.source for pair in block]
            messages += self._asking(messages, sources, terms("\n".join(sources)))
            asking = self._chat(messages)
            messages.append({"role": "assistant", "content": "\n".join(pair.target for pair in block)})
            whole = self._chat(messages, answered=True)
            if not (asking.startswith(before) and whole.startswith(asking)):
                if len(blocks) > 1:
                    return []
                whole = asking + self.targets([pair.target for pair in block])
            turns.append((asking[len(before) :], whole[len(asking) :]))
            before = whole
        return turns

    def _earlier(self, context: Sequence[Pair], lines: Sequence[Pair]) -> list[Message]:
        """Turns that are over: the context block, then each of `lines`."""
        messages = list[Message]()
        for block in (context, *([line] for line in lines)) if context else ():
            messages.append(self._said(self._begun(messages) + self.block([pair.source for pair in block])))
            messages.append({"role": "assistant", "content": "\n".join(pair.target for pair in block)})
        return messages

    def _asking(self, earlier: Sequence[Message], sources: Sequence[str], terms: Terms) -> list[Message]:
        """The turn that is to be answered, after `earlier` ones."""
        if self.template.form == "chat" or not terms:
            return [self._said(self._begun(earlier) + self._asked(sources, terms))]
        said = self._said("\n".join(source for source, _ in terms))
        known = {"role": "assistant", "content": "\n".join(target for _, target in terms)}
        return [said, known, self._said(self.block(sources))]

    def _begun(self, earlier: Sequence[Message]) -> str:
        return "" if earlier else self._fill(self.template.start)

    def _said(self, text: str) -> Message:
        """A user's turn."""
        if self.template.form == "chat":
            return {"role": "user", "content": text}
        source, target = (families.code_in(language, self._tokenizer) for language in self.languages)
        content = {"type": "text", "source_lang_code": source, "target_lang_code": target, "text": text}
        return {"role": "user", "content": [content]}

    def _chat(self, messages: list[Message], *, answered: bool = False) -> str:
        options: dict[str, Any] = chat.undated(self._tokenizer)
        options |= {"tokenize": False, "add_generation_prompt": not answered, "enable_thinking": False}
        return chat.bounded(lambda: self._tokenizer.apply_chat_template(messages, **options))

    def _asked(self, sources: Sequence[str], terms: Terms) -> str:
        """A block of source lines, after the glossary terms that apply to it."""
        if not terms:
            return self.block(sources)
        each = [_fill(self.template.term, {"source": source, "target": target}) for source, target in terms]
        return self._fill(self.template.terms, terms=self.template.between.join(each)) + self.block(sources)

    def block(self, sources: Sequence[str]) -> str:
        """A block of source lines, up to where its target lines begin."""
        return self._fill(self.template.block, source="\n".join(sources))

    def _name(self, language: Language) -> str:
        named = (self.template.names[tag] for tag in language.tags if tag in self.template.names)
        return next(named, language.name)

    def _fill(self, text: str, **more: str) -> str:
        return _fill(text, {**self.names, **more})


def _fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with each {name} of `values` replaced, once: what is put in is not looked at again."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), text)
