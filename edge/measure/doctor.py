"""What this machine can do: tried, not guessed.

Owns: the checks and their remedies. Does not know: models, texts, printing.
Units: bytes, FLOP/s. Each check runs the real thing once and reports what happened.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import ModelError, describe
from ..machine import device as devices
from ..machine import held, versions
from ..machine.device import Device
from ..values.amounts import format_bytes

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "optimum", "onnxruntime", "onnxruntime-gpu")
DECODING = "kernels that decode"  # what runs without them runs slower
_OPTIONAL = ("optimum", "onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class Check:
    """One thing that was tried: what came of it, and what to do where it failed."""

    name: str
    ok: bool
    result: str
    remedy: str = ""
    value: float | None = None


def examine() -> Iterator[Check]:
    """Runs every check, in order; no check raises."""
    yield Check("system", True, f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    for name in PACKAGES:
        yield _version(name)
    for name, version, lowest in versions.too_old():
        yield Check(name, False, f"{version} is too old", f"pip install '{name}>={lowest}'")
    import torch

    from ..weights import checkpoint

    checkpoint.quiet_libraries()
    available = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    for name in available:
        yield from _device_checks(name)
    yield _try("free memory", lambda: (format_bytes(held.available_memory()), float(held.available_memory())), "")
    yield _providers()


def examine_model(reference: str) -> Iterator[Check]:
    """What a model makes of kept keys and values whose beginning was dropped.

    Raises:
        ModelError, BudgetError, DeviceError, StorageError: it cannot be loaded (`session.load`).
    """
    from .. import session, settings
    from ..model import soundness

    chosen = settings.load("economical", ["learn.mode=none"])
    runtime = session.load(reference, settings=chosen, decodes=False)
    base = runtime.base
    found = soundness.measure(base, runtime.plan.settings)
    remedy = "learn.prefix=auto recomputes every window for this model"
    yield Check(f"{reference} windows", found.sound, found.said(), remedy, value=found.worse)
    count = base.sinks(chosen.window)
    first = "its BOS token" if count == 1 else f"the document's first {count} tokens, for it has no BOS"
    yield Check(f"{reference} sinks", True, f"every window begins with {first}", value=float(count))


def verify(reference: str) -> Iterator[Check]:
    """Reads every byte of a model's files again, and compares them with what was made or released.

    Raises:
        ModelError: there is no such model, or a file is another one.
    """
    from ..store import contents, embedded, sources
    from ..weights import checkpoint

    if reference in embedded.ENTRIES:
        released = embedded.entry(reference).sha256
        digest = embedded.check(embedded.entry(reference))
        if digest not in (None, released):
            raise ModelError(
                f"the file of {reference} has sha256 {digest[:12]}…", f"{released[:12]}…",
                f"templora models remove {reference}, then fetch it again",
            )  # fmt: skip
    found = sources.converted(sources.resolve(reference))  # a file whose sha256 is known is compared there
    manifest = checkpoint.read_manifest(found.path) if found.kind == "folder" else None
    if found.sha256:
        yield Check(f"{reference} file", True, f"sha256 {found.sha256}")
    if manifest is not None:
        digests = contents.check(found.path, manifest, whole=True)
        yield Check(f"{reference} folder", True, f"all {len(digests)} files are as they were made ({found.path})")
    elif found.kind == "folder":
        yield Check(f"{reference} folder", True, "not made by templora quantize: nothing to compare its files with")


def _device_checks(name: str) -> Iterator[Check]:
    import torch

    if name != "cpu":
        properties = torch.cuda.get_device_properties(name)
        shared = ", shares the CPU's memory: MemAvailable counts" if devices.is_unified(name) else ""
        free = torch.cuda.mem_get_info(name)[0]
        yield Check(name, True, f"{properties.name}, {format_bytes(free)} free{shared}", value=float(free))
    chosen = devices.choose(name)
    tried = [dataclasses.replace(chosen, dtype=dtype, matmul="float32") for dtype in ("float32", "bfloat16", "float16")]
    if chosen.matmul != "float32":
        tried.append(chosen)
    rates: dict[str, float] = {}
    for device in tried:
        check = _try(f"{name} matmul {device.units}", lambda device=device: _rate(device), "")  # type: ignore[misc]
        rates[device.units] = check.value or 0.0
        yield check
    best = max(rates.values())
    note = "" if rates[chosen.units] > 0.3 * best else f"; {max(rates, key=lambda k: rates[k])} measured faster"
    yield Check(f"{name} compute dtype", True, f"{chosen.units}{note}")
    nf4, adamw = (nf4_round_trip, eight_bit_step) if name == "cpu" else (alone(nf4_round_trip), alone(eight_bit_step))
    yield _try(f"{name} NF4 forward and backward", lambda: nf4(name), _nf4_remedy(name))
    yield _try(f"{name} 8-bit AdamW", lambda: adamw(name), "use --set learn.optimizer=adamw")
    if name != "cpu":
        slower = "tokens are decoded by torch's and bitsandbytes' kernels, only slower; pip install triton"
        yield _try(f"{name} {DECODING}", lambda: alone(decoding_kernels)(name), slower)


def alone(check: Callable[[str], tuple[str, float]]) -> Callable[[str], tuple[str, float]]:
    """The check of a device in a process of its own: bitsandbytes ends the one in which it has no kernels for a GPU."""

    def run(device: str) -> tuple[str, float]:
        program = f"import json; from {__name__} import {check.__name__} as run; print(json.dumps(run({device!r})))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout).strip().rpartition("\n")[2] or f"exit {done.returncode}")
        result, value = json.loads(done.stdout.splitlines()[-1])
        return str(result), float(value)

    return run


def nf4_round_trip(device: str) -> tuple[str, float]:
    """An NF4 linear layer's forward and the gradient of its input, compared with the dequantised weight's.

    Raises:
        RuntimeError: a kernel fails or gives other numbers.
    """
    import bitsandbytes as bnb
    import torch

    dtype = devices.choose(device).torch_dtype
    layer = bnb.nn.Linear4bit(128, 96, bias=False, compute_dtype=dtype, quant_type="nf4", compress_statistics=True)
    layer = layer.to(device)
    x = torch.randn(8, 128, device=device, dtype=dtype, requires_grad=True)
    y = layer(x)
    y.float().square().sum().backward()
    weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)
    expected = x.detach() @ weight.T
    error = float((y.detach() - expected).abs().max() / expected.abs().max())
    expected_grad = (2 * y.detach()) @ weight
    assert x.grad is not None
    error = max(error, float((x.grad - expected_grad).abs().max() / expected_grad.abs().max()))
    if not error < 0.05:
        raise RuntimeError(f"the kernel's result is off by {error:.1%}")
    return f"works, relative error {error:.1e}", error


def eight_bit_step(device: str) -> tuple[str, float]:
    """One step of bitsandbytes' 8-bit AdamW.

    Raises:
        RuntimeError: the step fails or leaves the parameter as it was.
    """
    import bitsandbytes as bnb
    import torch

    parameter = torch.nn.Parameter(torch.ones(128, 128, device=device))
    optimizer = bnb.optim.AdamW8bit([parameter], lr=1e-2)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = float((parameter.detach() - 1).abs().mean())
    if not 0 < moved < 0.1:
        raise RuntimeError(f"the step moved the parameter by {moved}")
    return "works", moved


def decoding_kernels(device: str) -> tuple[str, float]:
    """A row's norm and its product with A by our own kernels, compared with torch's.

    Raises:
        Exception: a kernel does not compile or run, which its compiler says in many ways.
        RuntimeError: it gives other numbers.
    """
    import torch

    from ..model import rows

    chosen = devices.choose(device)
    devices.make_current(chosen)  # where a kernel is started
    dtype = chosen.torch_dtype
    row, scale = (torch.randn(size, 256, device=device, dtype=dtype) for size in (3, 1))
    a = torch.randn(8, 256, device=device, dtype=dtype) / 16
    normed = rows.add_and_norm(row, None, None, (scale[0], 1e-6))
    expected = torch.nn.functional.rms_norm(row.float(), (256,), scale[0].float(), 1e-6) @ a.float().T
    error = float((rows.times_a(normed, a).float() - expected).abs().max() / expected.abs().max())
    if not error < 0.05:
        raise RuntimeError(f"a kernel's result is off by {error:.1%}")
    return f"work, relative error {error:.1e}", error


def _rate(device: Device) -> tuple[str, float]:
    rate = devices.matmul_rate(device, 4096 if device.kind != "cpu" else 512)
    return f"{rate / 1e9:.1f} GFLOP/s" if rate < 1e12 else f"{rate / 1e12:.1f} TFLOP/s", rate


def _providers() -> Check:
    try:
        import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return Check(
            "ONNX Runtime", False, "not installed", "only needed for the ONNX forward path: pip install onnxruntime"
        )
    return Check("ONNX Runtime providers", True, ", ".join(onnxruntime.get_available_providers()))


def _version(name: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        if name in _OPTIONAL:
            return Check(name, True, "not installed (optional)")
        return Check(name, False, "not installed", f"pip install {name}")


def _nf4_remedy(device: str) -> str:
    if platform.machine() == "aarch64" and device != "cpu":
        return (
            "bitsandbytes' aarch64 wheels hold no kernels for Jetson Orin (sm_87): build it from source with "
            "cmake -DCOMPUTE_BACKEND=cuda -DCOMPUTE_CAPABILITY=87, then pip install ."
        )
    return "reinstall bitsandbytes for this machine: pip install --force-reinstall bitsandbytes"


def _try(name: str, run: Callable[[], tuple[str, float]], remedy: str) -> Check:
    try:
        result, value = run()
    except Exception as error:  # a broken kernel may raise anything; that is what is being found out
        return Check(name, False, describe(error), remedy)
    return Check(name, True, result, value=value)
