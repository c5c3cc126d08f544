"""What quantisation broke, taken back by a starting adapter.

Owns: calibration text, the fit of each layer's error, distillation, the file in the 4-bit folder that holds the result.
Does not know: documents, sessions, how a folder is quantised.
Units: tokens, nats. Needs the full-precision weights once per base, one block's at a time (`blockwise.py`).

1. The model writes its own calibration text, sampled at temperature 1 from its BOS token (as LLM-QAT does, arXiv
   2305.17888): none ships, and none is favoured.
   The full model does where all its weights fit in memory, else the 4-bit one: every token needs all weights, so one
   block at a time would read them all for each. Demo, rank 64, 8 texts of 128 tokens, one seed, nats after distilling
   by the full model's text and by the 4-bit one's: 0.111, 0.106 on 16 other texts of the full model (0.305 before);
   0.104, 0.093 on the 4-bit one's (0.260); but 0.021, 0.027 on a book (0.086).
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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import settings as settings_module
from ..errors import SettingsError, no_numbers
from ..machine.allocator import release_memory
from ..machine.device import matmul_units
from ..memory import conversion, families, repairing
from ..memory.sizes import slice_rows
from ..model import base as bases
from ..model.adapter import Adapter
from ..model.base import Base, weight_of
from ..model.loss import Head
from ..model.tended import tended_blocks
from ..settings import AdapterSettings
from ..store.sources import Source, sha256_file
from ..values.amounts import format_bytes
from ..weights import originals, tensorfile
from ..weights.pieces import Original, Whole
from . import blockwise
from .blockwise import hidden_states

FILE = "repair.safetensors"
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


def needs(settings: RepairSettings) -> repairing.Needs:
    """What the planner has to know of a repair."""
    return repairing.Needs(settings.rank, settings.texts + settings.held_out, settings.tokens)


def make(
    folder: Path,
    source: Source,
    settings: RepairSettings,
    progress: Progress = lambda said: None,
    budget: int | None = None,
) -> dict[str, Any]:
    """Writes the repair of a 4-bit folder into it.

    Args:
        source: the full-precision weights that the folder was made from.
        budget: bytes that the process may hold.

    Returns:
        What the folder's manifest says of it under `repair`: file, sha256, rank, how it was made, and the mean KL
        divergence (nats a token) from the full model on held-out texts, before, after the fit, and after distillation.

    Raises:
        ModelError, DeviceError: as in `base.load`.
        BudgetError: the budget is too small.
        OSError: the file cannot be written.
    """
    start = time.perf_counter()
    with conversion.capped(budget, "repairing"):
        kept, apart, writer = _made(folder, source, settings, progress, budget)
    tensorfile.write(folder / FILE, lambda: iter(kept.items()))
    return {
        "repair": {
            "file": FILE,
            "sha256": sha256_file(folder / FILE),
            "made_with": dataclasses.asdict(settings),
            "text_by": writer,
            "nats_from_full": apart,
            "seconds": time.perf_counter() - start,
        }
    }


def _made(
    folder: Path, source: Source, settings: RepairSettings, progress: Progress, budget: int | None
) -> tuple[dict[str, Tensor], dict[str, float], str]:
    """A and B of every layer, how far from the full model each step left it, and which model wrote the texts."""
    full, is_whole = _full_weights(source, settings, progress, budget)
    quantized = bases.load(
        Source("folder", folder, str(folder)), settings_module.load("economical", ["compute.weights=packed"])
    )
    parts = blockwise.groups(quantized)
    together = is_whole or len(parts) == 1 < len(quantized.blocks)
    if together and not is_whole:
        progress(f"the blocks of a {quantized.config.model_type} model are read together: all full weights are held")
    way, _ = repairing.fit(source, needs(settings), budget, together=together)
    progress(f"sampling calibration text from the {'full' if way.full else '4-bit'} model ...")
    texts = _texts(quantized, full, way, settings)
    progress("fitting every layer's error ...")
    count = settings.texts
    found: dict[str, Tensor] = {}
    wanted = blockwise.read(quantized, full, texts, count, partial(_fit, found, settings.rank), parts)
    del full
    release_memory()
    apart = {"before": divergence(None, quantized, texts[count:], wanted[count:])}
    own = AdapterSettings(rank=settings.rank, alpha=float(settings.rank), start="fresh")
    adapter = Adapter(quantized, own, seed=settings.seed)
    try:
        adapter.restore(_Fitted(adapter, found))
        apart["fitted"] = divergence(adapter, quantized, texts[count:], wanted[count:])
        distill(adapter, texts[:count], wanted[:count], settings, progress)
        apart["distilled"] = divergence(adapter, quantized, texts[count:], wanted[count:])
        kept = {name: parameter.detach().to(torch.float16) for name, parameter in adapter.named_parameters()}
        return kept, apart, "full" if way.full else "4-bit"
    finally:
        adapter.discard()


def _texts(base: Base, full: Mapping[str, Original], way: repairing.Way, settings: RepairSettings) -> Tensor:
    """The texts that the repair is made from, then those that it is measured on; dequantised copies are kept after it,
    where they are to be.
    """
    write = partial(sample, base, settings.texts + settings.held_out, settings.tokens, way, seed=settings.seed)
    if way.full:
        with blockwise.whole(base, full, wide=way.cached):
            texts = write()
        release_memory()
    if way.cached:
        base.cache_weights()
    return texts if way.full else write()


def _full_weights(
    source: Source, settings: RepairSettings, progress: Progress, budget: int | None
) -> tuple[Mapping[str, Original], bool]:
    """The full weights by name, and whether all of them are in memory.

    Raises:
        BudgetError: they have to be, and the budget is too small for that.
    """
    try:
        found = originals.of(source.path).tensors
        release_memory()  # reading a GGUF header takes many times what it keeps
        return found, False
    except Whole as why:
        _, predicted = repairing.fit(source, needs(settings), budget, together=True)
        takes = "" if predicted is None else f", which takes about {format_bytes(predicted.peak())}"
        progress(f"{source.reference} is loaded whole ({why}){takes}")
    model = bases.load(source, settings_module.load("economical", ["base.precision=full"])).model
    return {
        name: Original(tuple(weight.shape), partial(Tensor.detach, weight)) for name, weight in model.named_parameters()
    }, True


class _Fitted:
    """What was fitted, in the adapter's shapes: a layer smaller than the rank has fewer columns, one without an error
    stays as the adapter begins. Each is there once.
    """

    def __init__(self, adapter: Adapter, found: dict[str, Tensor]) -> None:
        self._fresh = dict(adapter.named_parameters())
        self._found = found

    def __getitem__(self, name: str, /) -> Tensor:
        fresh = self._fresh[name].detach()
        tensor = self._found.pop(name, None)
        if tensor is None:
            return fresh
        padded = torch.zeros_like(fresh)
        padded[: tensor.shape[0], : tensor.shape[1]] = tensor
        return padded


@torch.inference_mode()
def sample(base: Base, count: int, length: int, way: repairing.Way, *, seed: int = 0) -> Tensor:
    """(count, length) token ids that the model itself writes at temperature 1, each text from its BOS token on."""
    from transformers import DynamicCache

    generator = torch.Generator(base.device.name).manual_seed(seed)
    first = base.bos_id
    first = min(base.eos_ids, default=0) if first is None else first
    head = base.head
    if way.cached:
        head = dataclasses.replace(head, weight=head.weight.to(base.device.torch_dtype))  # widened once
    texts = []
    capped = getattr(base.config, "attn_logit_softcapping", None)
    batch = 1 if capped else way.rows  # that attention takes one text at a time
    for start in range(0, count, batch):
        rows = min(batch, count - start)
        token = torch.full((rows, 1), first, device=base.device.name)
        text = [token]
        cache = DynamicCache(config=base.config)
        for _ in range(length - 1):
            with matmul_units(base.device):
                hidden = base.decoder(input_ids=token, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
                logits = head.logits(hidden)
            chances = torch.rand(rows, dtype=torch.float64, device=logits.device, generator=generator)
            token = torch.stack([_drawn(*pair) for pair in zip(logits, chances, strict=True)])
            text.append(token)
        texts.append(torch.cat(text, 1))
    return torch.cat(texts).cpu()


def _drawn(logits: Tensor, chance: Tensor) -> Tensor:
    """(1,) the token of (V,) logits that a number from 0 to 1 stands for."""
    sums = torch.softmax(logits, -1).cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(sums, chance * sums[-1:]).clamp_(max=len(sums) - 1)


@torch.no_grad()
def low_rank(error: Tensor, moment: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank), so that B A is nearest to `error` (out, in) on inputs with that second moment,
    which is damped in place.

    Columns are in the order of their weight: the first r of them are the best product of rank r.
    """
    moment.diagonal().add_(DAMPING * moment.diagonal().mean() + 1e-12)
    root = torch.linalg.cholesky(moment)  # root @ root.T = moment
    with torch.random.fork_rng():
        torch.manual_seed(0)
        most = min(error.shape)
        u, s, v = torch.svd_lowrank(error @ root, q=min(most, rank + 16), niter=4)
    rank = min(rank, most)
    a = torch.linalg.solve_triangular(root, v[:, :rank].T, upper=False, left=False)  # V^T root^-1
    scale = a.norm(dim=1, keepdim=True) / ROW_NORM
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return a / scale, u[:, :rank] * s[:rank] * scale.T


