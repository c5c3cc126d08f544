"""Choosing the next token: transformers' own processors are the reference."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import generation as hf

from edge.errors import ModelError
from edge.model.picking import Picker
from edge.settings import GenerateSettings
from tests.waits import Waits

LOGITS = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 2
NONE = torch.empty(0, dtype=torch.int64)


def test_the_penalty_is_transformers_own() -> None:
    picker = Picker(GenerateSettings(temperature=0.0, repetition_penalty=1.9), torch.tensor([7]))
    picker.begin([3, 9])
    said = [3, 9]
    for position in range(30):
        scores = hf.RepetitionPenaltyLogitsProcessor(1.9)(torch.tensor([said]), LOGITS[None].clone())[0]
        scores[7] = -math.inf
        token, nats = picker.pick(LOGITS, position)
        assert token == int(scores.argmax())
        assert nats == pytest.approx(-float(LOGITS.log_softmax(-1)[token]), abs=1e-5)
        said.append(token)
    assert len(set(said)) > 4


def test_what_is_said_in_a_new_text_is_penalised_there_alone() -> None:
    picker = Picker(GenerateSettings(temperature=0.0, repetition_penalty=5.0), NONE)
    first, _ = picker.pick(LOGITS, 0)
    assert picker.pick(LOGITS, 1)[0] != first
    picker.begin(())
    assert picker.pick(LOGITS, 0)[0] == first


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    settings = GenerateSettings(temperature=0.8, top_k=6, top_p=0.9, repetition_penalty=1.0)
    picker = Picker(settings, NONE)
    scores = LOGITS[None] / 0.8
    scores = hf.TopPLogitsWarper(0.9)(NONE[None], hf.TopKLogitsWarper(6)(NONE[None], scores))
    wanted = scores.softmax(-1)[0]
    draws = 4000
    counts = torch.zeros(50)
    for position in range(draws):
        counts[picker.pick(LOGITS, position)[0]] += 1
    assert set(counts.nonzero()[:, 0].tolist()) <= set(wanted.nonzero()[:, 0].tolist())
    spread = (draws * wanted * (1 - wanted)).sqrt()
    assert ((counts - draws * wanted).abs() <= 4 * spread + 1e-6).all()


def test_a_position_draws_the_same_token_whatever_came_before() -> None:
    settings = GenerateSettings(temperature=1.0, repetition_penalty=1.0)
    one = Picker(settings, NONE, 3)
    drawn = [one.pick(LOGITS, position)[0] for position in range(20)]
    other = Picker(settings, NONE, 3)
    assert [other.pick(LOGITS, position)[0] for position in reversed(range(20))] == drawn[::-1]
    assert len(set(drawn)) > 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(temperature: float, bad: float) -> None:
    logits = LOGITS.clone()
    logits[5] = bad
    with pytest.raises(ModelError):
        Picker(GenerateSettings(temperature=temperature, repetition_penalty=1.0), NONE).pick(logits, 0)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_token_is_told_in_one_copy(temperature: float) -> None:
    """Nothing waits for the logits but what tells the token and its nats; a draw is made on the host."""
    settings = GenerateSettings(temperature=temperature, top_k=6, top_p=0.9, repetition_penalty=1.2)
    picker = Picker(settings, torch.tensor([7]))
    picker.begin([3, 9])
    picker.pick(LOGITS, 0)
    with Waits(ids=True) as waits:
        picker.pick(LOGITS, 1)
    assert waits.found == ["_local_scalar_dense"] * (temperature > 0)
