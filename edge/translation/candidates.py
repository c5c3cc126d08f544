"""Candidates for names: which strings of a source text recur as names do, and where they stand.

Owns: what a script says about names (capitals; surnames, and sequences that hold together). Pure functions of texts.
Does not know: translations, glossaries, prompts.
Units: occurrences, characters.

Where a language has capitals: runs of capitalised words that do not only begin sentences. In Chinese and Japanese:
sequences of 2 to 4 characters that have several neighbours on either side and are no part of a longer one alone;
those that begin as names of people do need less to show that they hold together. No segmenter is asked. Most
candidates are no names: that a translation gives them always the same capitalised words is what tells names
(`names`). Everything takes time in proportion to the text: a longer sequence is counted only where its parts recur.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain

import regex

from ..documents import placeholders
from .languages import Language

LEAST = 2  # times that a candidate occurs
UNCASED = {"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"}
LONGEST = 4  # characters of a candidate where words are not separated; words where they are
SURNAMES = frozenset(
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜"
    "范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛"
    "伍韦申尤毕聂丛焦向柳邢路岳齐沿梅莫庄辛管祝左涂谷祁时舒耿牟卜詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍翁隋植甘景薄"
    "單楚柏宁桂容慕云解房艾沙麦蓝冷岑敖宫丘"
)
DOTS = "·•・"  # in a foreign name in full
NICKNAMES = "小老阿"  # before a surname
_PREFIXES = frozenset(NICKNAMES + "大")
# characters that no name begins or ends with: what is left of a sentence around one
_LOOSE = frozenset(
    "的了是在不我你他她它们这那也就都又还很把被让给对从跟和与或但而并着过吗呢吧啊呀嘛么什怎哪谁几个有没会能要想说道看听去来到上下里"
    "为以可如果因所之其此些再才只已将最更太真好多少第一两年月日时候后前中内外间"
)
_RUN = regex.compile(
    r"[\p{Script=Han}々]+|[\p{Script=Katakana}ー・]{2,}|[[\p{L}\p{M}]--[\p{Script=Han}\p{Script=Katakana}]]+", regex.V1
)
_HALF = r"[\p{Script=Han}\p{Script=Katakana}ー]"
_DOTS = regex.compile(
    rf"(?P<before>{_HALF}{{1,6}})(?P<dots>[{DOTS}](?:{_HALF}{{1,6}}[{DOTS}])?)(?P<after>{_HALF}{{1,6}})"
)
_FOREIGN = regex.compile(rf"[\p{{Script=Katakana}}ー・]+|.*[{DOTS}].*")
_WORD = regex.compile(r"[\p{L}\p{M}]+(?:['’-][\p{L}\p{M}]+)*")
_BEGINS = regex.compile(r"(?:^|[.!?…:;。！？]|[\"“”‘«»„(\[—–-])\s*$")
_TITLES = frozenset(["Mr", "Mrs", "Ms", "Dr", "St", "Mme", "Mlle", "Prof", "Sr", "Jr"])
_VOWELS = regex.compile(r"[aeiouyüAEIOUYÜ]+")
_OWNED = regex.compile(r"['’](?:s|m|d|t|ll|re|ve)?$")


class Candidates:
    """The strings of a text that may be names, found wherever they stand.

    Attributes:
        cased: whether the language tells names by capitals.
    """

    def __init__(self, texts: Sequence[str], language: Language) -> None:
        """`texts`: all there is of the source, read or not yet."""
        plain = [placeholders.plain(text) for text in texts]
        self.cased = not UNCASED & set(language.scripts)
        self.found = _capitalised(plain, LEAST) if self.cased else _cohesive(plain, LEAST)

    def within(self, text: str) -> list[str]:
        """The candidates in `text`, in order, each once; one inside another too."""
        text = placeholders.plain(text)
        pieces = (name for name, _ in runs_of(text)) if self.cased else chain(_grams(text), _dotted(text))
        return list(dict.fromkeys(piece for piece in pieces if piece in self.found))

    def alone(self, text: str) -> list[str]:
        """Those that stand in `text` outside every longer one."""
        rest = placeholders.plain(text)
        found = self.within(text)
        kept = []
        for size in sorted({len(name) for name in found}, reverse=True):
            here = [name for name in found if len(name) == size and name in rest]
            kept += here
            for name in here:
                rest = rest.replace(name, "\0")
        return kept

    def personal(self, name: str) -> bool:
        """Whether a candidate looks as names of people do, so that less is needed to take it for one."""
        return self.cased or _begins_as_a_person(name) or bool(_FOREIGN.fullmatch(name))


def whole_runs(text: str) -> set[str]:
    """Those of `runs_of` that are no part of a longer one, but for the word that begins a sentence."""
    found = set()
    words = list(_WORD.finditer(text))
    first = 0
    while first < len(words):
        last = first
        while last + 1 < len(words) and _follows(text, words[last], words[last + 1]):
            last += 1
        if words[first][0][0].isupper():
            begins = 1 + (
                last > first and bool(_BEGINS.search(text, max(0, words[first].start() - 4), words[first].start()))
            )
            found |= {_OWNED.sub("", text[words[n].start() : words[last].end()]) for n in range(first, first + begins)}
        first = last + 1
    return found


def runs_of(text: str) -> Iterator[tuple[str, bool]]:
    """Runs of one to `LONGEST` capitalised words, without a possessive's ending; and whether each stands inside a
    sentence, so that its capital is its own.
    """
    words = list(_WORD.finditer(text))
    for first, word in enumerate(words):
        if not word[0][0].isupper():
            continue
        inside = not _BEGINS.search(text, max(0, word.start() - 4), word.start())
        for last in range(first, min(first + LONGEST, len(words))):
            if last > first and not _follows(text, words[last - 1], words[last]):
                break
            yield _OWNED.sub("", text[word.start() : words[last].end()]), inside


def _follows(text: str, before: regex.Match[str], word: regex.Match[str]) -> bool:
    """Whether a capitalised word belongs to the one before: one space between them, or that of a title's dot."""
    between = text[before.end() : word.start()]
    title = between == ". " and before[0] in _TITLES
    return (
        before[0][0].isupper()
        and word[0][0].isupper()
        and (between in (" ", "\u00a0") or title)
        and not _OWNED.search(before[0])
    )


