"""Settings: strict YAML, overrides, ranges, presets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import settings
from edge.errors import SettingsError, TemploraError
from edge.learning.learner import WARMUP
from edge.learning.optimizer import BETAS, EPS
from edge.values import amounts


@pytest.mark.parametrize("name", settings.preset_names())
def test_every_preset_loads_and_describes_itself(name: str) -> None:
    loaded = settings.load(name)
    assert settings.description(name).endswith(".")
    assert settings.from_dict(loaded.to_dict()) == loaded


def test_paper_preset_has_the_published_values() -> None:
    paper = settings.load("paper")
    assert (paper.adapter.rank, paper.adapter.alpha, paper.adapter.dropout) == (64, 64, 0.05)
    learn = paper.learn
    assert (learn.epochs, learn.lr, BETAS, EPS) == (2, 5e-5, (0.9, 0.999), 1e-7)
    assert (paper.window.chunk, paper.window.size, WARMUP) == (2048, 4096, 2)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("learn.lrr=1", "did you mean 'lr'"),
        ("lern.lr=1", "did you mean 'learn'"),
        ("learn.lr=fast", "a number"),
        ("learn.lr=.nan", "finite"),
        ("learn.epochs=0", "at least 1"),
        ("learn.epochs=1.5", "whole number"),
        ("learn.mode=sometimes", "all, read, none"),
        ("window.size=512", "window larger"),
        ("window.chunk=0", "at least 1"),
        ("adapter.layers=bottom:3", "top:N"),
        ("adapter.dropout=1", "dropout < 1"),
        ("generate.top_p=0", "top_p"),
        ("budget=lots", "6GiB"),
        ("learn.replay=1", "no such setting any more: gained nothing"),
        ("compute.loss=plain", "compute.plain=[loss]"),
        ("compute.kept=3", "compute.weights=some:N"),
        ("compute.weights=some:0", "some:N with N blocks"),
        ("learn.seed=1", "seed is one for all"),
        ("learn.warmup_steps=4", "no such setting any more: has one good value"),
        ("learn.guard=full", "one of on, off"),
        ("base.offline=true", "TEMPLORA_OFFLINE=1"),
        ("compute.plain=[logits]", "some of loss, lora, first_epoch"),
        ("compute.plain=3", "a list"),
        ("compute.threads=100000", "to 1024"),
        ("adapter.alpha=1e308", "no larger than float32 holds"),
        ("learn.lr=1" + "0" * 400, "finite"),
        ("base=3", "mapping"),
        ("nonsense", "section.key=value"),
    ],
)
def test_wrong_overrides_say_what_is_right(assignment: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load("economical", [assignment])
    assert words in caught.value.line()
    assert "\n" not in caught.value.line()


def test_a_preset_of_before_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("window: {chunk: 512, size: 1024}\nlearn: {lr: 1.0e-4, weight_decay: 0}\n", "utf-8")
    with pytest.raises(SettingsError) as caught:
        settings.load(path)
    assert "learn.weight_decay" in caught.value.line() and "gained nothing" in caught.value.line()
    assert "remove it" in caught.value.line()


def test_what_is_no_setting_any_more_is_none() -> None:
    known = {
        f"{section}.{key}"
        for section, keys in settings.load().to_dict().items()
        if isinstance(keys, dict)
        for key in keys
    }
    assert settings.REMOVED and not known & set(settings.REMOVED)
    single = sum(not isinstance(value, dict) for value in settings.load().to_dict().values())
    assert len(known) + single <= 41  # one more wants one less


@pytest.mark.parametrize(
    ("weights", "copied"), [("auto", 0), ("packed", 0), ("cached", None), ("some", None), ("some:3", 3)]
)
def test_how_many_blocks_have_copies(weights: str, copied: int | None) -> None:
    assert settings.load("economical", [f"compute.weights={weights}"]).compute.copied == copied


def test_overrides_apply_in_order() -> None:
    loaded = settings.load("economical", ["learn.lr=1e-4", "learn.lr=3e-4", "generate.stop=[END, '.']"])
    assert loaded.learn.lr == 3e-4
    assert loaded.generate.stop == ("END", ".")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("window: {chunk: 8}", "window.size"),
        ("learn: {lr: 1}", "no 'window'"),
        ("[1, 2]", "mapping"),
        ("", "nothing"),
        ("window: {chunk: 8, size: 16\nlearn: {", "YAML"),
        ("window: {chunk: 8, size: 16}\nspeed: fast", "unknown key 'speed'"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=words):
        settings.load(path)


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="did you mean 'economical'"):
        settings.load("econmical")


@given(st.text(max_size=60))
def test_no_text_breaks_the_yaml_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        settings.load(path)
    except TemploraError:
        return
    raise AssertionError("random text can not be a whole preset")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("6GiB", 6 << 30), ("800MB", 800_000_000), ("1.5g", 1_500_000_000), (4096, 4096), ("2 KiB", 2048)],
)
def test_amounts_of_memory(text: object, expected: int) -> None:
    assert amounts.parse_bytes(text) == expected
