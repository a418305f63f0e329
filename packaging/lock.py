"""Writes requirements/*.txt: all that the project needs, at the installed versions.

``make lock`` runs it in ``.venv``. The list is the closure of the project's declared
dependencies, development tools included, and not all that happens to be installed.
"""

import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "recsys-mtl"
# Installed from packaging/fbgemm-gpu-cpu-alias, which no index has.
LOCAL = {"recsys-mtl", "fbgemm-gpu"}
HEADERS = {
    "cpu": """\
# Every package of a CPU machine at the version that was tested: `make lock` writes it.
# The folder packaging/fbgemm-gpu-cpu-alias is installed along with these.
""",
    "cuda": """\
# Every package of a GPU machine: `make lock` derives it from cpu.txt. CUDA libraries
# are missing here because torch itself asks for them at exact versions.
""",
}


def closure(name: str, extras: frozenset[str]) -> dict[str, str]:
    """Name and version of everything that ``name`` needs, itself included."""
    seen: dict[str, set[str]] = {}
    todo = [(canonicalize_name(name), set(extras))]
    while todo:
        name, wanted = todo.pop()
        if name in seen and wanted <= seen[name]:
            continue
        known = seen.setdefault(name, set())
        known |= wanted
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in {*known, ""}
            ):
                todo.append((canonicalize_name(needed.name), set(needed.extras)))
    return {name: distribution(name).version for name in seen}


def lock(accelerator: str) -> str:
    """Give the text of ``requirements/<accelerator>.txt``."""
    # "+cpu" tells the build, not the version: which one is at hand is pip's matter.
    pins = {
        name: version.partition("+")[0]
        for name, version in closure(PROJECT, frozenset({"dev"})).items()
        if name not in LOCAL
    }
    if accelerator == "cuda":
        pins["fbgemm-gpu"] = pins.pop("fbgemm-gpu-cpu")
    # An index that has the CPU build too would win with it: "2.13.0+cpu" is the newer
    # of the two to pip. Three signs stand for this very text.
    exact = {"torch"} if accelerator == "cuda" else set()
    lines = [
        f"{name}{'===' if name in exact else '=='}{version}"
        for name, version in sorted(pins.items())
    ]
    return HEADERS[accelerator] + "\n".join(lines) + "\n"


if __name__ == "__main__":
    for accelerator in HEADERS:
        target = Path(__file__).parent.parent / "requirements" / f"{accelerator}.txt"
        target.write_text(lock(accelerator))
        sys.stdout.write(f"wrote {target}\n")
