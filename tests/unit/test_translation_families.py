"""Prompts through chat templates in the forms of the families that users take, rendered as transformers renders them."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from edge.translation import families, languages, prompts
from edge.translation.context import Context
from edge.translation.decoding import ModelTranslator
from edge.translation.loop import Attempt, Request
from edge.translation.prompts import Pair

ZH, EN, DE, TW = (languages.find(code) for code in ("zh", "en", "de", "zh-TW"))

CHATML = """{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{%- endif %}
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
# answers after the last question have an empty thought before them, earlier ones have none
THINKING = """{%- set ns = namespace(last=0) %}{%- for m in messages %}{%- if m.role == 'user' %}
{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' and loop.index0 > ns.last %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{{- m.content + '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}
{%- for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}
{%- set role = 'model' if m['role'] == 'assistant' else m['role'] %}
{{- '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
TRANSLATEGEMMA = """{%- set names = {"de": "German", "en": "English", "zh": "Chinese", "zh-Hant": "Chinese"} -%}
{{ bos_token }}{%- for m in messages %}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{%- endif %}
{%- if m['role'] == 'assistant' %}{%- if m['content'] is not string %}{{ raise_exception('a string') }}{%- endif %}
{{- '<start_of_turn>model\\n' + m['content'] | trim }}
{%- else %}{%- if m['content'] is string or m['content'] | length != 1 %}{{ raise_exception('one mapping') }}{%- endif %}
{%- set c = m['content'][0] %}
{{- '<start_of_turn>user\\n' + names[c['source_lang_code']] + ' (' + c['source_lang_code'] + ') to ' }}
{{- names[c['target_lang_code']] + ' (' + c['target_lang_code'] + '):\\n\\n\\n' + c['text'] | trim }}{%- endif %}
{{- '<end_of_turn>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""
HUNYUAN_7B = """{%- for m in messages %}{%- if m['role'] == 'user' %}{{- '<|startoftext|>' + m['content'] + '<|extra_0|>' }}
{%- else %}{{- m['content'] + '<|eos|>' }}{%- endif %}{%- endfor %}"""
HUNYUAN_2B = """{{- '<｜hy_begin▁of▁sentence｜>' }}{%- for m in messages %}{%- if m['role'] == 'user' %}
{{- '<｜hy_User｜>' + m['content'] }}{%- else %}{{- '<｜hy_Assistant｜>' + m['content'] + '<｜hy_place▁holder▁no▁2｜>' }}
{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<｜hy_Assistant｜>' }}{%- endif %}"""
LLAMA = """{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}
{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string + '\\n\\n<|eot_id|>' }}
{%- for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
MISTRAL = """{{ bos_token }}{% for m in messages %}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}
{%- if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}
{%- else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"""
AYA = """{{ bos_token }}{% for m in messages %}{% set role = 'CHATBOT' if m['role'] == 'assistant' else 'USER' %}
{{- '<|START_OF_TURN_TOKEN|><|' + role + '_TOKEN|>' + m['content'].strip() + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"""
ALL = {
    "chatml": CHATML, "thinking": THINKING, "gemma": GEMMA, "translategemma": TRANSLATEGEMMA, "hunyuan 7B": HUNYUAN_7B,
    "hunyuan 2B": HUNYUAN_2B, "llama": LLAMA, "mistral": MISTRAL, "aya": AYA,
}  # fmt: skip
# the end of an answer, in the form of each
ENDS = {
    "chatml": "<|im_end|>\n", "thinking": "<|im_end|>\n", "gemma": "<end_of_turn>\n", "translategemma": "<end_of_turn>\n",
    "hunyuan 7B": "<|eos|>", "hunyuan 2B": "<｜hy_place▁holder▁no▁2｜>", "llama": "<|eot_id|>", "mistral": "</s>",
    "aya": "<|END_OF_TURN_TOKEN|>",
}  # fmt: skip
PAIRS = [Pair(source, target) for source, target in zip("甲乙丙丁戊", "ABCDE", strict=True)]


class Words:
    """A tokenizer of characters with a chat template."""

    def __init__(self, chat_template: str | dict[str, str] | None) -> None:
        self.chat_template = chat_template

    def apply_chat_template(self, messages: list[dict[str, Any]], chat_template: str | None = None, **more: Any) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        assert more.pop("tokenize") is False
        more |= {"bos_token": "<s>", "eos_token": "</s>", "chat_template": chat_template or self.chat_template}
        text = render_jinja_template([messages], **more)[0][0]
        assert isinstance(text, str)
        return text

    def __call__(self, text: str, **more: object) -> dict[str, list[int]]:
        return {"input_ids": [ord(char) for char in text]}


def made(family: str, source: languages.Language = ZH, target: languages.Language = EN) -> prompts.Prompts:
    words = Words(ALL[family])
    return prompts.Prompts(prompts.load_template(families.fitting(words, source, target)), source, target, words)


def test_the_template_follows_from_the_models_own_metadata() -> None:
    fitting = {name: families.fitting(Words(text), ZH, EN) for name, text in ALL.items()}
    assert fitting.pop("translategemma") == "translategemma"
    assert fitting.pop("hunyuan 7B") == fitting.pop("hunyuan 2B") == "hunyuan-zh"
    assert set(fitting.values()) == {"chat"}
    assert families.fitting(Words(None), ZH, EN) == "plain" == families.fitting(object(), ZH, EN)
    assert families.fitting(Words(HUNYUAN_2B), EN, DE) == "hunyuan"
    assert families.fitting(Words({"default": TRANSLATEGEMMA, "rag": "x"}), ZH, EN) == "translategemma"
    # Hunyuan's models for chat think; one for translation that does is told by its name
    thinking = HUNYUAN_2B + "{# <think> #}"
    assert (
        families.fitting(Words(thinking), EN, DE, architecture="hunyuan_v1_dense", reference="x/Hunyuan-7B") == "chat"
    )
    assert families.fitting(Words(thinking), EN, DE, reference="models/HY-MT1.5-1.8B.gguf") == "hunyuan"
    assert families.fitting(Words(CHATML), EN, DE, architecture="hunyuan_v1_dense") == "hunyuan"


def test_what_each_family_is_asked() -> None:
    gemma = made("gemma").prompt([], ["甲"])
    assert gemma.startswith("<s><start_of_turn>user\nYou translate a book from Chinese into English.")
    assert gemma.endswith("甲<end_of_turn>\n<start_of_turn>model\n")
    assert made("translategemma").prompt([], ["甲"]) == (
        "<s><start_of_turn>user\nChinese (zh) to English (en):\n\n\n甲<end_of_turn>\n<start_of_turn>model\n"
    )
    assert made("hunyuan 7B").prompt([], ["甲"], [("乙", "B"), ("丙", "C")]) == (
        "<|startoftext|>参考下面的翻译：\n乙 翻译成 B\n丙 翻译成 C\n\n将以下文本翻译为英语，注意只需要输出翻译后的结果，"
        "不要额外解释：\n\n甲<|extra_0|>"
    )
    assert made("hunyuan 2B", EN, DE).prompt([Pair("a", "b")], ["c"]) == (
        "<｜hy_begin▁of▁sentence｜><｜hy_User｜>Translate the following segment into German, without additional "
        "explanation.\n\na<｜hy_Assistant｜>b<｜hy_place▁holder▁no▁2｜><｜hy_User｜>Translate the following segment into "
        "German, without additional explanation.\n\nc<｜hy_Assistant｜>"
    )
    assert made("mistral").prompt(PAIRS[:1], ["乙"]).endswith("甲 [/INST] A</s>[INST] 乙 [/INST]")
    assert (
        made("aya")
        .prompt(PAIRS[:1], ["乙"])
        .endswith("乙<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>")
    )


def test_languages_have_the_codes_and_names_that_a_family_knows() -> None:
    assert "Chinese (zh-Hant) to German (de)" in made("translategemma", TW, DE).prompt([], ["甲"])
    assert "翻译为繁体中文" in made("hunyuan 7B", EN, TW).prompt([], ["a"])
    assert languages.find("zh-CN").tags == ("zh-CN", "zh-Hans", "zh") and languages.find("pt-BR").tags == (
        "pt-BR",
        "pt",
    )


def test_terms_are_a_turn_where_a_template_has_no_words_for_them() -> None:
    text = made("translategemma").prompt(PAIRS[:1], ["乙丙"], [("乙", "B"), ("丙", "C")])
    assert text.endswith(
        "\n\n\n乙\n丙<end_of_turn>\n<start_of_turn>model\nB\nC<end_of_turn>\n<start_of_turn>user\nChinese (zh) to "
        "English (en):\n\n\n乙丙<end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize("family", ALL)
def test_prompts_come_in_parts_that_stay(family: str) -> None:
    """What stands before a unit stands before the next one too, and so does what is asked, where the template repeats
    it as it is: nothing is read twice, of thinking models the line alone.
    """
    form = made(family)
    thinks = family == "thinking"
    parts = form.parts(PAIRS[:2], PAIRS[2:4], ["戊"], [("戊", "E")])
    assert len(parts) == (4 if thinks else 6) and all(parts)
    later = form.parts(PAIRS[:2], PAIRS[2:5], ["己"])
    assert later[: len(parts) - 1] == parts[:-1] and len(later) == (5 if thinks else 8)
    asked = form.parts(PAIRS[:2], PAIRS[2:4], [PAIRS[4].source])
    assert (later[: len(asked)] == asked) is not thinks
    assert "".join(parts).count("<think>") == (family == "thinking")


@pytest.mark.parametrize("family", ALL)
def test_lessons_end_with_the_end_of_the_turn(family: str) -> None:
    form = made(family)
    turns = form.lesson(PAIRS[:1], PAIRS[1:5])
    assert turns[0][0] == form.prompt(PAIRS[:1], ["乙", "丙"] if family != "thinking" else ["乙", "丙", "丁", "戊"])
    assert all(said.endswith(ENDS[family]) for _, said in turns)
    whole = "".join(text for turn in turns for text in turn)
    assert [whole.count(pair.target) >= 1 for pair in PAIRS] == [True] * 5


def test_a_template_that_asks_for_the_date_is_told_one_day_for_ever() -> None:
    """Else a run that goes on tomorrow would ask otherwise than today."""
    text = made("llama").prompt([], ["甲"])
    assert "Today Date: 26 Jul 2024\n" in text and text.startswith("<s><|start_header_id|>system")
    today = Words(LLAMA).apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert f"Today Date: {datetime.now():%d %b %Y}" in today  # what it would be told
    other = Words(
        '{%- set day = strftime_now("%Y-%m-%d") %}{{ day }}{% for m in messages %}{{ m.content }}{% endfor %}'
    )
    form = prompts.Prompts(prompts.load_template("chat"), ZH, EN, other)
    assert form.prompt([], ["甲"]).startswith("2024-07-26You translate")


@pytest.mark.parametrize("family", ALL)
def test_turns_never_grow_beyond_the_window(family: str) -> None:
    """Lines of every length, as many as a book has: each prompt leaves room for its answer, and shows its last lines."""
    form = made(family)
    window = SimpleNamespace(size=1600, chunk=200)
    base = SimpleNamespace(tokenizer=form._tokenizer)
    forward = SimpleNamespace(forgets=True)
    session: Any = SimpleNamespace(settings=SimpleNamespace(window=window), base=base, forward=forward)
    translator = ModelTranslator(session, form)
    pairs = [
        Pair(f"{number}." + "甲" * (number * 37 % 120), f"{number}." + "a" * (number * 53 % 150))
        for number in range(60)
    ]
    shown = []
    for number in range(0, 60, 3):
        for since in (0, 3, 20):
            context = Context(pairs[: max(0, number - since)], pairs[max(0, number - since) : number], 8)
            request = Request(pairs[number].source, context, [("甲", "A")], Attempt(), 0)
            limit = min(int(3 * len(request.source)) + 24, window.chunk)
            parts = translator._parts([request], window.size - limit)
            assert parts is not None and sum(map(len, parts[0])) <= window.size - limit
            text = "".join(chr(token) for part in parts[0] for token in part)
            assert request.source in text
            shown.append(sum(pair.target in text for pair in pairs[:number]))
    assert max(shown) >= 4 and translator._parts([Request("甲" * 1600, Context(), (), Attempt(), 0)], 1400) is None
