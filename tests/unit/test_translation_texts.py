"""Glossaries, prompts, aligned files, corrections, name consistency: all that is text alone."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import records
from edge.errors import InputError, SettingsError, StorageError
from edge.records import Learned, Lesson, UnitTranslated
from edge.translation import (
    consistency,
    folding,
    glossary,
    languages,
    pairs,
    prompts,
    report,
    reviewing,
    scores,
    spelling,
)
from edge.translation.prompts import Pair

ZH, EN, DE = (languages.find(code) for code in ("zh", "en", "de"))


# --- glossary ---


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_glossary_is_read(tmp_path: Path) -> None:
    text = "# names\n苏绵\tSu Mian\ta note\n\n魏振辉\tWei Zhen Hui\nopen\t\n苏绵\tSu Mian\n"
    found = glossary.read(written(tmp_path / "g.tsv", text))
    assert dict(found.terms) == {"苏绵": "Su Mian", "魏振辉": "Wei Zhen Hui"}


@pytest.mark.parametrize("text, said", [
    ("a\tb\nno tab here\n", "line 2 has no tab"),
    ("\tb\n", "line 1 has no source"),
    ("whale\tWal\n# x\nWhale\tWalfisch\n", "line 3 gives 'Whale' another translation than line 1"),
    ("O'Brien\tA\nO’Brien\tB\n", "line 2 gives 'O’Brien' another translation than line 1"),
    ("x\t" + "y" * 300 + "\n", "300 characters"),
    ("a ⟦1⟧\tb\n", "⟦ or ⟧"),
])  # fmt: skip
def test_a_bad_glossary_names_its_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        glossary.read(written(tmp_path / "g.tsv", text))


def test_terms_apply_as_whole_words_and_the_longest_wins() -> None:
    found = glossary.Glossary({"whale": "Wal", "white whale": "weißer Wal", "hale": "gesund", "苏": "Su"})
    assert found.applying("The White Whale!") == [("white whale", "weißer Wal")]
    assert found.applying("A whale and a white whale.") == [("white whale", "weißer Wal"), ("whale", "Wal")]
    assert found.applying("Whales are inhaled.") == []
    assert found.applying("老苏来了") == [("苏", "Su")]
    assert found.applying("wh⟦1⟧ale⟦/1⟧") == [("whale", "Wal")]


@pytest.mark.parametrize("term, text, found", [
    ("철수", "철수는 학교에 갔다.", True), ("철수", "김철수는 갔다.", False), ("Ahab", "Ahab은 갔다.", True),
    ("محمد", "ومحمد", True), ("محمد", "قال لمحمد", True), ("رجل", "وللرجل كتاب", True), ("القاهرة", "سافر للقاهرة", True),
    ("مُحَمَّد", "محمد", True), ("محمد", "بمُحَمَّدٍ", True), ("محمد", "محمدون", False), ("محمد", "الأحمحمد", False), ("حر", "بحر", False),
    ("דוד", "ולדוד", True), ("דוד", "כשהדוד בא", True), ("דוד", "גדוד", False), ("ירושלים", "בִּירוּשָׁלַיִם", True),
    ("สมชาย", "วันนี้สมชายมา", True), ("ສົມຊາຍ", "ມື້ນີ້ສົມຊາຍມາ", True), ("សុខា", "ថ្ងៃនេះសុខាមក", True), ("မောင်", "ဒီနေ့မောင်လာ", True),
    ("ក", "កាត់", False), ("ハリー", "ハリーPotter", True), ("İstanbul", "İstanbul'da", True), ("Ahab", "Ahab’ın", True),
    ("Nokia", "Nokia:n", True), ("Ahab", "Ahabs", False),
])  # fmt: skip
def test_what_a_language_writes_around_a_term_does_not_hide_it(term: str, text: str, found: bool) -> None:
    assert glossary.Glossary({term: "X"}).applying(text) == ([(term, "X")] if found else [])


@pytest.mark.parametrize("one, other", [
    ("O'Brien", "O’Brien"), ("O'Brien", "O\u02bcBrien"), ("White Whale", "White\u00a0Whale"), ("White Whale", "White\n Whale"),
    ("Ahab", "Ah\u00adab"), ("Ahab", "\u200eAhab\u200f"), ("Zoë", "Zoe\u0308"), ("Ahab", "Ａｈａｂ"), ("Zhen-hui", "Zhen\u2011hui"),
    ("צה\"ל", "צה״ל"), ("한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8"), ("ភ្នំពេញ", "ភ្នំ\u200bពេញ"), ("محمد", "محـمد"),
])  # fmt: skip
def test_a_term_is_found_however_it_is_typed(one: str, other: str) -> None:
    for term, text in ((one, other), (other, one)):
        assert glossary.Glossary({term: "X"}).applying(f"({text})") == [(term, "X")]
        assert folding.stands(term, f"({text})")


def test_a_term_is_found_across_what_stands_in_the_text() -> None:
    found = glossary.Glossary({"White Whale": "X", "whale": "Y", "白鲸": "Z", "鲸": "W"})
    assert found.applying("White⟦1/⟧Whale") == [("White Whale", "X")]  # a line break
    assert found.applying("The wha⟦1/⟧le.") == [("whale", "Y")]  # the end of a page
    assert found.applying("白⟦1/⟧鲸") == [("白鲸", "Z")]
    assert folding.stands("Weißer Wal", "Weißer⟦1/⟧Wal") and folding.stands("Wal", "W⟦1⟧al⟦/1⟧")
    assert not folding.stands("Wal", "W al") and not folding.stands("White Whale", "WhiteWhale")


@given(
    st.dictionaries(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8), st.just("X"), max_size=5),
    st.text(max_size=60),
)
def test_terms_that_apply_are_in_the_text(terms: dict[str, str], text: str) -> None:
    assert all(folding.stands(source, text) for source, _ in glossary.Glossary(terms).applying(text))


def test_recurring_names_are_proposed() -> None:
    english = [
        f"Then Captain Ahab met {who} in the {place}."
        for who in ("Starbuck", "Stubb", "Queequeg")
        for place in ("cabin", "boat")
    ]
    found = dict(glossary.recurring(english, EN, least=2))
    assert found == {"Captain Ahab": 6, "Starbuck": 2, "Stubb": 2, "Queequeg": 2}
    chinese = [
        f"{a}苏绵{b}。"
        for a, b in [("那天", "走了"), ("他问", "说话"), ("只有", "知道"), ("可是", "不见"), ("今早", "醒来")]
    ]
    filler = ["天气很好风也大", "他们在路上说话", "没有人知道为什么", "走了很远才停下", "那是旧事不必再提", "今早有雨"]
    assert "苏绵" in dict(glossary.recurring([*chinese, *filler], ZH))


# --- prompts ---


def test_a_plain_prompt_shows_blocks_and_terms() -> None:
    template = prompts.load_template("plain")
    made = prompts.Prompts(template, ZH, EN)
    context = made.context([Pair("甲", "A"), Pair("乙", "B")])
    assert [pair.target for pair in context[-2:]] == ["A", "B"] and len(context) == 3  # one example stands in
    assert made.context([Pair("甲", "A")] * 5) == [Pair("甲", "A")] * 5
    text = made.prompt(context[-2:], ["丙 {source}"], [("丙", "C {target}")])
    assert text.endswith("Chinese:\n丙 {source}\n\nEnglish:\n") and "丙 = C {target}" in text
    assert "Chinese:\n甲\n乙\n\nEnglish:\nA\nB\n\n" in text
    asked = made.lesson(context[-2:], [Pair("丙 {source}", "C")], lambda source: [("丙", "C {target}")])
    assert asked == [(text, "C\n\n")]


def test_what_is_learned_has_the_form_that_decoding_has() -> None:
    """Half of a chunk is a block, the rest follows line by line, as in a prompt."""
    made = prompts.Prompts(prompts.load_template("plain"), ZH, EN)
    chunk = [Pair("甲", "A"), Pair("乙", "B"), Pair("丙", "C"), Pair("丁", "D"), Pair("戊", "E")]
    lesson = made.lesson([], chunk)
    assert [said for _, said in lesson] == ["A\nB\nC\n\n", "D\n\n", "E\n\n"]
    shown = "".join(made.parts(chunk[:3], chunk[3:], ["己"])[:-1])
    assert "".join(text for turn in lesson for text in turn) == shown
    block = made.lesson([], chunk, whole=True)
    assert block == [(made.prompt([], [pair.source for pair in chunk]), "A\nB\nC\nD\nE\n\n")]


class FakeChat:
    """A tokenizer whose chat template is visible."""

    chat_template = "yes"

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool, **more: object) -> str:
        text = "".join(f"<{m['role']}>{m['content']}<end>" for m in messages)
        return text + ("<assistant>" if add_generation_prompt else "")


def test_a_chat_prompt_goes_through_the_models_template() -> None:
    made = prompts.Prompts(prompts.load_template("chat"), ZH, EN, FakeChat())
    context = [Pair("甲", "A")]
    text = made.prompt(context, ["乙"], [("乙", "B")])
    assert text.startswith("<user>You translate a book from Chinese into English.")
    assert "甲<end><assistant>A<end><user>Use these translations: 乙 = B.\n\n乙<end><assistant>" in text
    assert made.lesson(context, [Pair("乙", "B")], lambda source: [("乙", "B")]) == [(text, "B<end>")]
    lines = made.lesson(context, [Pair("乙", "B"), Pair("丙", "C")])
    assert lines == [(made.prompt(context, ["乙"]), "B<end>"), ("<user>丙<end><assistant>", "C<end>")]
    with pytest.raises(SettingsError, match="no chat template"):
        prompts.Prompts(prompts.load_template("chat"), ZH, EN, object())


class Forgetful(FakeChat):
    """A chat template that leaves out what was said before the last turn, as templates of thinking models do."""

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool, **more: object) -> str:
        last = messages[-2:] if not add_generation_prompt else messages[-1:]
        return super().apply_chat_template(last, add_generation_prompt)


def test_a_chat_template_that_changes_earlier_turns_gets_one_block() -> None:
    made = prompts.Prompts(prompts.load_template("chat"), ZH, EN, Forgetful())
    pairs = [Pair("乙", "B"), Pair("丙", "C")]
    assert made.lesson([], pairs) == [(made.prompt([], ["乙", "丙"]), "B\nC<end>")]


WHOLE = "form: plain\nstart: x\nterms: '{terms}'\nterm: '{target}'\nblock: '{source}'\nend: \"\\n\"\n"


def test_every_shipped_template_loads_and_bad_ones_are_refused(tmp_path: Path) -> None:
    assert prompts.template_names() == ["chat", "hunyuan", "hunyuan-zh", "plain", "translategemma"]
    for name in prompts.template_names():
        assert prompts.load_template(name).description
    codes = {code for example in prompts.load_template("plain").examples for code in example}
    codes |= set(prompts.load_template("hunyuan-zh").names)
    assert all(languages.find(code) for code in codes)
    for text, said in (
        ("form: plain\n", "no 'start'"),
        ("form: odd\nstart: x\nterms: '{terms}'\nterm: '{target}'\nblock: '{source}'\nend: \"\\n\"\n", "form"),
        ("form: plain\nstart: x\nterms: '{terms}'\nterm: '{target}'\nblock: x\nend: \"\\n\"\n", "{source}"),
        ("colour: red\n", "colour"),
        ("- 1\n", "mapping"),
        ("form: plain\nstart: x\nterms: '{terms}'\nterm: '{target}'\nblock: '{source}'\nend: \"\\n\"\nexamples: [{no: 1}]\n", "texts"),
        *((f"{WHOLE}{name}: null\n", f"{name} is None .*expected a value") for name in ("names", "examples")),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=said):
            prompts.load_template(str(written(tmp_path / "t.yaml", text)))
    with pytest.raises(SettingsError, match="chat, hunyuan"):
        prompts.load_template("fancy")


# --- aligned files ---

TMX = """<tmx version="1.4"><header/><body>
<tu><tuv xml:lang="zh-CN"><seg>你好 <bpt i="1">x</bpt></seg></tuv><tuv xml:lang="EN"><seg>Hello</seg></tuv></tu>
<tu><tuv xml:lang="zh"><seg>再见</seg></tuv><tuv xml:lang="fr"><seg>Adieu</seg></tuv></tu></body></tmx>"""
XLIFF = """<xliff xmlns="urn:oasis:names:tc:xliff:document:1.2" version="1.2"><file><body>
<trans-unit id="1"><source>你好</source><target>Hello</target></trans-unit>
<trans-unit id="2"><source>再见</source></trans-unit></body></file></xliff>"""
XLIFF2 = """<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" version="2.0"><file id="f"><unit id="1"><segment>
<source>你好</source><target>Hello</target></segment></unit></file></xliff>"""
CHUNKS = [
    {"inference": [{"zh": "#<#你好", "en": "Hello#>#"}]},
    {"inference": [{"zh": "再见", "en": "Bye"}, {"zh": "x"}]},
]


@pytest.mark.parametrize("name, text, expected", [
    ("a.tsv", "你好\tHello\tnote\n# no\n\n再见\t\n", [[("你好", "Hello")]]),
    ("a.tmx", TMX, [[("你好", "Hello")]]),
    ("a.xlf", XLIFF, [[("你好", "Hello")]]),
    ("a.xliff", XLIFF2, [[("你好", "Hello")]]),
    ("a.json", json.dumps(CHUNKS), [[("你好", "Hello")], [("再见", "Bye")]]),
    ("b.json", json.dumps([{"zh": "你好", "en": "Hello"}]), [[("你好", "Hello")]]),
])  # fmt: skip
def test_aligned_files(name: str, text: str, expected: list[list[tuple[str, str]]], tmp_path: Path) -> None:
    assert pairs.read(written(tmp_path / name, text), ZH, EN) == expected


@pytest.mark.parametrize("name, text, said", [
    ("a.tsv", "one column\n", "line 1 has 1 column"),
    ("a.tmx", "<tmx><tu>", "not well-formed"),
    ("a.tmx", "<html/>", "holds <html>"),
    ("a.json", "{", "not readable JSON"),
    ("a.json", "{}", "is not a list"),
    ("a.json", '[{"inference": [1]}]', "chunk 1"),
    ("a.json", '[{"de": "x", "en": "y"}]', "no pair of Chinese and English"),
    ("a.docx", "x", "suffix '.docx'"),
])  # fmt: skip
def test_bad_aligned_files_give_one_line(name: str, text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        pairs.read(written(tmp_path / name, text), ZH, EN)
    assert "\n" not in caught.value.line()


def test_only_edited_rows_of_a_review_are_corrections(tmp_path: Path) -> None:
    done = [
        UnitTranslated(1, "u0", "甲\t一", "A", "model"),
        UnitTranslated(2, "u1", "乙", "B", "model"),
        UnitTranslated(3, "u2", "丙", "C", "model"),
        UnitTranslated(4, "u3", "7", "7", "copied"),
        UnitTranslated(5, "u4", "丁", "", "marked"),
    ]
    text = pairs.review(done, {"u1"})
    assert len(text.splitlines()) == 5
    assert [line.split("\t")[3] for line in text.splitlines() if line.endswith("\t?")] == ["u1"]
    with pytest.raises(InputError, match="edited or confirmed"):
        pairs.read(written(tmp_path / "r.tsv", text), ZH, EN)
    edited = (
        text.replace("乙\tB\tmodel", "乙\tBee\tmodel").replace("丙\tC\tmodel", "丙\tC\tok").replace("丁\t\t", "丁\tD\t")
    )
    assert pairs.read(written(tmp_path / "r.tsv", edited), ZH, EN) == [[("乙", "Bee"), ("丙", "C"), ("丁", "D")]]


# --- records, names, scores ---


def test_what_says_little_of_its_source_is_listed_worst_first() -> None:
    units = [
        UnitTranslated(n + 1, f"u{n}", f"source {n}", f"text {n}", status)
        for n, status in enumerate(["model", "marked", "model", "copied", "corrected", "pieces", "model"])
    ]
    lessons = [
        Lesson(0, "self", 0, 4, 9, 1.0, 0.0, 0, gains=(-0.1, -0.4)),
        Lesson(1, "self", 4, 6, 9, 1.0, 0.0, 0, gains=(-2.0, 0.3)),
    ]
    found = report.doubtful([*units[:5], lessons[0], *units[5:], lessons[1]])
    assert [(unit.id, gain) for unit, gain in found] == [("u2", -0.4), ("u0", -0.1)]


def test_records_come_back_from_json() -> None:
    learned = Learned(losses=(1.0, 0.5), grad_norm=2.0)
    for record in (
        UnitTranslated(1, "u0", "甲", "A", "marked", ("cut: x",), 3, 40, 1.5),
        Lesson(0, "self", 0, 9, 100, 250.0, 2.0, 1000, learned, (-0.5, 0.5)),
        records.ChunkEvaluated(0, 0, 2, 10, 5.5, 1.0, 1000, ("a", ""), 1, learned),
    ):
        assert records.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_name_consistency() -> None:
    steady = [
        Pair(f"苏绵{verb}了", f"Su Mian {what}.")
        for verb, what in zip("走跑来", ("went here", "ran here", "came here"), strict=True)
    ]
    drifting = [
        Pair(f"何勤{verb}了", f"{who} {what} here.")
        for verb, who, what in zip("坐站睡", ("He Qin", "He Qin", "Ho Chin"), ("sat", "stood", "slept"), strict=True)
    ]
    found = {n.source: n for n in consistency.follow(["苏绵", "何勤", "无此"], [*steady, *drifting], EN)}
    assert found["苏绵"].target == "Su Mian" and found["苏绵"].share == 1.0
    assert found["何勤"].steady == 2 and found["何勤"].units == 3 and "无此" not in found
    result = consistency.steadiness(list(found.values()))
    assert result == {
        "names": 2,
        "distinct": 2,
        "always": 0.5,
        "mean": pytest.approx(5 / 6),
        "share": pytest.approx(5 / 6),
    }
    assert consistency.steadiness([])["always"] is None


def test_the_names_of_references_are_names() -> None:
    """A word that goes with a name's unit again and again, and is none, is not counted."""
    people = ("韩梅梅", "Han Meimei"), ("李雷", "Li Lei"), ("吴峰", "Wu Feng")
    said = [
        ("把门关上了", "closed the door"),
        ("喝了中药", "drank Chinese herbs"),
        ("走了", "went away"),
        ("笑了", "laughed"),
    ]
    said += [("回来喝中药", "came back to her Chinese herbs"), ("看着他", "looked at him"), ("坐下了", "sat down")]
    pairs = [Pair(f"{name}{what}。", f"{called} {done}.") for what, done in said for name, called in people]
    found = {name.source: name.target for name in scores.reference_names(pairs, ZH, EN)}
    assert found == dict(people)
    drifting = [
        Pair(pair.source, pair.target.replace("Li Lei", "Lily")) if n % 2 else pair for n, pair in enumerate(pairs)
    ]
    result = scores.name_consistency(scores.reference_names(pairs, ZH, EN), drifting, EN)
    assert result["names"] == 3 and result["share"] == pytest.approx((7 + 7 + 4) / 21)


