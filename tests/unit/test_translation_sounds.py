"""Chinese names by their sounds: how they are spelled, which candidates are names, when a prompt shows one."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from edge.documents import Unit
from edge.translation import languages, loop, sounds
from edge.translation.candidates import Candidates
from edge.translation.loop import Draft, Job, Request
from edge.translation.names import Memory
from edge.translation.prompts import Pair
from tests.chinese import SCENES, book, is_word
from tests.translators import Notes, OneByOne

ZH, EN, JA = (languages.find(code) for code in ("zh", "en", "ja"))
# as they are written in English by those who bear or publish them
SPELLED = {
    "曾国藩": "Zeng Guofan",
    "欧阳修": "Ouyang Xiu",
    "诸葛亮": "Zhuge Liang",
    "长孙无忌": "Zhangsun Wuji",
    "尉迟恭": "Yuchi Gong",
    "吕布": "Lü Bu",
    "单雄信": "Shan Xiongxin",
    "解珍": "Xie Zhen",
    "葛优": "Ge You",
    "查良镛": "Zha Liangyong",
    "翟志刚": "Zhai Zhigang",
    "任正非": "Ren Zhengfei",
    "孔乙己": "Kong Yiji",
    "李西安": "Li Xi'an",
    "张恩恩": "Zhang En'en",
    "小张": "Xiao Zhang",
    "歐陽脩": "Ouyang Xiu",
    "司马": "Sima",
    "司馬懿": "Sima Yi",
    "尉遲恭": "Yuchi Gong",
    "万俟卨": "Moqi Xie",
    "秦桧": "Qin Hui",
    "小曾": "Xiao Zeng",
    "老翟": "Lao Zhai",
    "张率": "Zhang Shuai",
    "文文": "Wenwen",
}


def readings(
    sources: Sequence[str],
    source: languages.Language = ZH,
    target: languages.Language = EN,
    word: Callable[[str], bool] = is_word,
) -> dict[str, str]:
    return sounds.readings(sources, Candidates(sources, source), (source, target), word)


@pytest.mark.parametrize("name", SPELLED)
def test_names_are_spelled_as_their_bearers_are_known(name: str) -> None:
    assert sounds.pinyin(name) == SPELLED[name]


def test_people_of_a_book_have_their_readings() -> None:
    found = readings(book("张艳杰", "魏敏", "小刘", "欧阳锋", "白玉兰"))
    assert found == {
        "张艳杰": "Zhang Yanjie",
        "魏敏": "Wei Min",
        "小刘": "Xiao Liu",
        "欧阳锋": "Ouyang Feng",
        "白玉兰": "Bai Yulan",
    }


def test_a_given_name_alone_is_one_word() -> None:
    assert readings(book("张艳杰", "魏敏", "赵辛楣", "辛楣"))["辛楣"] == "Xinmei"


@pytest.mark.parametrize(
    "other",
    [
        "解放军",  # begins with a word
        "高大",  # is one
        "张大夫",  # a title
        "王老师",
        "秦处长",
        "贾母",
        "向魏敏",  # towards her
        "何苦",  # words of their own
        "方知",
        "胡乱",
        "快快",
        "白白",
        "小猫",  # no surname
        "老虎",
        "马克",  # foreign first names
        "安娜",
        "罗伯特",
        "艾丽丝",
    ],
)
def test_what_is_no_chinese_name_has_none(other: str) -> None:
    people = {"张艳杰": "Zhang Yanjie", "魏敏": "Wei Min", "吴峰": "Wu Feng"}
    assert readings(book(*people, other)) == people


def test_traditional_characters_are_known() -> None:
    chance = random.Random(0)  # what else is in a book
    filler = ["".join(chr(chance.randrange(0x5000, 0x7000)) for _ in range(40)) for _ in range(60)]
    assert readings([*book("張豔傑", "蔣平", "歐陽鋒"), *filler]) == {
        "張豔傑": "Zhang Yanjie",
        "蔣平": "Jiang Ping",
        "歐陽鋒": "Ouyang Feng",
    }


def test_what_stands_behind_a_name_is_no_part_of_it() -> None:
    sources = [*book("张艳杰", "魏敏"), *book("魏敏便", scenes=SCENES[:6])]
    assert readings(sources).keys() == {"张艳杰", "魏敏"}


def test_a_word_that_mostly_stands_inside_has_none() -> None:
    inside = [scene for scene in SCENES if not scene.startswith("{")]
    more = ["昨天下午又是{}来扫地。", "那天正好有{}在旁边坐着。", "其实只要{}点头就行。"]
    sources = [*book("张艳杰", "魏敏"), *book("高粱", scenes=[s for s in (*inside, *more) if "“" not in s])]
    assert readings(sources).keys() == {"张艳杰", "魏敏"}


@pytest.mark.parametrize("names", [("马克", "安娜", "查尔"), ("艾美", "高登", "路思"), ("张艳杰", "高登", "路思")])
def test_a_book_about_foreigners_has_none(names: tuple[str, ...]) -> None:
    assert readings(book(*names)) == {}


def test_a_book_with_more_foreign_names_in_full_than_chinese_ones_has_none() -> None:
    foreign = ["约翰·史密斯", "安娜·卡列宁", "皮埃尔·别祖霍夫"]
    assert readings(book("张艳杰", "魏敏", *foreign)) == {}
    assert readings(book("张艳杰", "魏敏", foreign[0])).keys() == {"张艳杰", "魏敏"}


def test_titles_of_books_are_no_foreign_names() -> None:
    books = ["他读过《诗经·大雅》。", "《史记·本纪》在这里。", "还有《礼记·中庸》。"] * 3
    assert readings([*book("张艳杰", "魏敏"), *books]).keys() == {"张艳杰", "魏敏"}


def test_a_name_that_cannot_be_read_has_none() -> None:
    assert readings(book("张艳杰", "魏敏", "吴峰", "王亚\u3402")).keys() == {"张艳杰", "魏敏", "吴峰"}
    assert "王柏" not in readings(book("张艳杰", "魏敏", "吴峰", "王柏"))  # Bai or Bo


def test_no_two_people_share_a_reading() -> None:
    assert readings(book("张艳杰", "魏敏", "吴峰", "吴锋")).keys() == {"张艳杰", "魏敏"}


def test_a_name_that_hardly_occurs_has_none() -> None:
    rare = book("吴峰", scenes=SCENES[: sounds.LEAST - 1])
    assert readings([*book("张艳杰", "魏敏"), *rare]).keys() == {"张艳杰", "魏敏"}
    assert readings([*book("张艳杰", "魏敏"), *book("吴峰", scenes=SCENES[: sounds.LEAST])]).keys() == {
        "张艳杰",
        "魏敏",
        "吴峰",
    }
    filler = ["天气很好，风也不大。"] * (len(SCENES) * sounds.SHARE)
    assert readings([*book("张艳杰", "魏敏"), *filler]) == {}


def test_other_languages_and_tokenizers_without_words_have_none() -> None:
    sources = book("张艳杰", "魏敏")
    assert readings(sources)
    assert readings(sources, JA) == {}
    for code in ("vi", "lv", "lt", "az", "uz", "hu", "sr", "ru", "ja", "ar"):
        assert readings(sources, target=languages.find(code)) == {}
    assert readings(sources, target=languages.find("de")) == readings(sources)
    assert readings(sources, word=lambda text: False) == {}  # as with a byte-level vocabulary
    assert readings([]) == {}


def test_what_the_user_says_and_what_was_accepted_go_before_it() -> None:
    sources = book("张艳杰", "魏敏")
    candidates = Candidates(sources, ZH)
    read = readings(sources)
    assert Memory(candidates, EN, readings=read).applying("魏敏来了。") == [("魏敏", "Wei Min")]
    assert Memory(candidates, EN).applying("魏敏来了。") == []
    assert Memory(candidates, EN, {"魏敏": "Min"}, read).applying("魏敏来了。") == []
    assert Memory(candidates, EN, {"老魏": "Wei Min"}, read).applying("魏敏来了。") == []  # taken
    learned = Memory(candidates, EN, readings=read)
    for source in sources:
        if "魏敏" in source:
            learned.learn(Pair(source, "There was Wiley again, and nobody spoke."))
    assert learned.applying("魏敏来了。") == [("魏敏", "Wiley")]
    assert learned.applying("张艳杰来了。") == [("张艳杰", "Zhang Yanjie")]


def test_a_reading_that_the_user_has_corrected_is_not_shown() -> None:
    sources = book("张艳杰", "魏敏")
    for known in (sources, ()):  # the model's name is remembered; it was shown, and no more
        memory = Memory(Candidates(sources, ZH), EN, readings=readings(sources))
        for source in known:
            if "魏敏" in source:
                memory.learn(Pair(source, "I heard Wei Min singing."))
        assert memory.applying("魏敏来了。") == [("魏敏", "Wei Min")]
        memory.correct("Wei Min came into the yard.", Pair("魏敏走进了院子。", "Vimin came into the yard."))
        assert memory.applying("魏敏来了。") == []
        assert memory.applying("张艳杰来了。") == [("张艳杰", "Zhang Yanjie")]
    memory.learn(Pair("我听见魏敏在唱歌。", "I heard Wei Min singing."), by_user=True)
    assert memory.applying("魏敏来了。") == [("魏敏", "Wei Min")]


def test_what_somebody_was_called_is_not_exchanged_for_a_reading() -> None:
    sources = book("张艳杰", "魏敏")
    memory = Memory(Candidates(sources, ZH), EN, readings=readings(sources))
    for source in sources:
        if "魏敏" in source:
            memory.learn(Pair(source, "There was Wiley again, and nobody spoke."))
    assert memory.applying("魏敏来了。") == [("魏敏", "Wiley")]
    for _ in range(40):
        memory.learn(Pair("大家都看着魏敏，没有人说话。", "Everybody looked, and nobody spoke."))
    assert memory.applying("魏敏来了。") == []  # forgotten


class Knows(OneByOne):
    """Writes the names that it is shown."""

    def __init__(self) -> None:
        self.seen: list[Request] = []

    def translate(self, request: Request) -> Draft:
        self.seen.append(request)
        return Draft(f"Here came {' and '.join(t for _, t in request.terms) or 'somebody'}, and it was a fine day.", 9)


@pytest.mark.parametrize(("names", "word"), [(True, is_word), (True, None), (False, is_word)])
def test_the_first_prompt_that_holds_a_name_shows_its_reading(names: bool, word: Callable[[str], bool] | None) -> None:
    units = [Unit(f"u{n}", text) for n, text in enumerate(book("张艳杰", "魏敏"))]
    job = Job(units, ZH, EN, learn=frozenset(), names=names, is_word=word)
    translator = Knows()
    list(loop.translate(job, translator, Notes()))
    shown = [("张艳杰", "Zhang Yanjie")] if names and word else []
    assert list(translator.seen[0].terms) == shown


def test_pypinyin_comes_without_its_phrases_and_leaves_the_environment_as_it_is() -> None:
    code = (
        "import os; before = dict(os.environ); from edge.translation import sounds; import sys;"
        "assert 'pypinyin' not in sys.modules; assert sounds.pinyin('魏敏') == 'Wei Min';"
        "from pypinyin.constants import PHRASES_DICT; assert not PHRASES_DICT; assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
