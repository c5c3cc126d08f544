"""Sounds: what a Chinese name is called in Latin letters, before anybody has called it something.

Owns: which candidates are surely people's names, how they are written in pinyin.
Does not know: prompts, records, models, which names are remembered.
Units: units of a document in which a name stands: a book in fewer than `LEAST` of them has no reading.

A small model calls somebody who comes up for the first time what it likes, or leaves him out. Pinyin is what
translators write there, and it follows from the characters alone: surname, then given name in one word ("Su Mian",
"Li Xi'an"; Basic rules of the Chinese phonetic alphabet orthography, GB/T 16159). A word that is taken for a name is
worse than a name that is not found: so a name begins with a surname, recurs, often stands where a clause begins, is no
word that the model's tokenizer has whole and begins with none, and goes on with no character that foreign names are
written with.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache

import regex

from ..documents import placeholders
from .candidates import DOTS, NICKNAMES, SURNAMES, Candidates
from .languages import Language

LEAST = 5  # units in which a name stands
SHARE = 400  # and one of so many of all
BEGINS = 0.2  # the share of its places at which a run of characters begins


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_OTHERWISE = frozenset(_words("vi lv lt az uz hu"))  # written in Latin letters, and Chinese names not in pinyin
_DOUBLE = frozenset(
    _words(
        """
    欧阳 司马 上官 诸葛 慕容 司徒 皇甫 尉迟 公孙 令狐 长孙 宇文 东方 南宫 夏侯 独孤 轩辕 端木 西门 东郭 百里 呼延
    澹台 淳于 申屠 太史 钟离 闻人 濮阳 万俟
    歐陽 司馬 諸葛 尉遲 公孫 長孫 東方 獨孤 軒轅 西門 東郭 澹臺 淳於 鍾離 聞人 濮陽 萬俟
    """
    )
)
_SURNAMES = SURNAMES | frozenset(  # in traditional characters too
    "張劉陳楊趙黃吳孫馬鄭謝韓馮蕭許鄧呂蘇盧蔣賈葉閻餘鍾譚鄒陸龍萬錢湯賴龐蘭顏溫蘆魯韋畢聶叢齊莊塗時關費紀歐項衛鮑雲麥藍寧顧"
    "嚴賀鄔紐喬龔"
)
# surnames that are read otherwise than the character mostly is, and characters of given names that are
_READ = dict(
    zip("曾单單解查翟卜覃薄仇区區盖朴", _words("zeng shan shan xie zha zhai bu qin bo qiu ou ou ge piao"), strict=True)
) | dict(
    zip(
        _words("尉迟 尉遲 澹台 澹臺 长孙 長孫 万俟 萬俟"),
        _words("yuchi yuchi tantai tantai zhangsun zhangsun moqi moqi"),
        strict=True,
    )
)
_GIVEN = dict(
    zip("长長行重晟桧檜隽率都还", _words("chang chang xing chong sheng hui hui jun shuai du huan"), strict=True)
)
# what names that are no Chinese ones are written with, and what is read in two ways in given names; titles that follow
# a surname
_REFUSED = frozenset(
    "斯克特尔爾德姆恩伯普布格蒂丁诺諾塔拉贝貝卡弗夫托奥奧巴迪帕萨薩莱萊洛鲁魯伊尼娅婭妮莎莉蕾琳顿頓逊遜勒基瑟丝絲"
    "柏参參藏"
)
_TITLES = _words(
    """
    先生 太太 夫人 医生 大夫 神医 太医 老师 教授 经理 主任 主席 书记 同志 干事 律师 师傅 伙计 丫头
    将军 大人 老板 总管 主管 秘书 护士 道士 行者 和尚 太尉 太师 御史 状元 学究 中书 守备 千户 大户
    太监 姥姥 嬷嬷 叔 伯 婶 哥 姐 弟 妹 爷 奶 嫂 姨 舅 妈 爹 娘 婆 妻 公 侯 王 妃 母 父 家 总
    工 官 长 主 僧 氏 某 贼 府 门 州 县 城 村 镇 街 寺 庙 庄 宫 洞 岭 冈 等 儿 子 口 老 身
    圣 聖 顶 得 不 诗 詩 编 編 爺 媽 嬸 嬤嬤 醫生 老師 經理 書記 師傅 將軍 老闆 總 總管 長 縣 鎮
    廟 莊 嶺 岡 門 賊 兒 夥計 姑孃
    """
)
# surnames that are words of their own: such a name must be met often, where one character follows; what follows some of
# them as such a word; whole words that begin as names do
_OWN_WORDS = frozenset(
    "何方任向管莫余时左常位从于文万高金白石马牛龙安温冷路房容童甘宫阳水明花叶江夏毛祝游解查单成景沙蓝关连平柳兰梅桂苗麦"
    "车云丁全時萬馬龍溫陽葉江蘭連關單遊雲麥車藍餘從於"
)
OFTEN = 100  # of such a one, one unit of so many
_AFTER = frozenset(
    "必敢用苦尝曾等故人处时事物者知欲罢进回妙渐凭凡何意性由从便若如要须想起才能可是有在不得止年里外前中下上后"
    "法向日晚边官字章化件消怪哭忙念怕教管取待情丈劫古岁望叫呼声"
)
_NOUNS = frozenset(
    _words("胡乱 胡说 胡闹 胡话 黄金 黄昏 金银 金玉 金光 白银 白狼 高粱 石头 马车 毛钱 路滑 冷峻 费劲 单于 單于")
)
_DOUBLED = frozenset("常白高单時时冷温毛满齐")  # which doubled are no pet names
# words that a tokenizer with Chinese words has whole: with one that lacks them no word could be told from a name
PLAIN = _words(
    """
    时间 问题 可以 没有 知道 自己 他们 已经 什么 因为 但是 如果 任务 方法 容易 关系 高兴 白色 严重
    解释
    """
)
_KNOWN = 0.75
# surnames with which foreign names do not begin, and how many of the names in a text must have one; foreign first names
# that look like Chinese ones
_PLAIN_SURNAMES = frozenset(
    "王李张張刘劉陈陳杨楊赵趙黄黃周吴吳徐孙孫胡朱郭何林梁宋郑鄭谢謝韩韓唐冯馮董程曹袁邓鄧许許傅沈曾彭吕呂蒋蔣蔡魏薛阎余潘杜夏钟鍾田任姜方石姚谭"
    "廖邹熊陆陸郝孔崔邱秦顾顧侯邵孟段钱錢尹贺龚庞樊殷施陶洪翟颜严嚴牛季俞章"
)
_CHINESE = (2, 0.25)
_FIRST_NAMES = frozenset(
    _words(
        """
    安娜 安妮 安东 安德 安琪 艾伦 艾玛 艾米 艾达 艾琳 艾丽 白兰度 戴维 费雪 高文 葛兰 葛丽 霍金
    江森 乔安 乔纳 乔治 路易 路加 路西 罗宾 罗杰 罗素 雷蒙 雷欧 马可 马丁 马克 麦琪 查理 苏珊 苏菲 汤米
    汤姆 温蒂 文森 易卜生 尤金 尤利 于连 约翰 柏林 万达 康德 左拉 简爱 龙格 洛克 金姆 萨姆 鲍勃
    鲍比 哈利 唐娜 杰克 杰森 亨利 丹尼 毕加索 米莉 莫娜
    """
    )
)
_WITHOUT = "PYPINYIN_NO_PHRASES"
_HAN = regex.compile(r"\p{Script=Han}+")
_LATIN = regex.compile(r"[\p{Script=Latin}' ]+")
_TITLE = regex.compile("[《〈][^》〉]*[》〉]")


def readings(
    sources: Sequence[str], candidates: Candidates, languages: tuple[Language, Language], is_word: Callable[[str], bool]
) -> dict[str, str]:
    """Names of people in a Chinese text, each with its pinyin; of two who would be called the same, neither.

    There are none in a text with more foreign names in full than Chinese ones, in one where too few have a surname that
    is Chinese beyond doubt, for languages that write them otherwise, and with a tokenizer that lacks Chinese words.

    Args:
        sources: the whole text, unit by unit; `candidates`: its candidates.
        languages: source, target.
        is_word: whether the model's tokenizer has a text whole.
    """
    source, target = languages
    if source.code != "zh" or target.scripts[0] != "Latin" or target.code in _OTHERWISE:
        return {}
    people = {name for name in candidates.found if _begins_as_one(name)}
    if not people or sum(map(is_word, PLAIN)) < _KNOWN * len(PLAIN):
        return {}
    counts: Counter[str] = Counter()
    for text in sources:
        counts.update(people.intersection(candidates.alone(text)))
    often = {name for name, count in counts.items() if count >= max(LEAST, len(sources) / _share(name))}
    likely = {name for name in often if _is_likely(name, candidates.found) and not _is_longer(name, counts)}
    begins = _begins(sources, likely)
    sure = [name for name in sorted(likely) if begins[name] >= BEGINS and not _has_word(name, is_word)]
    given = {name[1:] for name in sure}
    called = {name: _word(_read(name)) if name in given else pinyin(name) for name in sure}
    found = {name: reading for name, reading in called.items() if _LATIN.fullmatch(reading)}
    if _foreigners(sources, candidates) > len(found):
        return {}
    least, share = _CHINESE
    if sum(name[:2].strip(NICKNAMES)[:1] in _PLAIN_SURNAMES for name in found) < max(least, share * len(found)):
        return {}
    said = Counter(found.values())
    return {name: called for name, called in found.items() if said[called] == 1}  # two people never share one


def pinyin(name: str) -> str:
    """A Chinese name of two characters and more in pinyin without tones: "Surname Givenname"."""
    size = 2 if name[:2] in _DOUBLE else 1
    family, given = name[:size], name[size:]
    if name == 2 * family:
        return _word(_read(name))  # a pet name
    if name[0] in NICKNAMES:
        return f"{_word(_read(family))} {_word(_surname(given))}"
    return f"{_word(_surname(family))} {_word(_read(given))}".rstrip()


def _surname(characters: str) -> list[str]:
    """The syllables of a surname."""
    return [_READ[characters]] if characters in _READ else _reader()(characters)


def _read(characters: str) -> list[str]:
    """The syllables of a given name."""
    return [_GIVEN.get(char) or _reader()(char)[0] for char in characters]


def _word(syllables: Sequence[str]) -> str:
    """Syllables in one word, an apostrophe before one that begins with a vowel."""
    return "".join(f"'{s}" if n and s[0] in "aeo" else s for n, s in enumerate(syllables)).capitalize()


@cache
def _reader() -> Callable[[str], list[str]]:
    """pypinyin, each character by itself: its dictionary of phrases takes 40 MB, and names are none."""
    before = os.environ.get(_WITHOUT)
    os.environ[_WITHOUT] = "true"
    try:
        from pypinyin import lazy_pinyin
    finally:
        if before is None:
            del os.environ[_WITHOUT]
        else:
            os.environ[_WITHOUT] = before
    return lambda text: lazy_pinyin(text, v_to_u=True)


def _foreigners(sources: Sequence[str], candidates: Candidates) -> int:
    """How many candidates are foreign names in full, with a dot; titles of books have such dots too."""
    dotted = {name for name in candidates.found if any(dot in name for dot in DOTS)}
    plain = [_TITLE.sub(" ", text) for text in sources] if dotted else []
    return sum(any(name in text for text in plain) for name in dotted)


def _has_word(name: str, is_word: Callable[[str], bool]) -> bool:
    """Whether a word is what a name seems to be, or begins it."""
    return is_word(name) or (name[:2] not in _DOUBLE and len(name) > 2 and is_word(name[:2]))


def _begins_as_one(name: str) -> bool:
    """Whether a candidate may be a Chinese name by its length and by what it begins with."""
    if not _HAN.fullmatch(name):
        return False
    if name[:2] in _DOUBLE:
        return len(name) > 2
    return len(name) <= 3 and (name[0] in _SURNAMES or (name[0] in NICKNAMES and name[1] in _PLAIN_SURNAMES))


def _is_likely(name: str, candidates: Set[str]) -> bool:
    """Whether what begins as a name goes on as one."""
    if name.endswith(_TITLES) or name in _FIRST_NAMES or name in _NOUNS or _REFUSED & set(name[1:]):
        return False
    if name[0] in NICKNAMES:
        return len(name) == 2
    if name[0] in _OWN_WORDS and name[0] != name[1]:
        return name[1] not in _AFTER and name[1:] not in candidates
    return name[0] != name[1] or name[0] not in _DOUBLED


def _share(name: str) -> int:
    """One of how many units a name must stand in."""
    return OFTEN if len(name) == 2 and name[0] in _OWN_WORDS else SHARE


def _is_longer(name: str, counts: Mapping[str, int]) -> bool:
    """Whether a name is another one and what stands behind it."""
    return any(counts.get(name[:size], 0) > counts[name] for size in range(2, len(name)))


def _begins(sources: Sequence[str], names: set[str]) -> dict[str, float]:
    """The share of a name's places at which a run of characters begins, by name."""
    places: Counter[str] = Counter()
    first: Counter[str] = Counter()
    for text in sources:
        for run in _HAN.findall(placeholders.plain(text)):
            for start in range(len(run)):
                here = names.intersection(run[start : start + size] for size in (2, 3, 4))
                places.update(here)
                first.update(here if start == 0 else ())
    return {name: first[name] / places[name] for name in names}