def test_a_name_inside_another_or_inside_a_word_does_not_occur() -> None:
    called = {"Ann": "Anne", "Annie": "Anni"}
    pairs = [Pair(f"{name} came. Then the Annotation.", f"{called[name]} kam.") for name in ("Ann", "Annie") * 2]
    found = {name.source: (name.target, name.units) for name in consistency.follow(["Ann", "Annie"], pairs, DE)}
    assert found == {"Ann": ("Anne", 2), "Annie": ("Anni", 2)}
    lines = [
        ("韩梅走了", "Han Mei went."),
        ("韩梅梅走了", "Han Meimei went."),
        ("韩梅和韩梅梅", "Han Mei, Han Meimei."),
    ]
    chinese = [Pair(*line) for line in lines]
    assert [name.units for name in consistency.follow(["韩梅", "韩梅梅"], chinese, EN)] == [2, 2]


def test_a_name_in_two_spellings_is_found() -> None:
    pairs = [
        Pair(f"约书亚{verb}了", f"Then Joshua {what}.")
        for verb, what in zip("走跑来", ("went", "ran", "came"), strict=True)
    ]
    pairs += [
        Pair("约书亚睡了", "Then Joshu slept."),
        Pair("贝儿和约书亚", "Belle and Joshua's cat"),
        Pair("约书亚", "He too."),
    ]
    pairs += [Pair(f"苏绵{verb}了", f"{what}, Su Mian.") for verb, what in zip("走跑", ("Go", "Run"), strict=True)]
    pairs += [Pair("苏绵睡了", "Here Su Mina slept.")]
    found = [*consistency.follow(["约书亚"], pairs, EN), consistency.Name("苏绵", "Su Mian", 3, 2, 1.0)]
    assert found[0].target == "Joshua"
    usual = [name.target for name in found]
    twice = [
        (name.source, other, at)
        for name in found
        for at, pair in enumerate(pairs)
        if name.source in pair.source and (other := spelling.misspelt(pair.target, name.target, EN, usual))
    ]
    assert twice == [("约书亚", "Joshu", 3), ("苏绵", "Mina", 8)]
    assert spelling.misspelt("Mario went out.", "Maria", EN, ["Maria", "Mario"]) == ""  # two people
    assert spelling.misspelt("Queeque\u00adg went out.", "Queequeg", EN) == ""


