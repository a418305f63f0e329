import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recsys_mtl import __version__

COMMANDS = (
    "run",
    "features",
    "train",
    "evaluate",
    "xray",
    "score",
    "serve",
    "schema",
    "recipes",
    "doctor",
)
ROOT = Path(__file__).parents[1]
PROGRAM = str(Path(sys.executable).parent / "recsys-mtl")


def call(*arguments, **options):
    environment = {**os.environ, "COLUMNS": "200", **options.pop("env", {})}
    return subprocess.run(
        [PROGRAM, *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        **options,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_names_the_command(command):
    done = call(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Example: recsys-mtl {command}" in done.stdout


def test_without_a_command_all_commands_are_listed():
    said = call().stdout
    assert [c for c in COMMANDS if f"│ {c} " not in said] == []


def test_the_version_is_that_of_the_package():
    assert call("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["schema"]])
def test_commands_that_compute_nothing_load_neither_torch_nor_ray(arguments):
    program = (
        "import sys, runpy\n"
        f"sys.argv = ['recsys-mtl', *{arguments!r}]\n"
        "try:\n"
        "    runpy.run_module('recsys_mtl.cli', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'ray', 'torchrec', 'fastapi'} & sys.modules.keys()\n"
        "print('heavy:', sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "heavy: []\n"


def test_the_schema_describes_every_part_of_a_recipe(tmp_path):
    printed = call("schema")
    path = tmp_path / "new" / "recipe.schema.json"
    assert call("schema", "--output", str(path)).returncode == 0
    assert json.loads(printed.stdout) == json.loads(path.read_text())
    assert {"data", "features", "tasks", "model", "train", "score"} <= json.loads(
        printed.stdout
    )["properties"].keys()


def test_all_shipped_recipes_are_listed():
    done = call("recipes")
    assert done.returncode == 0, done.stderr
    names = {path.stem for path in (ROOT / "pipelines" / "recipes").glob("*.yaml")}
    assert "quickstart" in names
    listed = {line.split()[0] for line in done.stdout.splitlines()[1:] if line.split()}
    assert names <= listed


def test_the_doctor_finds_this_machine_fit():
    done = call("doctor")
    assert done.returncode == 0, done.stdout
    assert done.stdout.rstrip().endswith("this machine is fit")
    assert done.stderr == ""


def test_the_doctor_ends_with_1_on_a_fault():
    done = call("doctor", env={"OMP_NUM_THREADS": "many"})
    assert done.returncode == 1
    assert "unset OMP_NUM_THREADS" in done.stdout
    assert done.stdout.rstrip().endswith("1 fault to mend")


def test_a_recipe_that_does_not_exist_is_one_sentence():
    done = call("run", "quikstart")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "quickstart" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_recipe_names_every_fault(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        yaml.safe_dump({"name": "mine", "features": [], "tasks": 3, "trane": {}})
    )
    done = call("features", str(path), "--output", str(tmp_path / "tables"))
    assert done.returncode == 1
    for fault in ("mine.yaml", "data", "features", "tasks", "trane"):
        assert fault in done.stderr
    assert not (tmp_path / "tables").exists()


def test_verbose_adds_the_traceback():
    done = call("run", "quikstart", "--verbose")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].strip()


def test_verbose_may_stand_before_the_command():
    assert "Traceback" in call("--verbose", "run", "quikstart").stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "quickstart", "--seeds", "0"], "--seeds"),
        (["run", "quickstart", "--sedes", "3"], "--seeds"),
        (["serve", "nothing", "--engine", "flask"], "uvicorn"),
        (["serve", "x", "--engine", "uvicorn", "--replicas", "2"], "--replicas"),
        (["serve", "x", "--port", "70000"], "--port"),
        (["fetures"], "features"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_names_the_word(arguments, named):
    done = call(*arguments)
    assert done.returncode == 2
    assert named in done.stderr


def test_a_bundle_that_is_none_is_refused_in_a_sentence(tmp_path):
    done = call("serve", str(tmp_path), "--port", "0", "--engine", "uvicorn")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert str(tmp_path) in done.stderr
    assert "unexpected" not in done.stderr


def test_an_unexpected_failure_is_one_sentence_with_a_hint(tmp_path):
    (tmp_path / "file").write_text("")
    done = call("schema", "--output", str(tmp_path / "file" / "below"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert "--verbose" in done.stderr
