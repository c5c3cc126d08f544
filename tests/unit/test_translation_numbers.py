"""Numbers by value: a translation may write them in any numerals or words, and may not change them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.translation import languages, numberwords, numerals

# from, to, source, translation
SAME = """
zh|en|三十二个房间|thirty-two rooms
zh|en|三十二个房间|32 rooms
zh|en|一九八四年|in 1984
zh|en|一九八四年|nineteen eighty-four
zh|en|八十年代|the eighties
zh|en|八十年代|the 1980s
zh|en|98年夏天|the summer of 1998
zh|en|三万五千人|35,000 people
zh|en|三千五|three thousand five hundred
zh|en|一百二|a hundred and twenty
zh|en|3.5亿元|350 million yuan
zh|en|1万亿元|1 trillion yuan
zh|en|两百多人|more than two hundred people
zh|en|十七八岁|seventeen or eighteen
zh|en|他今年二十出头|he is in his early twenties
zh|en|百分之二十五|25%
zh|en|百分之二十五|a quarter
zh|en|百分之百确定|absolutely sure
zh|en|打八五折|15% off
zh|en|打八五折|at 85% of the price
zh|en|22点|10 p.m.
zh|en|十二点|midnight
zh|en|十一点半|half past eleven
zh|en|三十分钟|half an hour
zh|en|第十二章|Chapter XII
zh|en|第十二章|Chapter Twelve
zh|en|第二十一章 婚礼|Chapter 21 The Wedding
zh|en|他十分高兴|he was very happy
zh|en|千万别去|don't go
zh|en|老百姓|the people
zh|en|他是个二百五|he is a fool
zh|en|三十六计走为上|flee while you can
zh|en|十二月二十五日|December 25
zh|en|2020年12月25日|25 December 2020
zh|en|7月7日|July 7
en|zh|July 7, 1999|1999年7月7日
zh|en|7月1日到7月9日，8月3日|from 7/1 to 7/9, and August 3
zh|en|8月8日上午8点|8 am on August 8
zh|en|十五天|a fortnight
zh|en|24个|two dozen
zh|en|二十年|two decades
zh|en|三百六十五天|365 days
zh|en|一千零一夜|One Thousand and One Nights
zh|en|20:30开始|starts at 8:30 p.m.
en|zh|There are 32 rooms.|有三十二个房间。
en|zh|thirty-two rooms|32个房间
en|zh|a hundred and ten men|一百一十人
en|zh|nineteen oh-five|一九〇五年
en|zh|2.5 million dollars|二百五十万美元
en|zh|half a million dollars|五十万美元
en|zh|a dozen eggs|12个鸡蛋
en|zh|in his twenties|二十多岁
en|zh|in his twenties|二十几岁
en|zh|20% off|打八折
en|zh|at 3 p.m.|下午三点
en|zh|at 10 p.m.|22点
en|zh|the 1980s|八十年代
en|zh|twenty-first century|21世纪
en|zh|Henry VIII|亨利八世
en|zh|Chapter XII|第十二章
en|zh|December 25, 1984|一九八四年十二月二十五日
en|ja|30,000 people|三万人
en|ja|1984|昭和59年
ja|en|昭和59年|1984
ja|en|二十歳|twenty years old
ja|en|五十嵐さん|Mr Igarashi
en|de|It costs 1,234.50 dollars.|Es kostet 1.234,50 Dollar.
en|de|1,234,567 people|1.234.567 Menschen
en|de|twenty-three men|dreiundzwanzig Männer
en|fr|10,000 men|10 000 hommes
de|en|am 24.12.2020|on December 24, 2020
de|en|am 24.12.|on December 24
de|en|3,5 Millionen|3.5 million
de|en|dreiundzwanzig Leute|23 people
en|de|12/10/2020|10.12.2020
en|de|on 2020-12-24|am 24. Dezember 2020
en|de|chapter 3|Kapitel 3
en|hi|1,00,000|१,००,०००
en|ar|1894|١٨٩٤
ru|en|в 1812 году|in 1812
en|zh|Five or six men|五六个人
en|zh|10 m wide|10米宽
en|zh|ten to fifteen|十到十五
zh|en|他一米八三|he was six feet tall
zh|en|两三天|two or three days
zh|en|他有三分之一|he has a third
zh|en|110斤|55 kg
zh|en|9点15分|a quarter past nine
en|zh|a quarter past nine|九点一刻
en|zh|half past ten|十点半
en|zh|two thirds|三分之二
en|zh|one second|一秒
en|zh|a thirty-second pause|停顿三十秒
en|zh|a couple of days|两天
en|zh|100 years|一个世纪
en|zh|Twenty-five hundred|两千五百
zh|en|几百人|hundreds of people
zh|en|上千人|over a thousand people
zh|en|百里之外|fifty kilometres away
zh|en|四五十岁|forty or fifty
zh|en|一百八十度|180 degrees
zh|en|张三李四|Tom, Dick and Harry
zh|en|五一劳动节|May Day
zh|en|三八妇女节|Women's Day on March 8
zh|en|九十九朵玫瑰|ninety-nine roses
en|zh|999 roses|九百九十九朵玫瑰
en|de|He was 3.|Er war drei.
zh|ja|一九八四年|1984年
fr|en|2,5 millions|2.5 million
de|en|Zimmer 12|Room Twelve
zh|en|民国二十年|1931
ru|en|15 миллионов человек|15 million people
en|ru|12 billion dollars|12 миллиардов долларов
ru|en|10 тысяч рублей|ten thousand rubles
es|en|15 mil millones de dólares|15 billion dollars
pt|en|15 bilhões|15 billion
de|en|15 Billionen|15 trillion
ko|en|15만 명|150,000 people
zh|ko|15万人|15만 명
en|ko|1.5 million people|150만 명
zh|en|15千米|15 kilometres
zh|en|15千克|15 kilograms
de|en|um 20 Uhr|at 8 p.m.
de|en|um 14.30 Uhr|at 2:30 p.m.
en|de|at 3 p.m.|um 15 Uhr
fr|en|à 17 heures|at five in the afternoon
fr|en|18h|6 p.m.
es|en|a las 15 horas|at 3 p.m.
it|en|alle ore 15|at 3 p.m.
ru|en|в 15 часов|at 3 o'clock
nl|en|om 15.30 uur|at 3:30
ko|en|15시|3 p.m.
zh|en|10:45|a quarter to eleven
zh|en|六点四十|twenty to seven
zh|en|下午三点四十五分|at a quarter to four
en|fr|the 21st century|le XXIe siècle
en|es|the 19th century|el siglo XIX
en|it|the 15th century|il XV secolo
en|ru|the 19th century|в XIX веке
zh|en|20世纪90年代|the 1990s
zh|en|二十世纪九十年代|the 1990s
en|zh|the 1990s|20世纪90年代
en|zh|the 1860s|19世纪60年代
zh|en|19世纪60年代|the 1860s
zh|en|1990年代|the nineties
de|en|die 1990er|the nineties
en|zh|the 1800s|十九世纪
zh|en|两百年|two centuries
zh|en|三百年前|three centuries ago
zh|en|五千年|five millennia
zh|en|三点一四|3.14
zh|en|零点五|0.5
zh|en|百分之零点五|0.5%
zh|en|一点五万|15,000
zh|en|三十七度五|37.5 degrees
zh|en|一米八三|1.83 metres
zh|en|一米七五|175cm
zh|en|三块五|3.50 yuan
zh|en|两块八毛|2.80 yuan
zh|en|四分之三|75%
zh|en|千分之三|0.3%
zh|en|十几万|over a hundred thousand
zh|en|四十五分钟|three quarters of an hour
zh|en|壹佰元整|one hundred yuan
ar|en|١٬٥٠٠ دولار|1,500 dollars
zh|en|１，５００元|1,500 yuan
ja|en|１，０００円|1,000 yen
en|de|1914–18|1914 bis 1918
en|zh|in '68|1968年
zh|en|几千人|thousands of people
zh|en|上万人|tens of thousands of people
zh|en|他收拾东西|he packed his things
zh|en|陆小凤三岁|Lu Xiaofeng was three
zh|en|一百块|a hundred yuan
zh|en|千里马|a fine horse, worth 500 gold
en|zh|1,500,000 people|150万人
ko|en|1억 5천만 원|150 million won
zh|en|1亿5000万人|150 million people
zh|en|电话：13800138000|Phone: 138-0013-8000
zh|en|电话：010-62751234|Tel. (010) 6275 1234
en|de|It costs 1,000,000 euros.|Es kostet eine Million Euro.
en|fr|It costs 2,000,000 euros.|Cela coûte deux millions d'euros.
en|es|There were 200 people.|Había doscientas personas.
en|de|There were 300 people.|Es waren dreihundert Leute da.
en|ru|There were 20 people.|Было двадцать человек.
en|ru|He is 15 years old.|Ему пятнадцать лет.
en|ko|He is 15 years old.|그는 열다섯 살이다.
en|ko|There were 230 people.|이백삼십 명이 있었다.
en|ko|10,000 people came.|만 명이 왔다.
fr|en|les années 1990|the nineties
zh|en|十八个月|a year and a half
zh|en|四十八小时|two days
zh|en|三块五|three yuan fifty
zh|en|五毛钱|fifty cents
hi|en|15 लाख|1,500,000
it|en|15mila persone|15,000 people
de|en|12 Millionäre|12 millionaires
en|de|at 10:30|um halb elf
"""
OTHER = """
zh|en|三十二个房间|three hundred rooms
zh|en|三十二个房间|some rooms
en|zh|There are 32 rooms.|有三百二十个房间。
zh|en|12月25日|November 25
zh|en|7月7日|August 7
zh|en|十一月十一日|on October 11
en|zh|July 7, 1999|1999年8月7日
zh|en|8月8日上午8点|8 am on September 8
zh|en|十二月二十五日|November 25
zh|en|一九八四年|in 1948
zh|en|三万五千人|3,500 people
zh|en|3.5亿元|3.5 million yuan
zh|en|百分之二十五|52%
zh|en|第十二章|Chapter 21
zh|en|第三章|Chapter 4
en|zh|thirty-two rooms|二十三个房间
en|zh|nineteen eighty-four|一九四八年
en|zh|December 25|11月25日
en|de|Page 12 of 20|Seite 12 von 30
en|de|December 25, 2020|25. November 2020
de|en|am 24.12.2020|on December 25, 2020
de|en|am 24.12.2020|on November 24, 2020
en|de|3 men|5 Männer
zh|en|三天|six days
zh|en|他来了。|He came in 1984.
zh|en|20:30开始|starts at 8:45 p.m.
en|fr|10,000 men|1 000 hommes
en|zh|two and a half million|二十五万
ja|en|昭和59年|1985
zh|en|一万人|a million people
en|zh|a million dollars|一亿美元
de|en|2 Milliarden|2 million
ko|en|3만 명|3,000 people
it|en|5mila persone|5 people
ru|en|5 тысяч|5 million
de|en|zwanzig Männer|200 men
fr|en|vingt hommes|thirty men
zh|en|三点一四|3.15
zh|en|一米八三|1.38 metres
de|en|um 20 Uhr|at 9 p.m.
zh|en|20世纪90年代|the 1980s
en|fr|the 21st century|le XIXe siècle
de|en|15 Billionen|15 billion
de|en|zweihundert Männer|20 men
zh|en|下午两点半|at half past five
zh|en|电话：13800138000|Phone: 138-0013-8001
"""
_UNITS = "零一二三四五六七八九"


def differences(line: str) -> list[str]:
    source_code, target_code, source, target = line.split("|")
    return numerals.differences(source, target, languages.find(source_code), languages.find(target_code))


@pytest.mark.parametrize("line", SAME.strip().splitlines())
def test_the_same_number_in_other_words_is_the_same(line: str) -> None:
    assert differences(line) == []


@pytest.mark.parametrize("line", OTHER.strip().splitlines())
def test_another_number_is_found(line: str) -> None:
    assert differences(line)


# as num2words 0.5.14 (another implementation) writes them
CALLED = {
    "de": {21: "einundzwanzig", 37: "siebenunddreißig", 12: "zwölf", 11: "elf", 100: "einhundert", 300: "dreihundert", 40_000: "vierzigtausend"}, "nl": {22: "tweeëntwintig", 88: "achtentachtig"},
    "fr": {21: "vingt et un", 71: "soixante et onze", 80: "quatre-vingts", 91: "quatre-vingt-onze", 98: "quatre-vingt-dix-huit", 77: "soixante-dix-sept"},
    "es": {21: "veintiuno", 22: "veintidós", 31: "treinta y uno", 99: "noventa y nueve", 500: "quinientos", 3000: "tres mil"}, "it": {23: "ventitré", 28: "ventotto", 71: "settantuno", 400: "quattrocento", 2000: "duemila"},
    "pt": {16: "dezesseis", 21: "vinte e um", 42: "quarenta e dois", 700: "setecentos"},
    "ru": {11: "одиннадцать", 25: "двадцать пять", 40: "сорок", 93: "девяносто три", 200: "двести", 5000: "пять тысяч"},
}  # fmt: skip


@pytest.mark.parametrize("code", CALLED)
def test_numbers_in_words_of_other_languages_are_there(code: str) -> None:
    en, other = languages.find("en"), languages.find(code)
    for number, words in CALLED[code].items():
        assert numerals.differences(f"There are {number}.", f"X {words}.", en, other) == []
        assert numerals.differences(f"There are {number + 13}.", f"X {words}.", en, other)


# as num2words 0.5.14 (another implementation) writes them
WRITTEN = {
    "nineteen": 19, "forty-two": 42, "three hundred and five": 305, "one thousand and one": 1001,
    "seven hundred and eighty-nine thousand, one hundred and thirteen": 789113, "twelve thousand and forty": 12040,
    "nineteen eighty-four": 1984, "nineteen oh-five": 1905, "twenty twenty-six": 2026, "nineteen hundred": 1900,
    "twenty-second": 22, "one hundred and third": 103, "ten thousandth": 10000, "five million and six": 5000006,
    "two billion, thirty-one million, four hundred thousand and eleven": 2031400011, "eighteen thirty": 1830,
}  # fmt: skip


@pytest.mark.parametrize("words", WRITTEN)
def test_english_numbers_are_read(words: str) -> None:
    for text in (words, f"There were {words} of them.", words.replace(" and ", " ").replace(",", "").capitalize()):
        assert [int(number.value) for number in numberwords.english(text)] == [WRITTEN[words]]


def test_words_that_do_not_add_up_are_several_numbers() -> None:
    def values(text: str) -> list[int]:
        return [int(number.value) for number in numberwords.english(text)]

    assert values("one or two men") == [1, 2]
    assert values("Twenty, thirty, forty!") == [20, 30, 40]
    assert values("one hundred one hundred and two") == [101, 102]
    assert values("two and a half million, half a million") == [2_500_000, 500_000]
    assert values("Someone often attended the weight of stone") == []


def chinese(number: int) -> str:
    """A number below 10^8 in Chinese, written plainly: the reference that the reader is tried against."""
    if number >= 10_000:
        high, low = divmod(number, 10_000)
        gap = "零" if low and low < 1000 else ""
        return chinese(high) + "万" + gap + (chinese(low) if low else "")
    text = ""
    for unit, size in (("千", 1000), ("百", 100), ("十", 10), ("", 1)):
        digit = number // size % 10
        if digit:
            text += _UNITS[digit] + unit
        elif text and number % size and not text.endswith("零"):
            text += "零"
    return text


def test_chinese_numbers_are_read() -> None:
    chosen = random.Random(3)
    zh, en = languages.find("zh"), languages.find("en")
    for number in [*range(11, 1200), *(chosen.randrange(1200, 10**8) for _ in range(1500))]:
        source = f"有{chinese(number)}个。"
        assert not numerals.differences(source, f"There are {number:,}.", zh, en), source
        if number % 10 and number != 250 and number > 20 and source != "有" + chinese(number + 1) + "个。":
            assert numerals.differences(source, f"There are {number + 1:,}.", zh, en), source


@given(st.text(max_size=100), st.text(max_size=100))
def test_any_text_can_be_read(source: str, target: str) -> None:
    for codes in (("zh", "en"), ("en", "zh"), ("de", "en"), ("ja", "de")):
        found = numerals.differences(source, target, *(languages.find(code) for code in codes))
        assert all("\n" not in line for line in found) or "\n" in source + target


@given(
    st.lists(
        st.sampled_from(
            [*"一二三千百十万亿零〇两3.,:/-点分之米块度世纪年代", "and", "two", "hundred", "half", "million"]
        ),
        max_size=40,
    )
)
def test_any_mixture_of_numerals_can_be_read(parts: list[str]) -> None:
    text = "".join(parts) + " " + " ".join(parts)
    zh, en = languages.find("zh"), languages.find("en")
    assert numerals.differences(text, text, zh, zh) == []
    assert numerals.differences(text, text, en, en) == []


@pytest.mark.parametrize("text", ["THE CIVIL WAR", "an LCD", "IC", "VIVID"])
def test_words_of_the_letters_of_roman_numerals_are_no_numbers(text: str) -> None:
    assert list(numerals._romans(text)) == [] and list(numerals._romans(f"{text} in volume XIV")) == [14]