def _capitalised(texts: Sequence[str], least: int) -> frozenset[str]:
    counts: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    lower: Counter[str] = Counter()
    for text in texts:
        for name, own in runs_of(text):
            counts[name] += 1
            inside[name] += own
        lower.update(word for word in _WORD.findall(text) if word.islower())
    return frozenset(
        name
        for name, count in counts.items()
        if count >= least and 4 * inside[name] >= count and len(name) > 1 and 2 * lower[name.lower()] < count
    )


def _grams(text: str) -> Iterator[str]:
    for run in _RUN.findall(text):
        for start in range(len(run)):
            for size in range(2, min(LONGEST, len(run) - start) + 1):
                yield run[start : start + size]
        if len(run) > LONGEST and regex.match(r"\p{Script=Katakana}", run):
            yield run


def _dotted(text: str) -> Iterator[str]:
    """Everything that a foreign name with dots in it may be: where it begins and ends is not written."""
    for match in _DOTS.finditer(text):
        for first in range(len(match["before"])):
            for end in range(1, len(match["after"]) + 1):
                yield match["before"][first:] + match["dots"] + match["after"][:end]


def _whole(texts: Sequence[str], least: int) -> set[str]:
    """Foreign names: the longest form that is nearly as frequent as the shorter ones inside it."""
    counts = Counter(name for text in texts for name in _dotted(text))
    found = {name for name, count in counts.items() if count >= least}
    inner = {part for name in found for part in (name[1:], name[:-1]) if counts[name] >= 0.8 * counts[part]}
    runs = Counter(run for text in texts for run in _RUN.findall(text) if _FOREIGN.fullmatch(run))
    return (found - inner) | {run for run, count in runs.items() if count >= least}


