"""How a checkout sets itself up: the Makefile, setup.sh and the pinned versions."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGETS = ("setup", "quickstart", "test", "check", "format", "doctor", "clean", "help")


def make(*arguments, folder=ROOT):
    # Not the variables of the make that runs these tests.
    kept = {k: v for k, v in os.environ.items() if "MAKE" not in k}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        check=False,
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        timeout=60,
    )


def pins(accelerator):
    text = (ROOT / "requirements" / f"{accelerator}.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return dict(re.split("={2,3}", line) for line in lines)


def test_help_lists_every_target():
    listed = [line.split()[0] for line in make("help").stdout.splitlines()]
    assert set(TARGETS) <= set(listed)
    assert make().stdout == make("help").stdout


@pytest.mark.parametrize("target", [t for t in TARGETS if t not in ("help", "clean")])
def test_every_target_sets_the_checkout_up_first(target):
    commands = make("--dry-run", target).stdout.splitlines()
    assert commands[0] == "packaging/setup.sh"


def test_check_runs_all_gates_and_the_tests_last():
    commands = make("--dry-run", "check").stdout
    gates = ("ruff format --check", "ruff check", "mypy", "lint-imports", "pytest")
    places = [commands.index(f".venv/bin/{gate}") for gate in gates]
    assert places == sorted(places)
    assert "OMP_NUM_THREADS=1 .venv/bin/pytest" in commands.splitlines()[-1]


def test_the_quickstart_runs_the_shipped_recipe_to_one_request():
    last = make("--dry-run", "quickstart").stdout.splitlines()[-1]
    assert "recsys-mtl run quickstart" in last
    assert "--request" in last


def test_clean_keeps_the_environment_and_the_runs():
    commands = make("--dry-run", "clean").stdout
    assert ".venv" not in commands
    assert "runs" not in commands


def test_ci_runs_check_without_a_terminal():
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert re.search(r"make .*check$", script.rstrip())
    assert "</dev/null" in script


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose Python and pip write down what they are asked for."""
    for part in ("packaging", "requirements", "Makefile"):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tmp_path / part)
        else:
            shutil.copy(ROOT / part, tmp_path / part)
    programs = tmp_path / "programs"
    programs.mkdir()
    python = programs / "python3.11"
    python.write_text(
        "#!/bin/sh\n"
        f'echo "$*" >>{tmp_path}/calls\n'
        'case "$*" in\n'
        "  *sys.version_info*) exit ${FAKE_CODE:-0} ;;\n"
        "  --version) echo Python 3.11.9 ;;\n"
        "  *urlopen*) exit ${FAKE_INDEX:-0} ;;\n"
        '  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;\n'
        "esac\n"
    )
    python.chmod(0o755)
    (programs / "python3").symlink_to(python)
    return tmp_path


def set_up(checkout, **variables):
    """Run setup.sh; gives what happened and what the fake Python was asked for."""
    calls = checkout / "calls"
    calls.write_text("")
    done = subprocess.run(
        [checkout / "packaging" / "setup.sh"],
        check=False,
        cwd="/",
        env={"PATH": f"{checkout / 'programs'}:/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, calls.read_text().splitlines()


def installs(calls):
    return [call for call in calls if " install " in call]


def test_setup_installs_fbgemm_and_its_alias_in_one_go_and_then_the_project(checkout):
    done, calls = set_up(checkout)
    assert done.returncode == 0, done.stderr
    torch, packages, project = installs(calls)
    assert "--no-deps" in torch
    assert torch.endswith("torch==2.13.0")
    assert packages.endswith("-r requirements/cpu.txt ./packaging/fbgemm-gpu-cpu-alias")
    assert project.endswith("--no-deps --no-build-isolation -e .")


def test_without_pytorchs_index_torch_comes_with_the_rest(checkout):
    done, calls = set_up(checkout, FAKE_INDEX="1")
    assert done.returncode == 0, done.stderr
    assert not any("extra-index-url" in call for call in calls)
    assert len(installs(calls)) == 2


def test_a_set_up_checkout_installs_nothing(checkout):
    set_up(checkout)
    done, calls = set_up(checkout)
    assert (done.returncode, done.stdout, calls) == (0, "", [])


def test_changed_requirements_are_installed(checkout):
    set_up(checkout)
    with (checkout / "requirements" / "cpu.txt").open("a") as file:
        file.write("tabulate==0.9.0\n")
    assert len(installs(set_up(checkout)[1])) == 3


def test_another_accelerator_gets_a_new_environment_without_the_alias(checkout):
    set_up(checkout)
    (checkout / ".venv" / "old").write_text("")
    done, calls = set_up(checkout, ACCELERATOR="cuda")
    assert done.returncode == 0, done.stderr
    assert not (checkout / ".venv" / "old").exists()
    assert not any("alias" in call for call in calls)
    assert any(call.endswith("-r requirements/cuda.txt") for call in calls)


def test_a_failed_installation_is_tried_again(checkout):
    pip = checkout / "programs" / "python3.11"
    good = pip.read_text()
    pip.write_text(good + 'case "$*" in *"-r "*) exit 3 ;; esac\n')
    assert set_up(checkout)[0].returncode == 3
    (checkout / ".venv" / "bin" / "python").write_text(good)
    done, calls = set_up(checkout)
    assert done.returncode == 0
    assert len(installs(calls)) == 3


def test_without_python_311_setup_says_what_to_install(checkout):
    done, calls = set_up(checkout, FAKE_CODE="1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: needs Python 3.11, found Python 3.11.9")
    assert "PYTHON=" in done.stderr
    assert installs(calls) == []
    assert not (checkout / ".venv").exists()


def test_an_unknown_accelerator_is_refused(checkout):
    done, _ = set_up(checkout, ACCELERATOR="tpu")
    assert done.returncode == 1
    assert "cpu or cuda, got 'tpu'" in done.stderr


def test_the_gpu_list_differs_from_the_cpu_list_in_fbgemm_alone():
    cpu, cuda = pins("cpu"), pins("cuda")
    assert cpu.pop("fbgemm-gpu-cpu") == cuda.pop("fbgemm-gpu") == "1.8.0"
    assert cpu == cuda


def test_the_gpu_list_takes_no_cpu_build_of_torch():
    lines = (ROOT / "requirements" / "cuda.txt").read_text().splitlines()
    assert [line for line in lines if "===" in line] == [
        f"torch==={pins('cpu')['torch']}"
    ]


def test_every_declared_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {re.match(r"[A-Za-z0-9._-]+", d).group().lower() for d in declared}
    assert names - pins("cpu").keys() == set()


@pytest.mark.skipif(
    not (Path(sys.prefix) / ".ready").exists(),
    reason="the environment was not made by `make setup`",
)
def test_what_runs_here_is_what_is_pinned():
    accelerator = (Path(sys.prefix) / ".ready").read_text().split()[0]
    wrong = {}
    for name, pinned in pins(accelerator).items():
        try:
            found = version(name).partition("+")[0]
        except PackageNotFoundError:
            found = "missing"
        if found != pinned:
            wrong[name] = (found, pinned)
    assert wrong == {}


def test_every_direct_dependency_is_explained():
    page = (ROOT / "docs" / "dependencies.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["dev"]
    for name in (re.match(r"[A-Za-z0-9._-]+", d).group() for d in declared):
        row = re.search(rf"^\| {re.escape(name)} \| (\S+) \|", page, re.MULTILINE)
        assert row, f"docs/dependencies.md has no line for {name}"
        assert row.group(1) == pins("cpu")[name.lower()], name