@pytest.mark.parametrize("code, usual, other, same", [
    ("en", "Joshua", "Joshu", True), ("en", "Mian", "Mina", True), ("en", "Catherine", "Katherine", False), ("en", "Catherine", "Catharina", True),
    ("en", "Starbuck", "Starbucks", False), ("de", "Belle", "Belles", False), ("en", "Li", "Lu", False), ("en", "José", "Jose", False),
    ("ru", "Анна", "Анну", False), ("ru", "Измаил", "Исмаил", True), ("en", "Anna", "Otto", False),
])  # fmt: skip
def test_what_is_nearly_the_same_name(code: str, usual: str, other: str, same: bool) -> None:
    assert spelling.near(usual, other, languages.find(code)) is same
    assert spelling.near(other, usual, languages.find(code)) is same


@pytest.mark.parametrize("names, text, known", [
    (["Wenwen", "Su Mian"], "Wen Wen's here, Wen-Wen and Su Mian.", "Wenwen's here, Wenwen and Su Mian."),
    (["Wei Zhen Hui"], "⟦1⟧Wei Zhenhui⟦/1⟧ left Wei Zhen-hui.", "⟦1⟧Wei Zhen Hui⟦/1⟧ left Wei Zhen Hui."),
    (["Wen Wen"], "Wenwen came.", "Wen Wen came."),
    (["Wenwen"], "WEN WEN! she cried.", None),
    (["Wen Wen"], "Wen\u00a0Wen came.", None),
    (["Wenwen"], "Wenwen and Wen Wen.", None),  # two in one line: who knows
    (["Wenwen"], "Wen Wenn, Owen Wen and Wen Wen-li.", None),
    (["Zhen Hui", "Wei Zhenhui"], "Zhenhui came.", None),  # so another name has it
    (["Alison"], "Al is on the phone.", None),
    (["Canada", "Ada"], "Can Ada come?", None),
    (["Shell", "Hell"], "She'll say he'll go. She’ll.", None),
    (["Ann"], "An N", None),
    (["great wall"], "The Greatwall.", None),  # no name
    ([], "Wen Wen", None),
])  # fmt: skip
def test_a_name_has_the_same_gaps_everywhere(names: list[str], text: str, known: str | None) -> None:
    assert spelling.as_known(text, names) == (text if known is None else known)


