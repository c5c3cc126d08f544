"""Block attention against the dense mask, and whole models against transformers' own attention."""

from __future__ import annotations

import pytest
import torch

from edge.model import attention
from tests import tiny

SHAPES = [  # heads, groups, queries, keys, window, softcap
    (4, 1, 300, 300, 70, None),
    (4, 2, 300, 300, 300, 5.0),
    (2, 2, 1, 90, 40, None),
    (2, 1, 1, 90, 90, 5.0),
    (4, 2, 30, 90, 40, None),
    (4, 2, 30, 90, 90, None),
    (2, 1, 600, 600, 512, 30.0),
]


@pytest.mark.parametrize(("heads", "groups", "queries", "keys", "window", "softcap"), SHAPES)
def test_equals_the_dense_mask(
    heads: int, groups: int, queries: int, keys: int, window: int, softcap: float | None
) -> None:
    torch.manual_seed(0)
    q = torch.randn(1, heads, queries, 16, requires_grad=True)
    k, v = (torch.randn(1, groups, keys, 16, requires_grad=True) for _ in "kv")
    upstream = torch.randn(1, queries, heads, 16)
    ours = attention.attend(
        None, q, k, v, scaling=0.3, sliding_window=window if window < keys else None, softcap=softcap
    )[0]
    plain = attention.dense(q, k, v, window, 0.3, softcap).transpose(1, 2)
    exact = attention.dense(q.double(), k.double(), v.double(), window, 0.3, softcap).transpose(1, 2)
    grads = [torch.autograd.grad(out, (q, k, v), upstream.to(out.dtype)) for out in (ours, plain, exact)]
    for mine, theirs, truth in zip((ours, *grads[0]), (plain, *grads[1]), (exact, *grads[2]), strict=True):
        error = float((theirs - truth).detach().abs().max())
        assert float((mine - truth).detach().abs().max()) <= 4 * error + 1e-7


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_models_compute_what_transformers_computes(architecture: str) -> None:
    changes = {"sliding_window": 16} if architecture in ("mistral", "phi3") else {}
    if architecture in ("qwen2", "qwen3"):
        changes = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
    ids = torch.arange(60)[None] % 300
    model = tiny.model(architecture, **changes)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(ids).logits
        assert attention.use(model)
        assert float((model(ids).logits - expected).abs().max()) < 1e-4 * float(expected.abs().max())
        step = model(ids[:, :40], use_cache=True)
        for i in range(40, 60):
            step = model(ids[:, i : i + 1], past_key_values=step.past_key_values)
        assert float((step.logits[0, -1] - expected[0, -1]).abs().max()) < 1e-4 * float(expected.abs().max())


def test_other_architectures_keep_their_own() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50))
    assert not attention.use(model)
    assert model.config._attn_implementation != attention.NAME
