"""Where a model runs and in which number format: chosen from what the machine has, and said.

A GPU before an Apple GPU before the CPU; bfloat16 wherever the hardware computes it fast, since it
keeps float32's range; float16 on GPUs without it; float32 on CPUs without it.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from demur.errors import ModelError
from demur.run.processes import require_gpu

DEVICES = ("cuda", "mps", "cpu")
DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
}
FAST_BF16_FLAGS = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True)
class Placement:
    """Where a model runs.

    Attributes:
        device: "cuda", "mps" or "cpu".
        dtype: "float32", "bfloat16" or "float16".
        sentence: what was chosen and why, for the user.
    """

    device: str
    dtype: str
    sentence: str


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the CPU's feature flags as Linux names them; empty where they cannot be read."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def choose_device_and_dtype(device: str = "auto", dtype: str = "auto") -> Placement:
    """Choose where to run, and say why.

    Args:
        device: "auto", "cuda", "mps" or "cpu".
        dtype: "auto", or a format's name: "float32", "bfloat16", "float16", or "fp32" and so on.

    Raises:
        ModelError: a name is unknown, the device is not there, or it cannot compute the format.
        ConfigError: several processes were launched, and there is no GPU for this one.
    """
    if device != "auto" and device not in DEVICES:
        raise ModelError(
            f"There is no device named {device!r}.",
            f"Choose auto, {', '.join(DEVICES)}; CUDA_VISIBLE_DEVICES says which of several GPUs.",
        )
    if dtype != "auto" and dtype not in DTYPES:
        raise ModelError(
            f"There is no number format named {dtype!r}.",
            "Choose auto, float32, bfloat16 or float16.",
        )
    present = _devices()
    chosen = present[0] if device == "auto" else device
    if chosen not in present:
        raise ModelError(
            f"The device {chosen} was asked for, but PyTorch finds none here.",
            f"Leave the device at auto, which would take {present[0]}, or install the PyTorch "
            f"build that drives it.",
        )
    wanted = None if dtype == "auto" else DTYPES[dtype]
    return _on_cpu(wanted, asked=device == "cpu") if chosen == "cpu" else _on_gpu(chosen, wanted)


def _devices() -> list[str]:
    """Return the devices that are there, the best first."""
    import torch

    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def _on_gpu(device: str, wanted: str | None) -> Placement:
    import torch

    if device == "cuda":
        require_gpu(torch.cuda.device_count())
        name = torch.cuda.get_device_name()
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        name = "the Apple GPU"
        has_bf16 = torch.backends.mps.is_macos_or_newer(14, 0)
    if wanted == "bfloat16" and not has_bf16:
        raise ModelError(
            f"bfloat16 was asked for, but {name} cannot compute it.",
            "Leave the number format at auto, or choose float16 or float32.",
        )
    if wanted is not None:
        return Placement(device, wanted, f"Running on {name} in {wanted}, as asked.")
    if has_bf16:
        return Placement(device, "bfloat16", f"Running on {name} in bfloat16.")
    return Placement(
        device, "float16", f"Running on {name} in float16, since it does not compute bfloat16."
    )


def _on_cpu(wanted: str | None, *, asked: bool) -> Placement:
    why = "as asked" if asked else "since there is no GPU"
    fast = [flag for flag in FAST_BF16_FLAGS if flag in cpu_flags()]
    if wanted is not None:
        slow = wanted != "float32" and not (wanted == "bfloat16" and fast)
        note = f"; this {platform.machine()} CPU is slow at it" if slow else ""
        return Placement("cpu", wanted, f"Running on the CPU, {why}, in {wanted}, as asked{note}.")
    if fast:
        return Placement(
            "cpu",
            "bfloat16",
            f"Running on the CPU, {why}, in bfloat16, which it has {fast[0]} for.",
        )
    return Placement(
        "cpu",
        "float32",
        f"Running on the CPU, {why}, in float32, since it has no fast bfloat16.",
    )
