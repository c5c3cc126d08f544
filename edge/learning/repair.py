"""What quantisation broke, taken back by a starting adapter.

Owns: calibration text, the fit of each layer's error, distillation, the file in the 4-bit folder that holds the result.
Does not know: documents, sessions, how a folder is quantised.
Units: tokens, nats. Needs the full-precision weights, once per base.

1. The full model writes its own calibration text, sampled at temperature 1 from its BOS token (as LLM-QAT does, arXiv
   2305.17888): none ships, and none is favoured.
2. Every linear layer's error E = W - NF4(W) is met by the product B A of the adapter's rank that is nearest to it on
   that layer's own inputs: E L = U S V^T for L L^T = mean(x x^T), B A = U_r S_r V_r^T L^-1 (LoftQ, arXiv 2310.08659,
   with the inputs' second moments as the metric).
3. All layers together are distilled: the mean KL divergence of the repaired model from the full one, over that text.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import settings as settings_module
from ..errors import SettingsError
from ..machine.allocator import release_memory
from ..machine.device import matmul_units
from ..model import base as bases
from ..model.adapter import Adapter
from ..model.base import Base, weight_of
from ..model.forward import tended_blocks
from ..model.loss import Head
from ..settings import AdapterSettings
from ..store.sources import Source, sha256_file
from ..weights import tensorfile

FILE = "repair.safetensors"
AT_ONCE = 64  # texts that the model writes side by side
DAMPING = 1e-2  # of the mean second moment, added to every input's: directions that the text has not shown
ROW_NORM = math.sqrt(1 / 3)  # of a fresh adapter's A, so that learning continues at the usual pace
Progress = Callable[[str], None]


@dataclass(frozen=True)
class RepairSettings:
    """How a repair is made; no part of a run's settings.

    `rank`: of each layer's product. `texts` of `tokens`: the calibration text. `epochs`, `lr`: of the distillation (0
    epochs: the fit alone). `held_out`: texts that it is measured on, and not made from.
    """

    rank: int = 64
    texts: int = 40
    tokens: int = 512
    epochs: int = 1
    lr: float = 1e-4
    held_out: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.rank >= 1:
            raise SettingsError(f"a repair's rank is {self.rank}", "at least 1", "change it")
        if not self.texts >= 1:
            raise SettingsError(f"a repair's texts are {self.texts}", "at least 1", "change it")
        if not self.tokens >= 2:
            raise SettingsError(f"a repair's texts hold {self.tokens} tokens", "at least 2", "change it")
        if not self.epochs >= 0:
            raise SettingsError(f"a repair's epochs are {self.epochs}", "0 or more", "change it")
        if not self.lr > 0:
            raise SettingsError(f"a repair's learning rate is {self.lr}", "more than 0", "change it")


def make(
    folder: Path, source: Source, settings: RepairSettings, progress: Progress = lambda said: None
) -> dict[str, Any]:
    """Writes the repair of a 4-bit folder into it.

    Args:
        source: the full-precision weights that the folder was made from.

    Returns:
        What the folder's manifest says of it under `repair`: file, sha256, rank, how it was made, and the mean KL
        divergence (nats a token) from the full model on held-out texts, before, after the fit, and after distillation.

    Raises:
        ModelError, DeviceError: as in `base.load`.
        OSError: the file cannot be written.
    """
    start = time.perf_counter()
    chosen = settings_module.load("economical", ["compute.weights=cached"])
    full = bases.load(source, chosen.override(["base.precision=full"]))
    progress("sampling calibration text ...")
    texts = sample(full, settings.texts + settings.held_out, settings.tokens, seed=settings.seed)
    progress("measuring every layer's inputs ...")
    moments, wanted = observe(full, texts)
    weights = {name: linear.weight.detach() for name, linear in full.linears()}
    del full
    quantized = bases.load(Source("folder", folder, str(folder)), chosen)
    count = settings.texts
    apart = {"before": divergence(None, quantized, texts[count:], wanted[count:])}
    progress("fitting every layer's error ...")
    found = fit(weights, quantized, moments, settings.rank)
    del weights, moments
    release_memory()
    quantized.cache_weights()
    own = AdapterSettings(rank=settings.rank, alpha=float(settings.rank), start="fresh")
    adapter = Adapter(quantized, own, seed=settings.seed)
    try:
        adapter.restore(_padded(adapter, found))
        apart["fitted"] = divergence(adapter, quantized, texts[count:], wanted[count:])
        distill(adapter, texts[:count], wanted[:count], settings, progress)
        apart["distilled"] = divergence(adapter, quantized, texts[count:], wanted[count:])
        kept = {name: tensor.to(torch.float16) for name, tensor in adapter.snapshot().items()}
    finally:
        adapter.discard()
    tensorfile.write(folder / FILE, lambda: iter(kept.items()))
    return {
        "repair": {
            "file": FILE,
            "sha256": sha256_file(folder / FILE),
            "made_with": dataclasses.asdict(settings),
            "nats_from_full": apart,
            "seconds": time.perf_counter() - start,
        }
    }


def _padded(adapter: Adapter, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """What was fitted, in the adapter's shapes: a layer smaller than the rank has fewer columns."""
    state = adapter.snapshot()
    for name, tensor in found.items():
        part = state[name].zero_()
        part[: tensor.shape[0], : tensor.shape[1]] = tensor
    return state