def test_what_every_sentence_says_is_no_names_translation() -> None:
    said = (
        "She was ill.",
        "Then Su Mian was gone.",
        "The door was shut, she said.",
        "Suddenly Mia was there, and she ran.",
    )
    pairs = [Pair(f"苏绵{verb}了", text) for verb, text in zip("走跑来去", said, strict=True)]
    found = consistency.follow(["苏绵"], pairs, EN)[0]
    assert (found.target, found.steady) == ("Then Su Mian", 1)  # the longest; neither `was`, which all say, nor `She`
    assert (
        consistency.follow(["Mia"], [Pair("Mia", "米亚来了"), Pair("Mia!", "米亚！")], languages.find("zh"))[0].target
        == "米亚"
    )


def test_overlap_is_sacrebleus() -> None:
    import sacrebleu

    hypotheses, references = ["The cat sat on the mat.", "A dog."], ["The cat sat on a mat.", "A small dog."]
    found = scores.overlap(hypotheses, references, EN)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references]).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score)
    assert "tok:13a" in found["bleu_signature"] and found["units"] == 2
    assert "tok:zh" in scores.overlap(["你好"], ["你好"], ZH)["bleu_signature"]


# --- files of other tools ---


def test_a_table_saved_by_a_spreadsheet_is_read_as_it_is(tmp_path: Path) -> None:
    plain = Pair('He said "no" and left.', 'Er sagte "nein" und ging.')
    quoted = '"He said ""no"" and left."\t"Er sagte ""nein"" und ging."\r\nGood day\tGuten Tag\r\n'
    assert pairs.read(written(tmp_path / "a.tsv", quoted), EN, DE) == [[plain, Pair("Good day", "Guten Tag")]]
    ours = '"No," he said.\t"Nein", sagte er.\n"Yes"\t"Ja"\n'  # quotes that are characters
    assert pairs.read(written(tmp_path / "b.tsv", ours), EN, DE) == [
        [Pair('"No," he said.', '"Nein", sagte er.'), Pair('"Yes"', '"Ja"')]
    ]
    terms = glossary.read(written(tmp_path / "g.tsv", 'the ""Pequod"""\tx\n'.replace('the ""', '"the ""'))).terms
    assert dict(terms) == {'the "Pequod"': "x"}


