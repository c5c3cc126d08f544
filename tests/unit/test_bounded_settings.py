"""Settings and headers from anyone: read or refused at once, whatever numbers and references they hold."""

from __future__ import annotations

import contextlib
import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from edge import settings
from edge.errors import ModelError, SettingsError
from edge.memory import shape
from edge.store.sources import Source
from edge.translation import chat, prompts

_WINDOW = "window: {chunk: 512, size: 768}\n"
_LAUGHS = (
    "learn:\n  lr:\n    - &a0 ["
    + "lol, " * 10
    + "]\n"
    + "".join(f"    - &a{n} [" + f"*a{n - 1}, " * 10 + "]\n" for n in range(1, 10))
)


@pytest.mark.parametrize("text, said", [
    (_WINDOW + _LAUGHS, "not readable YAML at line 5"),
    ("window: &w {chunk: 512, size: *w}", "not readable YAML at line 1"),
    ("window: {chunk: " + "9" * 5000 + "}", "not readable YAML"),
    ("window: " + "[" * 3000, "not readable YAML"),
    ("# " + "x" * 300_000 + "\n" + _WINDOW, "not readable YAML"),
    (_WINDOW + "learn: {lr: [" + "[1, 2, 3, 4], " * 2000 + "]}", "learn.lr is"),
])  # fmt: skip
def test_small_settings_stand_for_no_large_values(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    tracemalloc.start()
    try:
        with pytest.raises(SettingsError, match=said) as caught:
            settings.load(path)
        with pytest.raises(SettingsError):
            prompts.load_template(str(path))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_a_number_of_thousands_of_digits_is_no_setting() -> None:
    with pytest.raises(SettingsError):
        settings.load("economical", ["learn.lr=" + "9" * 5000])
    with pytest.raises(SettingsError):
        settings.load("economical", ["learn.lr=&a [*a]"])


def _gguf(numbers: dict[str, int], kind: str = "llama", entries: int | None = None) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    sizes = {"block_count": 2, "embedding_length": 64, "feed_forward_length": 128, "attention.head_count": 4, **numbers}
    pieces = [text("general.architecture") + struct.pack("<I", 8) + text(kind)]
    pieces += [text(f"{kind}.{name}") + struct.pack("<IQ", 10, value) for name, value in sizes.items()]
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 64, 320, 0, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, 1, entries or len(pieces)) + b"".join(pieces) + tensor


@pytest.mark.parametrize("data, said", [
    (_gguf({"block_count": 2**63, "attention.sliding_window": 512}), "blocks, which no model has"),
    (_gguf({"block_count": 3 * 10**7, "attention.sliding_window": 512}), "30000000 blocks"),
    (_gguf({"block_count": 2**63}), "blocks, which no model has"),
    (_gguf({"embedding_length": 2**63}), "which no model has"),
    (_gguf({"attention.head_count": 2**40}), "which no model has|below 1"),
    (_gguf({}, kind="\x1b[31mred\nerror: fake"), "no name"),
    (_gguf({}, entries=2**60), "entries, more than any header"),
])  # fmt: skip
def test_a_small_header_describes_no_impossible_model(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(_gguf({}))
    assert shape.read(Source("gguf", path, "x")).layers == 2
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=said) as caught:
            shape.read(Source("gguf", path, "x"))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("template, said", [
    ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x", "takes more than 0.5 s"),
    ("{{ 1 / 0 }}", "cannot be used .ZeroDivisionError"),
    ("{{ messages[99].content.x }}", "cannot be used .UndefinedError"),
    ("{% broken", "cannot be used .TemplateSyntaxError"),
    ("{{ ''.__class__.__mro__ }}", "cannot be used .SecurityError"),
])  # fmt: skip
def test_a_chat_template_is_bounded(template: str, said: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    def render() -> object:
        return render_jinja_template([[{"role": "user", "content": "x"}]], chat_template=template)[0][0]

    with pytest.raises(ModelError, match=said) as caught:
        chat.bounded(render, 0.5)
    assert "\n" not in str(caught.value)
    assert chat.bounded(lambda: "a text") == "a text"


@pytest.mark.parametrize("template", [
    "{{ ('x' * 3000000000)[:3] }}",
    "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(29) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s[:3] }}",
    "{% set n = namespace(l=[1, 2]) %}{% for i in range(28) %}{% set n.l = n.l + n.l %}{% endfor %}x",
])  # fmt: skip
def test_a_chat_template_takes_no_more_memory_than_a_text(template: str) -> None:
    """What it asks for beyond that fails; a cap that holds already is as it was afterwards."""
    import resource

    from transformers.utils.chat_template_utils import render_jinja_template

    before = resource.getrlimit(resource.RLIMIT_DATA)
    began = time.process_time()
    with pytest.raises(ModelError, match=r"cannot be used \(MemoryError\)"):
        chat.bounded(lambda: render_jinja_template([[{"role": "user", "content": "x"}]], chat_template=template)[0][0])
    assert time.process_time() - began < 4
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize("template, said", [
    ("{{ 9 ** 9 ** 9 }}", "a power of numbers .line 1"), ("{% generation %}\n{{ 9**(9**9) }}{% endgeneration %}", "line 2"),
    ("{{ dict(**x) }}{{ dict(a=1, ** x) }} a ** b {# ** #}{{ '**' }}{{ 2 * 3 }}", ""), ("{% broken", ""), ("{{ '", ""),
])  # fmt: skip
def test_a_chat_template_takes_no_power_of_numbers(template: str, said: str) -> None:
    """One of them may take hours in which no other thread runs, the one that waits neither."""
    with pytest.raises(ModelError, match=said) if said else contextlib.nullcontext():
        chat.check(template)
