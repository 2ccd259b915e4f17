"""Which device and precision to use; nothing is probed before it is asked for."""

from __future__ import annotations

import re

import torch

from clapkit.errors import ClapkitError


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` is the GPU when there is one, else the CPU.

    Raises:
        ClapkitError: a GPU was asked for and none can be used, or the name is unknown.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ClapkitError(f"device '{name}': unknown; use auto, cpu or cuda.")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ClapkitError(f"device '{name}': no usable GPU on this machine; use --device cpu or auto.")
    return device


def describe_device(device: torch.device) -> str:
    """A short name for people: the GPU's, or the CPU with its thread count."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def choose_dtype(device: torch.device, precision: str) -> torch.dtype:
    """``auto`` is bfloat16 where the hardware multiplies it natively, else float32.

    Raises:
        ClapkitError: the precision is none of ``auto``, ``float32`` and ``bf16``.
    """
    if precision not in ("auto", "float32", "bf16"):
        raise ClapkitError(f"precision '{precision}': unknown; use float32, bf16 or auto.")
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
            native = bool(known.get("avx512_bf16") or known.get("amx_bf16"))
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32
