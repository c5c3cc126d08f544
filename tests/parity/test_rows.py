"""A step's small kernels under Triton's interpreter, each against plain float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edge.measure import doctor
from edge.model import rows

EPS = 1e-5


def rms(x: Tensor, scale: Tensor, eps: float = EPS) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * scale


def near(ours: Tensor, wanted: Tensor) -> bool:
    return ours.shape == wanted.shape and float((ours.double() - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("size", [96, 128, 640])
def test_a_sum_and_the_norm_of_it(size: int) -> None:
    torch.manual_seed(0)
    scale, own = torch.randn(size), torch.randn(size)
    for count in (1, 3):
        for row, after in ((None, None), (torch.randn(count, size), None), (torch.randn(count, size), (own, 1e-3))):
            hidden = torch.randn(count, size)
            wanted = hidden.double()
            if row is not None:
                wanted = wanted + (row.double() if after is None else rms(row.double(), own.double(), 1e-3))
            out = rows.add_and_norm(hidden, row, after, (scale, EPS))
            assert near(hidden, wanted)
            assert near(out, rms(wanted, scale.double()))


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(n, heads, D) rotated; `sin` carries the sign."""
    return x * cos[:, None] + x.roll(x.shape[-1] // 2, -1) * sin[:, None]


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("heads", "groups", "size"), [(4, 4, 16), (6, 2, 24), (8, 1, 32)])
def test_queries_and_keys_are_turned_and_kept(heads: int, groups: int, size: int, normed: bool) -> None:
    torch.manual_seed(0)
    places = 10
    for count in (1, 3):
        query, key, value = (torch.randn(count, many * size) for many in (heads, groups, groups))
        cos, sin = torch.randn(count, size), torch.randn(count, size)
        at = torch.tensor([3, 9, 14][:count])
        norms = ((torch.randn(size), EPS), (torch.randn(size), 1e-3)) if normed else None
        whole = torch.randn(2, 4, groups, places, size)  # of which some texts have ended
        held = whole[:, :count]
        wanted = held.double().clone()
        q, k = query.double().view(count, heads, size), key.double().view(count, groups, size)
        if norms is not None:
            q, k = (rms(x, norm[0].double(), norm[1]) for x, norm in zip((q, k), norms, strict=True))
        for text in range(count):
            slot = int(at[text]) % places
            wanted[0, text, :, slot] = turned(k, cos.double(), sin.double())[text]
            wanted[1, text, :, slot] = value.double().view(count, groups, size)[text]
        out = rows.turn_and_keep(query, key, value, (cos, sin), at, norms, held)
        assert near(out, turned(q, cos.double(), sin.double()).flatten(1))
        assert near(held, wanted)


@pytest.mark.parametrize(("heads", "groups", "size", "softcap"), [(4, 4, 16, None), (6, 2, 24, 5.0)])
def test_attention_to_what_is_held(heads: int, groups: int, size: int, softcap: float | None) -> None:
    """One part and several, one turn of each and several, rooms that are not full and sliding ones that are."""
    torch.manual_seed(0)
    for places, at in ((48, [0]), (200, [130, 20, 199]), (200, [1000]), (64 * rows.PARTS + 100, [2100])):
        count = len(at)
        query = torch.randn(count, heads * size)
        held = torch.randn(2, count, groups, places, size)
        ours = rows.attend(query, held, torch.tensor(at), 0.3, softcap)
        keys, values = held.double().unbind(0)
        scores = query.double().view(count, groups, heads // groups, size) @ keys.transpose(-1, -2) * 0.3
        if softcap is not None:
            scores = softcap * (scores / softcap).tanh()
        unseen = torch.arange(places) > torch.tensor(at)[:, None]
        scores.masked_fill_(unseen[:, None, None], -torch.inf)
        assert near(ours, (scores.softmax(-1) @ values).flatten(1))


def test_what_an_adapter_makes_first() -> None:
    torch.manual_seed(0)
    for count, width, rank in ((1, 64, 8), (3, 1100, 5), (8, 2048, 3)):
        x, a = torch.randn(count, width), torch.randn(rank, width)
        assert near(rows.times_a(x, a), x.double() @ a.double().T)


def test_a_gate() -> None:
    gate, up = torch.randn(3, 700), torch.randn(3, 700)
    wanted = torch.nn.functional.silu(gate.double()) * up.double()
    assert near(rows.silu_times(gate, up), wanted)


def test_what_the_kernels_would_misread_is_refused() -> None:
    query, row = torch.randn(1, 64), torch.randn(1, 32)
    at = torch.tensor([3])
    apart = torch.randn(2, 1, 2, 16, 10).transpose(3, 4)
    with pytest.raises(ValueError, match="in one piece"):
        rows.attend(query, apart, at, 0.3)
    half = torch.randn(1, 8)
    with pytest.raises(ValueError, match="8 of 16 values"):
        rows.turn_and_keep(query, row, row, (half, half), at, None, apart.contiguous())


def test_doctor_tries_them(monkeypatch: pytest.MonkeyPatch) -> None:
    result, error = doctor.decoding_kernels("cpu")
    assert result.startswith("work, relative error") and 0 < error < 0.02
    own = rows.times_a
    monkeypatch.setattr(rows, "times_a", lambda x, a: own(x, a) * 1.2)
    with pytest.raises(RuntimeError, match="off by"):
        doctor.decoding_kernels("cpu")
