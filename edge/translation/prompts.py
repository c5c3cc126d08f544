"""Prompts: what a model reads before it translates, the same form while decoding and while learning.

Owns: templates (files in `configs/templates/`), the text of a prompt and of what must follow it.
Does not know: torch, sessions, how much fits a window.
Units: lines; a unit is one line.

The form is the paper's (arXiv 2401.11504, section 4.2): a source block then its target block as context, then the block
to translate. While decoding the block to translate is one line; which pairs the context block holds, and which follow
it line by line, is decided in `context`. A lesson has both: half of a chunk as a block, the other half line by line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from .. import settings
from ..errors import SettingsError
from ..values import strict, yamltext
from . import chat
from .languages import Language


class Pair(NamedTuple):
    """A source line and its translation."""

    source: str
    target: str


Terms = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Template:
    """The texts that a prompt is made of; {names} in braces are filled in.

    Attributes:
        form: `plain` text, or `chat` through the tokenizer's own template.
        start: what comes first ({source_name}, {target_name}).
        terms: the line about glossary terms ({terms}), each of which is a `term` ({source}, {target}).
        block: what stands before the target lines ({source}: the source lines; the names).
        end: what follows the last target line.
        examples: the same sentence in several languages, by code; they are the context before there is any.
    """

    form: Literal["plain", "chat"]
    start: str
    terms: str
    term: str
    block: str
    end: str
    examples: tuple[Mapping[str, str], ...] = ()
    description: str = ""

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
    if not path.is_file():
        raise SettingsError(
            f"there is no template '{name}'", "one of " + ", ".join(template_names()), "or a .yaml file"
        )
    try:
        data = yamltext.read(path)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError, ValueError) as error:
        raise SettingsError(f"{path} is not readable YAML", "a template file", "correct the file") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{path} holds {strict.name_of(data)}", "a mapping", "see configs/templates/plain.yaml")
    made: Template = strict.build(Template, data, str(path), {"examples": _examples})
    return made


def _examples(value: Any, where: str) -> tuple[Mapping[str, str], ...]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(e, dict) and all(isinstance(v, str) for pair in e.items() for v in pair) for e in entries):
        raise SettingsError(f"{where} are not texts", "a list of code: sentence", "quote them (yes and no are no text)")
    return tuple(entries)


class Prompts:
    """Prompts of one language pair in one template."""

    def __init__(self, template: Template, source: Language, target: Language, tokenizer: Any = None) -> None:
        """`tokenizer`: whose chat template is used, for the form `chat`.

        Raises:
            SettingsError: the form is `chat`, and the tokenizer has no chat template.
        """
        if template.form == "chat" and not getattr(tokenizer, "chat_template", None):
            raise SettingsError("the model has no chat template", "an instruction-tuned model", "use --template plain")
        self.template = template
        self.languages = source, target
        self.names = {"source_name": source.name, "target_name": target.name}
        self.examples = [
            Pair(example[source.code], example[target.code])
            for example in template.examples
            if source.code in example and target.code in example and source.code != target.code
        ]
        self._tokenizer = tokenizer

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

        The first part ends with the context block, then comes each of `lines` as a block of its own, then `sources`.
        A chat template that writes earlier turns otherwise than later ones leaves one part.
        """
        if lines and not context:
            context = lines[:1]
            lines = lines[1:]
        if self.template.form == "chat":
            return self._chat_parts(self._messages(context, sources, terms, lines))
        blocks = [context, *([line] for line in lines)] if context else []
        shown = [self.block([p.source for p in block]) + self.targets([p.target for p in block]) for block in blocks]
        first = self._fill(self.template.start) + "".join(shown[:1])
        return [first, *shown[1:], self._asked(sources, terms)]

    def _chat_parts(self, messages: list[dict[str, str]]) -> list[str]:
        texts = [self._chat(messages[:end], answered=True) for end in range(2, len(messages), 2)]
        texts.append(self._chat(messages))
        if any(not after.startswith(before) for before, after in pairwise(texts)):
            return texts[-1:]
        return [after[len(before) :] for before, after in pairwise(["", *texts])]

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
        if self.template.form == "chat":
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
        sources = [[pair.source for pair in block] for block in blocks]
        messages = self._messages(context, sources[0], terms("\n".join(sources[0])))
        before = ""
        turns = list[tuple[str, str]]()
        for index, block in enumerate(blocks):
            if index:
                asked = self._asked(sources[index], terms("\n".join(sources[index])))
                messages.append({"role": "user", "content": asked})
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

    def _messages(
        self, context: Sequence[Pair], sources: Sequence[str], terms: Terms, lines: Sequence[Pair] = ()
    ) -> list[dict[str, str]]:
        start = self._fill(self.template.start)
        asked = self._asked(sources, terms)
        if not context:
            return [{"role": "user", "content": start + asked}]
        turns = []
        for block in (context, *([line] for line in lines)):
            turns.append({"role": "user", "content": start + self.block([pair.source for pair in block])})
            turns.append({"role": "assistant", "content": "\n".join(pair.target for pair in block)})
            start = ""
        return [*turns, {"role": "user", "content": asked}]

    def _chat(self, messages: list[dict[str, str]], *, answered: bool = False) -> str:
        options = {"tokenize": False, "add_generation_prompt": not answered, "enable_thinking": False}
        return chat.bounded(lambda: self._tokenizer.apply_chat_template(messages, **options))

    def _asked(self, sources: Sequence[str], terms: Terms) -> str:
        """A block of source lines, after the glossary terms that apply to it."""
        if not terms:
            return self.block(sources)
        each = [_fill(self.template.term, {"source": source, "target": target}) for source, target in terms]
        return self._fill(self.template.terms, terms="; ".join(each)) + self.block(sources)

    def block(self, sources: Sequence[str]) -> str:
        """A block of source lines, up to where its target lines begin."""
        return self._fill(self.template.block, source="\n".join(sources))

    def _fill(self, text: str, **more: str) -> str:
        return _fill(text, {**self.names, **more})


def _fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with each {name} of `values` replaced, once: what is put in is not looked at again."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), text)