def test_rows_that_a_spreadsheet_only_quoted_are_no_corrections(tmp_path: Path) -> None:
    text = (
        pairs.REVIEW
        + "\n"
        + '"He said ""no""."\t"Er sagte ""nein""."\tmodel\tu000000\t{}\t\n'.format(reviewing.check('Er sagte "nein".'))
        + "Good day\tGuten Morgen\tmodel\tu000001\t6b973d26\t\n"
    )
    assert pairs.read(written(tmp_path / "a.tsv", text), EN, DE) == [[Pair("Good day", "Guten Morgen")]]


_TU = '<tmx version="1.4"><header/><body><tu>{}</tu></body></tmx>'


def test_codes_of_other_tools_are_no_text(tmp_path: Path) -> None:
    english = 'Open the <bpt i="1">&lt;b&gt;</bpt>door<ept i="1">&lt;/b&gt;</ept> <hi>now</hi>.<ph x="1">&lt;br/&gt;<sub>x</sub></ph>'
    german = '<it pos="begin">&lt;i&gt;</it>Tür auf.<ut>{1}</ut>'
    text = _TU.format(
        f'<tuv xml:lang="en-US"><seg>{english}</seg></tuv><tuv xml:lang="de-DE"><seg>{german}</seg></tuv>'
    )
    assert pairs.read(written(tmp_path / "a.tmx", text), EN, DE) == [[Pair("Open the door now.", "Tür auf.")]]
    unit = '<trans-unit id="1"><source>Open <g id="1">it</g><x id="2"/> <ph id="3">&lt;br/&gt;</ph>now</source><target>Auf</target></trans-unit>'
    text = f'<xliff version="1.2"><file source-language="en" target-language="de"><body>{unit}</body></file></xliff>'
    assert pairs.read(written(tmp_path / "a.xlf", text), EN, DE) == [[Pair("Open it now", "Auf")]]