def _fit(found: dict[str, Tensor], rank: int, name: str, layer: nn.Linear, weight: Tensor, moment: Tensor) -> None:
    """Adds the low-rank product of a layer's error, by `LAYER.lora_A` and `LAYER.lora_B`.

    Raises:
        ModelError: the layer's inputs are not numbers, though its weights are.
    """
    if not families.adapts(name):
        return
    if not bool(torch.isfinite(moment).all()):
        raise no_numbers()
    error = weight.float() - weight_of(layer, torch.float32)
    a, b = low_rank(error, moment, rank)
    found |= {f"{name}.lora_A": a, f"{name}.lora_B": b}


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
                hidden = hidden_states(base, texts[index])
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
                hidden = hidden_states(base, text)
            else:
                with adapter.active():
                    hidden = hidden_states(base, text)
            total += float(_divergence(hidden, states.to(hidden), base.head, backward=False)[0])
    return total / len(texts)


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
    hidden: Tensor, wanted: Tensor, head: Head, *, backward: bool, rows: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mean KL(full || this) over positions, and its gradient with respect to `hidden` (T, H)."""
    total = hidden.new_zeros(())
    grad = torch.zeros_like(hidden)
    for at in _slices(len(hidden), rows or slice_rows(len(head.weight))):
        theirs = _log_chances(head.logits(wanted[at]))
        ours = _log_chances(head.logits(hidden[at]))
        p = theirs.exp()
        total += torch.dot(p.view(-1), theirs.sub_(ours).view(-1))
        if backward:
            slope = ours.exp_().sub_(p)
            if head.softcap is not None:
                slope.mul_(1.0 - (head.logits(hidden[at]) / head.softcap).square_())
            grad[at] = head.product(slope, hidden.dtype).mul_(head.scale / len(hidden))
    return total / len(hidden), grad


def _log_chances(logits: Tensor) -> Tensor:
    """log softmax of each row, in place."""
    return logits.sub_(logits.logsumexp(-1, keepdim=True))


def _slices(count: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))