def _cohesive(texts: Sequence[str], least: int) -> frozenset[str]:
    runs = [run for text in texts for run in _RUN.findall(text)]
    counts = Counter(char for run in runs for char in run)
    total = max(1, sum(counts.values()))
    frequent: set[str] = set(counts)
    for size in range(2, LONGEST + 2):  # one more than a candidate has: what it may be a part of
        grams = Counter(
            run[start : start + size]
            for run in runs
            for start in range(len(run) - size + 1)
            if run[start : start + size - 1] in frequent and run[start + 1 : start + size] in frequent
        )
        frequent = {gram for gram, count in grams.items() if count >= least}
        counts.update({gram: grams[gram] for gram in frequent})
    beside, longer = _neighbours(runs, counts)
    return frozenset(
        name
        for name in counts
        if 2 <= len(name) <= LONGEST
        and _stands_alone(name, counts[name], beside, longer)
        and _holds(name, counts, total)
    ) | _whole(texts, least)


def _neighbours(runs: Sequence[str], counts: Counter[str]) -> tuple[dict[str, tuple[set[str], set[str]]], Counter[str]]:
    """What stands before and after each sequence, and how often the most frequent longer one has it in it."""
    beside: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for number, run in enumerate(runs):
        for start in range(len(run)):
            for size in range(2, min(LONGEST, len(run) - start) + 1):
                gram = run[start : start + size]
                if gram in counts:
                    before, after = beside[gram]
                    before.add(run[start - 1] if start else f"<{number % 4}")
                    after.add(run[start + size] if start + size < len(run) else f">{number % 4}")
    longer: Counter[str] = Counter()
    for gram, count in counts.items():
        if len(gram) > 2:
            for part in (gram[1:], gram[:-1]):
                longer[part] = max(longer[part], count)
    return beside, longer


def _stands_alone(name: str, count: int, beside: dict[str, tuple[set[str], set[str]]], longer: Counter[str]) -> bool:
    """Whether a sequence is no piece of a sentence and no piece of a longer one."""
    if (name[0] in _LOOSE and name[0] not in SURNAMES) or name[-1] in _LOOSE - SURNAMES:
        return False
    before, after = beside[name]
    return min(len(before), len(after)) >= 2 and longer[name] < 0.8 * count


def _holds(name: str, counts: Counter[str], total: int) -> bool:
    """Whether its parts stand together more often than by chance: much more, or a little where it begins as a person's
    name does.
    """
    times = 3 if _begins_as_a_person(name) else 30
    halves = ((name[:i], name[i:]) for i in range(1, len(name)))
    return all(counts[name] * total > times * counts[left] * counts[right] for left, right in halves)


def sounds_alike(name: str, run: str) -> bool:
    """Whether a target may be a source name as it sounds; true where the scripts do not tell.

    A Chinese name has a syllable for each character, and a syllable of its transcriptions one run of vowels. Names
    in Latin letters mostly keep the first letter of one of their words.
    """
    if not regex.fullmatch(r"[\p{Script=Latin}\p{M}\s.'’-]+", run):
        return True
    if regex.fullmatch(r"\p{Script=Han}+", name):
        return not _begins_as_a_person(name) or len(_VOWELS.findall(run)) == len(name)
    if not regex.fullmatch(r"[\p{Script=Latin}\p{M}\s.'’-]+", name):
        return True
    return bool({word[0].casefold() for word in name.split()} & {word[0].casefold() for word in run.split()})


def _begins_as_a_person(name: str) -> bool:
    return len(name) <= 3 and (name[0] in SURNAMES or name[0] in _PREFIXES)