@torch.inference_mode()
def sample(base: Base, count: int, length: int, *, seed: int = 0) -> Tensor:
    """(count, length) token ids that the model itself writes at temperature 1, each text from its BOS token on."""
    from transformers import DynamicCache

    generator = torch.Generator(base.device.name).manual_seed(seed)
    first = base.bos_id
    first = min(base.eos_ids, default=0) if first is None else first
    head = dataclasses.replace(base.head, weight=base.head.weight.to(base.device.torch_dtype))  # widened once
    texts = []
    capped = getattr(base.config, "attn_logit_softcapping", None)
    batch = 1 if capped else AT_ONCE  # that attention takes one text at a time
    for start in range(0, count, batch):
        rows = min(batch, count - start)
        token = torch.full((rows, 1), first, device=base.device.name)
        text = [token]
        cache = DynamicCache(config=base.config)
        for _ in range(length - 1):
            with matmul_units(base.device):
                hidden = base.decoder(input_ids=token, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
                logits = head.logits(hidden)
            sums = torch.softmax(logits, -1).cumsum(-1, dtype=torch.float64)
            chance = torch.rand(rows, 1, dtype=torch.float64, device=sums.device, generator=generator)
            token = torch.searchsorted(sums, chance * sums[:, -1:]).clamp_(max=sums.shape[1] - 1)
            text.append(token)
        texts.append(torch.cat(text, 1))
    return torch.cat(texts).cpu()


@torch.inference_mode()
def observe(base: Base, texts: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What the full model makes of the texts: each linear layer's mean x x^T (in, in), and the (texts, tokens, H) last
    hidden states, on the CPU.
    """
    moments: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
            moments[name] = moments.get(name, 0) + (x.T @ x) / texts.numel()

        return see

    hooks = [linear.register_forward_pre_hook(watch(name)) for name, linear in base.linears()]
    try:
        with matmul_units(base.device), tended_blocks(base):
            states = [_hidden(base, text).cpu() for text in texts]
    finally:
        for hook in hooks:
            hook.remove()
    return moments, torch.stack(states)


@torch.no_grad()
def low_rank(error: Tensor, moment: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank), so that B A is nearest to `error` (out, in) on inputs with that second moment.

    Columns are in the order of their weight: the first r of them are the best product of rank r.
    """
    damped = moment + torch.eye(len(moment), device=moment.device) * (DAMPING * moment.diagonal().mean() + 1e-12)
    root = torch.linalg.cholesky(damped)  # root @ root.T = damped
    with torch.random.fork_rng():
        torch.manual_seed(0)
        most = min(error.shape)
        u, s, v = torch.svd_lowrank(error @ root, q=min(most, rank + 16), niter=4)
    rank = min(rank, most)
    a = torch.linalg.solve_triangular(root, v[:, :rank].T, upper=False, left=False)  # V^T root^-1
    scale = a.norm(dim=1, keepdim=True) / ROW_NORM
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return a / scale, u[:, :rank] * s[:rank] * scale.T


def fit(full: Mapping[str, Tensor], quantized: Base, moments: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The low-rank product of every layer's error, by `LAYER.lora_A` and `LAYER.lora_B`; `full`
    are the layers' weights.
    """
    found: dict[str, Tensor] = {}
    for name, linear in quantized.linears():
        plain = name.replace(".base_layer", "")
        error = full[plain].to(quantized.device.name).float() - weight_of(linear, torch.float32)
        a, b = low_rank(error, moments[plain].to(error.device), rank)
        found |= {f"{plain}.lora_A": a, f"{plain}.lora_B": b}
    return found


def distill(
    adapter: Adapter, texts: Tensor, wanted: Tensor, settings: RepairSettings, progress: Progress = lambda said: None
) -> None:
    """Trains the adapter until the quantised model says what the full one says of the texts.

    Args:
        texts: (N, T) token ids.
        wanted: (N, T, H) last hidden states of the full model.
    """
    base = adapter.base
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=0.0)
    order = torch.Generator().manual_seed(settings.seed)
    total = settings.epochs * len(texts)
    done = 0
    for _ in range(settings.epochs):
        for index in torch.randperm(len(texts), generator=order).tolist():
            for group in optimizer.param_groups:  # a short warm-up, then down to a tenth along a cosine
                fall = 0.55 + 0.45 * math.cos(math.pi * done / total)
                group["lr"] = settings.lr * min(1.0, (done + 1) / 8) * fall
            with adapter.active(), tended_blocks(base, checkpointing=True), matmul_units(base.device):
                hidden = _hidden(base, texts[index])
                loss: Tensor = _Divergence.apply(hidden, wanted[index].to(hidden), base.head)  # type: ignore[no-untyped-call]
                torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
            if done % 8 == 0:
                progress(f"distilling: {done} of {total} texts, {float(loss.detach()):.3f} nats apart")
    adapter.version += 1


@torch.inference_mode()
def divergence(adapter: Adapter | None, base: Base, texts: Tensor, wanted: Tensor) -> float:
    """Mean KL divergence (nats a token) of the model from the full one, over texts."""
    total = 0.0
    for text, states in zip(texts, wanted, strict=True):
        with matmul_units(base.device), tended_blocks(base):
            if adapter is None:
                hidden = _hidden(base, text)
            else:
                with adapter.active():
                    hidden = _hidden(base, text)
            total += float(_divergence(hidden, states.to(hidden), base.head, backward=False)[0])
    return total / len(texts)


def _hidden(base: Base, text: Tensor) -> Tensor:
    """(T, H) last hidden states."""
    hidden: Tensor = base.decoder(input_ids=text[None].to(base.device.name), use_cache=False).last_hidden_state[0]
    return hidden


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, wanted: Tensor, head: Head) -> Tensor:
        mean, grad = _divergence(hidden, wanted, head, backward=True)
        ctx.save_for_backward(grad)
        return mean

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * upstream[0], None, None


def _divergence(
    hidden: Tensor, wanted: Tensor, head: Head, *, backward: bool, rows: int = 256
) -> tuple[Tensor, Tensor]:
    """Mean KL(full || this) over positions, and its gradient with respect to `hidden` (T, H)."""
    total = hidden.new_zeros(())
    grad = torch.zeros_like(hidden)
    for at in _slices(len(hidden), rows):
        theirs = torch.log_softmax(head.logits(wanted[at]), -1)
        logits = head.logits(hidden[at])
        ours = torch.log_softmax(logits, -1)
        p = theirs.exp()
        total += (p * (theirs - ours)).sum()
        if backward:
            slope = ours.exp_().sub_(p)
            if head.softcap is not None:
                slope.mul_(1.0 - (logits / head.softcap).square_())
            grad[at] = head.product(slope, hidden.dtype).mul_(head.scale / len(hidden))
    return total / len(hidden), grad


def _slices(count: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))