def test_texts_in_another_variant_are_said(tmp_path: Path) -> None:
    path = tmp_path / "memory.tmx"
    units = (
        '<tu><tuv xml:lang="en"><seg>Software</seg></tuv><tuv xml:lang="zh-TW"><seg>軟體</seg></tuv>'
        '<tuv xml:lang="zh-CN"><seg>软件</seg></tuv></tu>'
        '<tu><tuv xml:lang="en"><seg>Print</seg></tuv><tuv xml:lang="zh-TW"><seg>列印</seg></tuv></tu>'
        '<tu><tuv xml:lang="en"><seg>Alone</seg></tuv></tu>'
    )
    path.write_text(f'<tmx version="1.4"><body>{units}</body></tmx>', "utf-8")
    english, chinese = languages.find("en"), languages.find("zh-CN")
    assert [p.target for chunk in pairs.read(path, english, chinese) for p in chunk] == ["软件", "列印"]
    (note,) = pairs.notes(path, english, chinese)
    assert "1 text(s) are in zh-TW" in note and "zh-CN" in note
    assert pairs.notes(path, english, languages.find("zh-TW")) == []
    assert pairs.notes(tmp_path / "none.tsv", english, chinese) == []


@pytest.mark.parametrize(
    "asked, text", [("zh-CN", "软件"), ("zh", "软件"), ("zh-Hans", "软件"), ("zh-TW", "軟體"), ("zh-Hant-HK", "軟體")]
)
def test_the_asked_variant_is_taken(asked: str, text: str, tmp_path: Path) -> None:
    variants = ['<tuv xml:lang="zh-TW"><seg>軟體</seg></tuv>', '<tuv xml:lang="zh-CN"><seg>软件</seg></tuv>']
    for order in (variants, variants[::-1]):
        tmx = written(tmp_path / "a.tmx", _TU.format('<tuv xml:lang="en"><seg>software</seg></tuv>' + "".join(order)))
        assert pairs.read(tmx, EN, languages.find(asked)) == [[Pair("software", text)]]
    alone = written(tmp_path / "b.tmx", _TU.format('<tuv xml:lang="en"><seg>software</seg></tuv>' + variants[0]))
    assert pairs.read(alone, EN, languages.find("zh-CN")) == [[Pair("software", "軟體")]]  # better than none


