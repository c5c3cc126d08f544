"""Guards: each finds what it is for, and lets good translations pass."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.documents import placeholders
from edge.errors import SettingsError
from edge.translation import guards, languages, quotes
from edge.translation.guards import Case, Limits

ZH, EN, DE, JA, AR, RU = (languages.find(code) for code in ("zh", "en", "de", "ja", "ar", "ru"))
DA, FI, FR, SV = (languages.find(code) for code in ("da", "fi", "fr", "sv"))


def kinds(
    source: str, target: str, pair: tuple[languages.Language, languages.Language] = (EN, DE), **more: object
) -> set[str]:
    return {p.partition(":")[0] for p in guards.problems(Case(source, target, *pair, **more))}  # type: ignore[arg-type]


GOOD = [
    (EN, DE, "It was a dark and stormy night in 1830.", "Es war eine dunkle und stürmische Nacht im Jahr 1830."),
    (DE, EN, "„Nein, nein, nein!“, rief er.", "“No, no, no!” he cried."),
    (
        ZH,
        EN,
        "屏幕上男人一身鲜绿军装，冷面严肃，气势迫人。",
        "The man on the screen wore a bright green uniform, cold and stern.",
    ),
    (EN, ZH, "She laughed: hahahahahahahahahahahahahaha!", "她笑道：“哈哈哈哈哈哈哈哈哈哈哈哈哈哈！”"),
    (EN, JA, "The old man closed the door and sat down.", "老人はドアを閉めて腰を下ろした。"),
    (EN, AR, "Nobody had seen him since 1894.", "لم يره أحد منذ عام ١٨٩٤."),
    (EN, RU, "Call me ⟦1⟧Ishmael⟦/1⟧.⟦2/⟧", "Зовите меня ⟦1⟧Измаил⟦/1⟧.⟦2/⟧"),
    (EN, DE, "Mr. Darcy", "Mr. Darcy"),
    (EN, DE, "1,234,567 people", "1.234.567 Menschen"),
    (EN, DE, "The word λόγος has many meanings.", "Das Wort λόγος hat viele Bedeutungen."),
    (EN, EN, "The same sentence stays as it is.", "The same sentence stays as it is."),
]


@pytest.mark.parametrize("source_language, target_language, source, target", GOOD)
def test_good_translations_pass(
    source_language: languages.Language, target_language: languages.Language, source: str, target: str
) -> None:
    assert guards.problems(Case(source, target, source_language, target_language)) == []


@pytest.mark.parametrize("kind, source, target", [
    ("empty", "Some words.", "  "),
    ("empty", "Some ⟦1/⟧ words.", "⟦1/⟧"),
    ("noise", "Some words.", "Einige W�rter."),
    ("noise", "Some words.", "Einige\x07 Wörter."),
    ("loop", "He walked on and on through the wood.", "Er ging " + "weiter und " * 12),
    ("loop", "He walked on and on through the wood.", "Er ging. " + "Das ist ein Satz. Noch einer kommt hier. " * 3),
    ("loop", "He walked on and on through the wood.", "Er ging durch den Wald" + "a" * 60),
    ("copy", "He walked on through the wood.", "He walked on, through the wood"),
    ("copy", "He walked on through the wood.", "Deutsch: He walked on through the wood."),
    ("language", "He walked on through the wood.", "He had walked on and on, through the old wood"),
    ("language", "He walked on.", "他继续走着。"),
    ("language", "Ein ganz einfacher Satz, nichts weiter.", "Él caminaba por el bosque, sin pensar en nada, cuando de repente vio una casa muy antigua y muy grande."),
    ("length", "Yes.", "Ja, aber das ist eine lange Geschichte, die ich dir ein anderes Mal erzählen werde, mein Freund."),
    ("length", "He told her the whole long story from its beginning to its very end, and she listened.", "Er sprach."),
    ("placeholders", "A ⟦1⟧bold⟦/1⟧ word.", "Ein fettes Wort."),
    ("placeholders", "A ⟦1⟧bold⟦/1⟧ word.", "Ein ⟦/1⟧fettes⟦1⟧ Wort."),
    ("numbers", "He was born in 1830.", "Er wurde 1803 geboren."),
    ("numbers", "共有１２０人。", "There were many."),
])  # fmt: skip
def test_each_guard_finds_its_own(kind: str, source: str, target: str) -> None:
    pair = (ZH, EN) if "共" in source else (EN, DE)
    assert kind in kinds(source, target, pair)
    assert kind not in {
        p.partition(":")[0] for p in guards.problems(Case(source, target, *pair), Limits(off=frozenset({kind})))
    }


def test_untranslated_script_is_the_wrong_language() -> None:
    assert "language" in kinds("她恨了他很多年。", "She hated 他 for 很多年 now.", (ZH, EN))
    assert "language" in kinds("She hated him for years.", "She hated him for years, yes she did", (EN, ZH))


def test_the_translation_of_another_line_is_refused() -> None:
    before = [("He went out.", "Er ging in den dunklen Wald hinaus."), ("She sat.", "Ja.")]
    assert kinds("What did they see there?", "Er ging in den dunklen Wald hinaus.", earlier=before) == {"again"}
    assert kinds("He went out!", "Er ging in den dunklen Wald hinaus.", earlier=before) == set()
    assert kinds("Yes.", "Ja.", earlier=before) == set()


def test_a_sentence_of_another_line_is_noticed() -> None:
    before = [
        (
            "大花一晚上没见到苏绵，看她进来也不吃草了。",
            "Su Mian was not seen for a night. She did not eat grass. She ran.",
        )
    ]
    sound = "Today Da Hua held the grass in her paws. She ran."
    assert kinds("今天大花却用两只爪子捧着那几根草。", sound, (ZH, EN), earlier=before) == set()
    echoed = f"Su Mian was not seen for a night. She did not eat grass. {sound}"
    assert kinds("今天大花却用两只爪子捧着那几根草。", echoed, (ZH, EN), earlier=before) == {"echo"}
    short = f"Su Mian was not seen for a night. {sound}"
    assert kinds("今天大花却用两只爪子捧着那几根草。", short, (ZH, EN), earlier=before) == set()
    again = "She ran. Su Mian was not seen for a night. She did not eat grass."  # the source says it again
    assert kinds("她跑了。大花一晚上没见到苏绵，也不吃草了。", again, (ZH, EN), earlier=before) == set()


def test_cut_and_terms() -> None:
    assert kinds("A word.", "Ein Wort.", cut=True) == {"cut"}
    assert kinds("A whale.", "Ein Wal.", terms=[("whale", "Walfisch")]) == {"terms"}
    assert kinds("A whale.", "Ein WALFISCH.", terms=[("whale", "Walfisch")]) == set()


@pytest.mark.parametrize("wanted, text", [
    ("O'Brien", "O’Brien kam."), ("O’Brien", "O'Brien kam."), ("10 kg", "Zucker, 10\u00a0kg."), ("Schiffskoch", "Der Schiffs\u00adkoch."),
    ("Zoë", "Zoe\u0308 kam."), ("Weißer Wal", "Weißer⟦1/⟧Wal."),
])  # fmt: skip
def test_a_term_is_there_however_it_is_typed(wanted: str, text: str) -> None:
    assert "terms" not in kinds("A term.", text, terms=[("term", wanted)])


@pytest.mark.parametrize(
    "text, none", [("* * *", True), ("1894", True), ("⟦1/⟧ — 7 …", True), ("a", False), ("。", True), ("中", False)]
)
def test_what_needs_no_translation(text: str, none: bool) -> None:
    assert guards.needs_no_translation(text) is none


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_judged(source: str, target: str) -> None:
    found = guards.problems(Case(source, target, ZH, EN))
    assert all(":" in line and "\n" not in line for line in found)
    if placeholders.check(source, target):
        assert any(line.startswith("placeholders") for line in found)


@given(st.text(st.characters(categories=["L"]), min_size=8, max_size=30), st.integers(6, 9))
def test_a_loop_is_found_in_any_script(piece: str, times: int) -> None:
    assert guards.loop(piece * times)


def test_languages() -> None:
    assert languages.find("pt-BR").tag == "pt-BR" and languages.find("pt-BR").name == "Portuguese"
    assert languages.find("ZH_hant").name == "Traditional Chinese"
    assert languages.find("sr-Latn").scripts == ("Latin",)
    assert not languages.find("ja").spaced and languages.find("ko").spaced
    with pytest.raises(SettingsError, match="no language 'xx'"):
        languages.find("xx")
    with pytest.raises(SettingsError, match="did you mean 'de'"):
        languages.find("German")
    assert languages.likelihood("Er ging nach Hause und schlief ein.", ("en", "de"))["de"] > 0.9


@pytest.mark.parametrize("text", [
    "Gabriel Hernandez Whitfield", "https://www.example.org/catalogue/2024", "ISBN 978-0-306-40615-7",
    "info@harbour-museum.example", "Johann Sebastian Bach (1685–1750)", "Hahahahahaha! Oh, oh, oh!",
    "Ludwig van Beethoven", "www.example.com/the/way-of-the-words-and-more", "⟦1⟧Gabriel⟦/1⟧ García Márquez",
])  # fmt: skip
def test_a_right_copy_is_right(text: str) -> None:
    assert kinds(text, text) == set()


@pytest.mark.parametrize("text", [
    "The boat came home.", "He Walked On Through The Wood", "Chapter Twenty Three", "See https://example.org/a for the whole list.",
    "CLOSED UNTIL SUNDAY MORNING",
])  # fmt: skip
def test_a_wrong_copy_is_still_found(text: str) -> None:
    assert "copy" in kinds(text, text)


@pytest.mark.parametrize("pair, source, target", [
    ((ZH, EN), "他12月25日来。", "He came on December 25."), ((ZH, EN), "２０２０年11月3日", "3 November 2020"),
    ((EN, ZH), "There are 32 rooms here.", "这里有三十二个房间。"), ((EN, JA), "30,000 people", "三万人"), ((EN, ZH), "in 1984", "一九八四年"),
    ((EN, ZH), "35,000 people", "3.5万人"), ((DE, EN), "am 24.12.2020", "on December 24, 2020"), ((EN, ZH), "110 people", "一百一十人"),
])  # fmt: skip
def test_numbers_are_the_same_in_other_numerals(
    pair: tuple[languages.Language, languages.Language], source: str, target: str
) -> None:
    assert "numbers" not in kinds(source, target, pair)


@pytest.mark.parametrize("pair, source, target", [
    ((ZH, EN), "他12月25日来。", "He came on December 24."), ((EN, ZH), "There are 32 rooms here.", "这里有三百二十个房间。"),
    ((EN, DE), "Page 12 of 20", "Seite 12 von 30"), ((DE, EN), "am 24.12.2020", "on December 25, 2020"),
])  # fmt: skip
def test_other_numbers_are_found(pair: tuple[languages.Language, languages.Language], source: str, target: str) -> None:
    assert "numbers" in kinds(source, target, pair)


@pytest.mark.parametrize("pair, source, target, kind", [
    ((ZH, EN), "白爵士拿着手帕。", "White-capped爵士 held a handkerchief, and everybody in the room looked at it.", "script"),
    ((ZH, EN), "她走了。", "She left the old house at the river early today, 走了, and did not look back.", "script"),
    ((RU, EN), "Он закрыл дверь.", "He closed the дверь of the old house at the river and went away.", "script"),
    ((JA, ZH), "ドアを閉めた。", "他把ドア关上了，然后坐在窗边的椅子上看书。", "script"),
    ((EN, ZH), "She held a handkerchief.", "她手里拿着一条handkerchief，大家都看着她，谁也没有说话。", "words"),
    ((ZH, EN), "“你好。”他说。", "“Hello,” he said. “", "quotes"),
    ((EN, DE), "“Good day,” said the old man.", "„Guten Tag, sagte der alte Mann.", "quotes"),
    ((EN, DE), "The old man closed the door of the house and sat down.", "Der alte Mann schloss die Tür des Hauses und", "end"),
    ((ZH, EN), "他关上门，坐了下来。", "He closed the door,", "end"),
    ((ZH, EN), "他关上门，坐了下来。", "Sure! Here is the translation: He closed the door and sat down.", "talk"),
    ((EN, ZH), "He closed the door and sat down.", "翻译：他关上门，坐了下来。", "talk"),
])  # fmt: skip
def test_what_a_model_leaves_behind_is_found(
    pair: tuple[languages.Language, languages.Language], source: str, target: str, kind: str
) -> None:
    assert kind in kinds(source, target, pair)


@pytest.mark.parametrize("pair, source, target", [
    ((ZH, EN), "他写了一个“人”字。", "He wrote the character 人."),
    ((EN, ZH), "He bought an iPhone from apple.com yesterday.", "他昨天在apple.com上给自己买了一部iPhone。"),
    ((EN, DE), "The word λόγος has many meanings.", "Das Wort λόγος hat viele Bedeutungen."),
    ((EN, DE), "“Good day,” he said, “and good night.”", "»Guten Tag«, sagte er, »und gute Nacht.«"),
    ((EN, DE), "“Good day,” he said.", "„Guten Tag“, sagte er."),
    ((EN, RU), "“Good day,” he said.", "— Добрый день, — сказал он."),
    ((EN, DE), "He said: “Go on, I pray you,", "Er sagte: „Weiter, ich bitte,"),
    ((EN, ZH), "Good day.", "你好"),
    ((EN, DE), "The translation of the book was good.", "Die Übersetzung des Buches war gut."),
])  # fmt: skip
def test_what_may_stay_is_let_be(pair: tuple[languages.Language, languages.Language], source: str, target: str) -> None:
    assert kinds(source, target, pair) == set()


@pytest.mark.parametrize("source, target", [
    ("\"War and Peace\" is long", "《战争与和平》很长"), ("“Home” is a story.", "〈고향〉은 단편이다."),
    ("『星の王子さま』", "The Little Prince"), ("彼が読むのは『星の王子さま』", "He reads The Little Prince"),
    ("The “IDF” said so.", "צה\"ל אמר כך."), ("The “IDF” said so.", "צה״ל אמר כך."), ("צה\"ל אמר כך.", "The IDF said so."),
    ("“Hello,” said the IDF.", "״שלום,״ אמר צה״ל."), ("It is in “Haaretz”.", "זה כתוב ב\"הארץ\"."),
    ("“Yes,” he said.", "«Да», — он смотрел на экран 24\"."), ("“It is 5' 10\" long,” he said.", "„Es ist 5' 10\" lang“, sagte er."),
    ("5' 10\"", "1,78 m"), ("A 24\" screen, “new”.", "Ein Bildschirm (24\"), „neu“."), ("\"Room 101\" was shut.", "\"Zimmer 101\" war zu."),
    ("\"It is a 24\" screen,\" he said.", "„Es ist ein 24-Zoll-Bildschirm“, sagte er."),
    ("“Room 101” was shut.", "”Rum 101” var stängt."), ("”Ja”, sa han.", "“Yes,” he said."), ("»Ja», hän sanoi.", "“Yes,” he said."),
    ("»Ja«, sagde han.", "“Yes,” he said."), ("“Yes,” he said.", "»Ja«, sagde han."),
])  # fmt: skip
def test_what_looks_like_a_quotation_mark_is_known(source: str, target: str) -> None:
    assert quotes.wrong(source, target) == ""


@pytest.mark.parametrize("source, target, said", [
    ("”Ja”, sa han.", "Yes, he said.", "there are none"), ("»Ja«, sagde han.", "Yes, he said.", "there are none"),
    ("״שלום,״ אמר דוד.", "Hello, said David.", "there are none"), ("\"It is 24\"", "Es ist 24", "there are none"),
    ("“Hello,” said the IDF.", "\"שלום, אמר צה\"ל.", "stands alone"), ("“Room 101” was shut.", "”Rum 101 var stängt.", "stands alone"),
    ("“Yes,” he said.", "»Ja, sagde han.", "stands alone"), ("“Yes,” he said.", "»Ei, hän sanoi.", "stands alone"),
])  # fmt: skip
def test_a_lost_mark_is_found_beside_what_looks_like_one(source: str, target: str, said: str) -> None:
    assert said in quotes.wrong(source, target)


def test_words_of_the_glossary_may_be_in_the_sources_script() -> None:
    text = "White-capped爵士 held a handkerchief, and everybody in the room looked at it."
    assert kinds("白爵士拿着手帕。", text, (ZH, EN), terms=[("爵士", "爵士")]) == set()


def test_a_name_in_another_spelling_is_found() -> None:
    names = [("约书亚", "Joshua"), ("苏绵", "Su Mian")]
    assert kinds("约书亚来了。", "Joshu came.", (ZH, EN), names=names[:1]) == {"names"}
    assert kinds("苏绵来了。", "Su Mina came.", (ZH, EN), names=names[1:]) == {"names"}
    assert kinds("约书亚来了。", "Joshua's here.", (ZH, EN), names=names[:1]) == set()
    assert kinds("约书亚来了。", "He came.", (ZH, EN), names=names[:1]) == set()
    two = [*names, ("魏敏", "Wei Min")]
    assert kinds("苏绵看见魏敏。", "Su Mian saw her.", (ZH, EN), names=two) == set()  # Mian is not Min here


def test_an_address_alone_needs_no_translation() -> None:
    assert guards.needs_no_translation("https://www.example.org/catalogue/2024")
    assert not guards.needs_no_translation("See https://www.example.org")


@pytest.mark.parametrize("source, before, target, text", [
    ("他走了。", (), '"He left."', "He left."),
    ("他走了。", (), "“He left, and went home.”", "He left, and went home."),
    ("He left.", (), "„Er ging.“", "Er ging."),
    ("He left.", (), "»Er ging.«", "Er ging."),
    ("He left.", (), "”Han gick.”", "Han gick."),
    ("He left.", (), "»Hän lähti.»", "Hän lähti."),
    ("He left.", (), "”Han gick.“", None),
    ("He left.", (), '"הוא עזב את צה"ל."', 'הוא עזב את צה"ל.'),
    ("The new screen measures 27\"", (), '"Er misst 27" in der Breite."', 'Er misst 27" in der Breite.'),
    ("He left.", ("”Jag går,",), "”Han gick.”", None),  # a speech of several lines
    ("He left.", ("”Jag går”, sa hon.",), "”Han gick.”", "Han gick."),
    ("He left.", ("»Ich gehe,",), '"Er ging."', None),
    ("He left.", ("»Ich gehe,", "und bleibe.«"), '"Er ging."', "Er ging."),
    ("He left.", ("»Minä lähden,", "ja jään.»"), '"Er ging."', "Er ging."),
    ("He left.", ("„Ich gehe,", "und bleibe.“"), '"Er ging."', "Er ging."),
    ("He left.", ("« Je pars,", "et je reste. »"), '"Er ging."', "Er ging."),
    ("He left.", ('"I left.', 'And stayed."'), '"Er ging."', "Er ging."),
    ("他走了。", ("他叹了口气，慢慢说道：“",), '"He left."', None),
    ("他走了。", ("“你好，”他说，“再见。",), '"He left."', None),
    ("他走了。", ("“我走了。", "天黑了！ ”他说。"), '"He left."', "He left."),
    ("He left.", (), "« Il est parti. »", "Il est parti."),
    ("He left.", (), "「彼は去った。」", "彼は去った。"),
    ("他走了。", ("“我走了。”他说。",), '"He left."', "He left."),
    ("他走了。", ("“我走了。",), '"He left."', None),  # a speech of several lines
    ("他走了。", ("“我走了。", "天黑了。"), '"He left."', None),
    ("他走了。", ("“我走了。", "天黑了。”"), '"He left."', "He left."),
    ("他走了。", ('"I left.',), '"He left."', None),
    ("“他走了。", (), '"He left."', None),
    ("- Il est parti.", (), '"He left."', None),
    ("'He left'", (), '"Er ging"', None),
    ("《红楼梦》", (), '"Dream of the Red Chamber"', None),
    ("【试试】", (), '"Try it"', None),
    ("*Moby Dick*", (), '"Moby Dick"', None),
    ("他说不，就走了。", (), '"No," he said, and "left."', None),
    ("……", (), '"..."', None),
    ("他走了。", (), '"He left.', None),
    ("他走了。", (), "“He left.»", None),
])  # fmt: skip
def test_quotation_marks_around_what_is_no_speech_go(
    source: str, before: tuple[str, ...], target: str, text: str | None
) -> None:
    lines = [(line, "") for line in before]
    assert quotes.unwrapped(source, target, lines) == (target if text is None else text)


@pytest.mark.parametrize("language, source, before, target, text", [
    (EN, "“苏绵，快回来！”", (), "Su Mian, come back!", "“Su Mian, come back!”"),
    (EN, "“苏绵，快回来！”", (("“不。”", '"No."'), ("他走了。", "He left.")), "Su Mian, come back!", '"Su Mian, come back!"'),
    (EN, "“苏绵，快回来！”", (("“不。”", "‘No.’"),), "Su Mian, come back!", None),  # other marks are used there
    (RU, "“Come back!”", (("“No.”", "— Нет."),), "Вернись!", None),
    (EN, "“你说得倒轻巧，", (), "You say that easily,", "“You say that easily,"),  # a speech of several lines
    (EN, "我敢打赌！”", (("“手都拉上了。", "“They hold hands."),), "I dare bet!", "I dare bet!”"),
    (EN, "我敢打赌！”", (), "I dare bet!", None),  # no speech is open
    (DE, 'The new screen measures 27"', (), "Der neue Bildschirm misst 27 Zoll", None),
    (EN, "他叹了口气，慢慢说道：“", (), "He sighed and said slowly:", None),
    (EN, "「好。」", (), "Good.", "“Good.”"),
    (DE, '"Come back!"', (), "Komm zurück!", "„Komm zurück!“"),
    (DE, "“Come back!”", (("“No.”", "»Nein.«"),), "Komm zurück!", "»Komm zurück!«"),
    (DA, "“Come back!”", (), "Kom tilbage!", "»Kom tilbage!«"),
    (SV, "“Come back!”", (), "Kom tillbaka!", "”Kom tillbaka!”"),
    (EN, "»Ja.«", (), "Yes.", "“Yes.”"),
    (EN, "”Ja.”", (), "Yes.", "“Yes.”"),
    (EN, "»Ja.»", (("”Nej.”", "‘No.’"), ("»Nej.»", '"No."')), "Yes.", '"Yes."'),
    (EN, "»Ich gehe,", (), "I go,", "“I go,"),  # a speech of several lines
    (EN, "und bleibe.«", (("»Ich gehe,", "“I go,"),), "and stay.", "and stay.”"),
    (EN, "”Jag går,", (), "I go,", "“I go,"),
    (EN, "och stannar.”", (("”Jag går,", "“I go,"),), "and stay.", "and stay.”"),
    (EN, "und bleibe.“", (("„Ich gehe,", "“I go,"),), "and stay.", "and stay.”"),
    (EN, "und bleibe.«", (), "and stay.", None),  # no speech is open
    (EN, "”他说。", (("“你好。", "“Hello."),), "he said.", None),  # the end of what is open, or one more line of it
    (FI, "“Come back!”", (("“No.”", "»Ei.»"),), "Tule takaisin!", "»Tule takaisin!»"),
    (FR, "“Come back!”", (), "Reviens !", "«\u00a0Reviens !\u00a0»"),
    (languages.find("pl"), "“Come back!”", (), "Wracaj!", "„Wracaj!”"),
    (JA, "“Come back!”", (), "戻って！", "「戻って！」"),
    (ZH, '"Come back!"', (), "回来！", "“回来！”"),
    (languages.find("zh-TW"), '"Come back!"', (), "回來！", "「回來！」"),
    (EN, "»Komm zurück!«", (), "Come back!", "“Come back!”"),
    (EN, '"The screen is 27\" wide."', (), 'The screen is 27" wide.', '“The screen is 27" wide.”'),
    (EN, "“你好。”他说。", (), "Hello, he said.", None),  # where the speech ends is not told
    (EN, "“你好，”他说，“再见。”", (), "Hello, he said, bye.", None),
    (EN, "“⟦1⟧你好。⟦/1⟧”", (), "⟦1⟧Hello.⟦/1⟧", None),
    (EN, "“你好。”", (), "", None),
    (EN, "他走了。", (), "He left.", None),
])  # fmt: skip
def test_marks_of_a_line_of_speech_are_set(
    language: languages.Language, source: str, before: tuple[tuple[str, str], ...], target: str, text: str | None
) -> None:
    assert quotes.wrapped(source, target, language, before) == (target if text is None else text)


def test_marks_take_no_long_time_to_look_for() -> None:
    """A draft with one mark alone, of any length."""
    begun = time.process_time()
    assert quotes.unwrapped("他走了。", "“" + "He left. " * 20_000).startswith("“He")
    assert time.process_time() - begun < 1


# from, to, source, translation: each as a careful translator would write it
RIGHT = """
zh|en|“人”字怎么写？|How do you write 人?
ja|en|「山」という字|the character 山
zh|en|“人”和“入”很像。|人 and 入 look alike.
ja|en|漢字の「山」と「川」|the kanji “yama” and “kawa”
en|zh|Use Python, Java or JavaScript.|使用Python、Java或JavaScript。
en|zh|I use Windows and Linux.|我用Windows和Linux。
en|ja|It runs on Windows and Linux.|WindowsとLinuxに対応。
en|ja|Supports Microsoft Windows Server and Red Hat Enterprise Linux.|Microsoft Windows ServerとRed Hat Enterprise Linuxに対応しています。
en|zh|Directed by Christopher Nolan|Christopher Nolan 导演
en|ko|Directed by Christopher Nolan|Christopher Nolan 감독
en|zh|Published by Random House, New York.|Random House出版，New York。
en|zh|Types: JPEG, PNG, WebP|类型：JPEG、PNG、WebP
en|zh|the species Homo sapiens|智人（Homo sapiens）这个物种
zh|en|（注：见下文。）|(Note: see below.)
zh|en|（译者注：这里是双关。）|(Translator's note: a pun.)
de|en|(Anm.: siehe unten)|(Note: see below)
ru|en|(Примечание: см. ниже)|(Note: see below)
zh|en|英语：很难。|English: very hard.
zh|en|作为AI，我不能爱你。|As an AI, I cannot love you.
zh|en|“人”和“入”很像。|“人” and “入” look alike.
ko|en|'나무'라는 말은 아름답다.|The word “namu” (나무) is beautiful.
ru|en|Слово «мир» имеет два значения.|The word "mir" (мир) has two meanings.
el|en|π = 3,14|π = 3.14
el|en|Έχει μήκος 5 μm.|It is 5 μm long.
el|en|Γωνία α = 30°|Angle α = 30°
en|el|Who are you?|Ποιος είσαι;
en|el|Tell me, who are you and what do you want from all of us?|Πες μου, ποιος είσαι και τι θέλεις από όλους εμάς;
en|th|He went to the market. He bought rice, fish and eggs. Then he went home and cooked for his children.|เขาไปตลาด เขาซื้อข้าว ปลา และไข่ แล้วเขาก็กลับบ้าน และทำอาหารให้ลูกๆ ของเขา
en|zh|the file name is data.csv|文件名为data.csv
zh|ko|韩梅梅来了。|한매매(韓梅梅)가 왔다.
zh|ja|东京大学经济学部毕业|東京大学経済学部卒業
en|ja|Tokyo|東京
en|uk|He saw the rose.|Він побачив троянду.
fr|es|Je viens.|Ya voy.
zh|fr|爱丽丝·利德尔|Alice Liddell
zh|de|他说：“Hello, how are you today, my friend?”|Er sagte: „Hello, how are you today, my friend?“
zh|en|@johnsmith1984 你好|@johnsmith1984 hello
en|de|/usr/local/share/doc|/usr/local/share/doc
en|de|tel:+49301234567|tel:+49301234567
en|zh|artificial intelligence and its enemies|人工智能（artificial intelligence）及其敌人
ru|en|Буква Ы|The letter Ы
en|zh-TW|He did not go to school yesterday because he was ill.|他昨天沒有去學校，因為他病了，醫生說他需要好好休息幾天。
en|zh|He did not go to school yesterday because he was ill.|他昨天沒有去學校，因為他病了。
en|zh|Harry Potter by J. K. Rowling|J. K. Rowling著《Harry Potter》
zh|ja|中国中央电视台|CCTV
en|de|He said: sic transit gloria mundi et omnia vanitas.|Er sagte: sic transit gloria mundi et omnia vanitas.
fr|es|Il chante de la musique.|Canta música de la tierra.
da|no|Han gik ned til stranden og så på det store hav i solen.|Han gikk ned til stranden og så på det store havet i solen.
es|pt|A casa de la abuela.|A casa da avó.
zh|en|（注：见下文。）|(Note: see below.)
zh|en|他今年四十有三，膝下只有一女。|He was forty-three that year and had only one daughter.
zh|de|都十点半了，你还不睡？|Schon halb elf, und du schläfst noch nicht?
ko|de|오후 5시 30분에 역 앞에서 만나자.|Treffen wir uns um halb sechs vor dem Bahnhof.
en|th|The train leaves at 7:45 p.m.|รถไฟออกเวลา 19.45 น.
fr|ja|Dans quinze jours, tout sera fini.|二週間後には、すべて終わっているだろう。
zh|fr|两周后|Quinze jours plus tard
zh|en|两个时辰|four hours
zh|en|股价收于12.5元，涨幅达一成半。|The share closed at 12.5 yuan, up fifteen percent.
en|zh|pp. 112–15|第112至115页
en|th|In 2024 Thailand had 66 million people.|ในปี พ.ศ. 2567 ประเทศไทยมีประชากร 66 ล้านคน
zh|en|他已年过花甲。|He was past sixty.
en|ru|He said “c’est la vie” and shrugged.|Он сказал «c’est la vie» и пожал плечами.
en|zh|The Latin motto read “per aspera ad astra”.|拉丁文格言写着“per aspera ad astra”。
en|zh|Escherichia coli (E. coli) grew at 37 °C.|大肠杆菌（Escherichia coli，E. coli）在37 °C下生长。
en|zh|Run `npm install` and open index.html.|运行`npm install`，然后打开index.html。
en|zh|The file config.yaml sets max_tokens to 512.|文件config.yaml将max_tokens设为512。
zh|ko|《三国演义》（罗贯中 著）|《삼국지연의》(羅貫中 지음)
zh|de|他有一百五十本书。|Er hat hundertfünfzig Bücher.
zh|ru|二十八|двадцать восьмая
de|fr|Um halb zwölf ging er.|Il partit à onze heures et demie.
zh|de|两百三十人|zweihundertdreißig Menschen
"""
# what is found first
WRONG = """
numbers|zh|de|他活到九十七岁。|Er wurde neunundsiebzig Jahre alt.
numbers|zh|fr|她七十五岁那年才学会游泳。|Elle n’apprit à nager qu’à soixante-cinq ans.
numbers|en|de|He was forty-two.|Er war vierundzwanzig.
numbers|en|fr|He was eighty-one.|Il avait quatre-vingt-onze ans.
numbers|de|fr|Er war sechsundvierzig.|Il avait soixante-quatre ans.
numbers|ru|de|Ему было девяносто восемь лет.|Er war achtundachtzig.
language|en|ja|He did not go to school yesterday, because he was ill. He did not go to school yesterday, because he was ill. He did not go to school yesterday, because he was ill.|他昨天没有去学校，因为他病了，医生说他需要在家好好休息几天，多喝一些热水，然后才能回去上课，他的母亲也很担心他，所以今天没有去上班。
language|en|ja|He did not go to school.|他昨天没有去学校，因为他病了。
language|zh|ko|他昨天没有去学校，因为他病了。|그는 昨天没有去学校，因为他病了。
language|en|ko|He did not go to school, he was ill.|他昨天没有去学校，因为他病了。
copy|zh|ja|他昨天去学校了。|他昨天去学校了。
language|zh|fr|他昨天没有去学校。|He did not go to school yesterday.
language|en|ru|He saw the whole world and its wonders.|Він бачив увесь світ і його дива.
language|en|ar|He bought a car and a book.|او یک ماشین و یک چتر و کتاب گران خرید.
language|zh|en|“快走”他说。|“快走” he said.
language|zh|en|“人们都走了”|“人们都走了”
copy|en|zh|He walked on through the Old Town of Prague in the rain.|He走on through the Old Town of Prague in the rain.
talk|zh|en|他说：很难。|(Note: I translated this literally.) He said it was hard.
copy|en|zh|The Old Man And The Sea|The Old Man And The Sea
language|zh|ja|他病了。|He was ill.
language|zh|ko|他昨天没有去学校。|He didn't go.
language|zh|ru|他昨天没有去学校，因为他病了。|He did not go.
words|en|zh|He was ill.|他 was ill。
variant|en|zh-TW|He did not go to school yesterday because he was ill.|他昨天没有去学校，因为他病了，医生说他需要好好休息几天。
variant|en|zh-CN|He did not go to school yesterday because he was ill.|他昨天沒有去學校，因為他病了，醫生說他需要好好休息幾天。
language|en|ar|He did not go to school yesterday.|او دیروز به مدرسه نرفت چون بیمار بود و در تختخواب ماند.
copy|en|de|He ran to the old house and opened the heavy door slowly.|He ran to the old house und öffnete die schwere Tür langsam.
"""


@pytest.mark.parametrize("line", RIGHT.strip().splitlines())
def test_right_translations_of_many_languages_pass(line: str) -> None:
    source_code, target_code, source, target = line.split("|")
    pair = languages.find(source_code), languages.find(target_code)
    assert guards.problems(Case(source, target, *pair)) == []


@pytest.mark.parametrize("line", WRONG.strip().splitlines())
def test_wrong_translations_of_many_languages_are_found(line: str) -> None:
    kind, source_code, target_code, source, target = line.split("|")
    assert kind in kinds(source, target, (languages.find(source_code), languages.find(target_code)))


@pytest.mark.parametrize("text", [
    "1." * 10_000, "1234567890" * 2000, "万" * 20_000, "壹佰" * 10_000, "12," * 6667, "(一" * 10_000, "一点" * 10_000,
    "三块" * 10_000, "a_b." * 5000, "“a" * 9000,
])  # fmt: skip
def test_any_line_is_judged_in_a_time_in_proportion(text: str) -> None:
    begin = time.perf_counter()
    guards.problems(Case("你好。", text, ZH, EN))
    guards.problems(Case(text, text + "x", ZH, EN))
    assert time.perf_counter() - begin < 20  # some took minutes, for a second or two that they need
