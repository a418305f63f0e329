"""Where to compute, and whether bf16 pays there."""

import os
from typing import Literal

import torch

from recsys_mtl.errors import EnvironmentFault

__all__ = ["DeviceName", "check_precision", "find_device", "has_bf16"]

DeviceName = Literal["auto", "cpu", "cuda"]


def find_device(name: DeviceName) -> torch.device:
    """Choose the device of this worker; ``auto`` takes a GPU where there is one.

    Raises:
        EnvironmentFault: A GPU was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise EnvironmentFault(
            "device 'cuda' needs a GPU that torch can use, and torch "
            f"{torch.__version__} finds none; use device 'cpu', or install the CUDA "
            "build"
        )
    if name == "cpu" or not available:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def has_bf16(device: torch.device) -> bool:
    """Tell whether the device multiplies bf16 itself; emulated, it is slow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    names = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
    return any(capabilities.get(name) for name in names)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse bf16 where it would be emulated.

    Raises:
        EnvironmentFault: The device has no bf16 arithmetic.
    """
    if precision != "bf16":
        return
    if not has_bf16(device):
        needed = "bf16" if device.type == "cuda" else "AVX512-BF16 or AMX"
        raise EnvironmentFault(
            f"train.precision 'bf16' needs a {device.type} with {needed}, which this "
            "machine has not; set train.precision to 'fp32'"
        )