@pytest.mark.parametrize(
    "head",
    [
        'version="1.2"><file source-language="en-GB" target-language="ru">',
        'version="2.0" srcLang="en" trgLang="ru"><file>',
    ],
)
def test_a_file_of_other_languages_is_refused(head: str, tmp_path: Path) -> None:
    unit = "<{0}><source>The door.</source><target>Дверь.</target></{0}>".format(
        "segment" if "2.0" in head else "trans-unit"
    )
    path = written(tmp_path / "a.xlf", f"<xliff {head}{unit}</file></xliff>")
    with pytest.raises(InputError, match=r"from 'en(-GB)?' to 'ru'; expected from 'en' to 'de'"):
        pairs.read(path, EN, DE)
    assert pairs.read(path, EN, languages.find("ru")) == [[Pair("The door.", "Дверь.")]]
    new = written(tmp_path / "b.xlf", path.read_text("utf-8").replace("<target>", '<target state="new">'))
    with pytest.raises(InputError, match="has no pair"):
        pairs.read(new, EN, languages.find("ru"))


def test_no_room_for_the_table_of_languages_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unpacked into a temporary file, which a full disk or a limit on file sizes may not hold."""
    from py3langid import langid

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(langid.LanguageIdentifier, "from_model_file", refuse)
    languages._identifier.cache_clear()
    with pytest.raises(StorageError, match="cannot be unpacked: File too large"):
        languages._identifier()
    monkeypatch.undo()
    languages._identifier.cache_clear()
    assert languages._identifier() is not None
