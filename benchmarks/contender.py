"""Contenders of a benchmark: one process each, peers in an environment of their own."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["peer_python", "run"]

_HERE = Path(__file__).parent


def run(python: str, script: str, *arguments: str) -> dict:
    """Run a script of this folder on one thread; read the JSON of its last line.

    Args:
        python: The interpreter; another one than this does not see this project.
        script: Name of the file.
        arguments: For it.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, "-W", "ignore", str(_HERE / script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{script} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().split("\n")[-1])


def peer_python(folder: Path, requirements: tuple[str, ...], *, module: str) -> str:
    """Python of an environment that has a peer, made once.

    Args:
        folder: Of the environment.
        requirements: What to install.
        module: Imports if they are installed.
    """
    python = folder / "bin" / "python"
    probe = [str(python), "-c", f"import {module}"]
    if python.exists() and not subprocess.run(probe, check=False).returncode:
        return str(python)
    print(f"installing {' '.join(requirements)} into {folder}", file=sys.stderr)
    venv.create(folder, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", *requirements]
    subprocess.run(install, check=True)
    return str(python)
