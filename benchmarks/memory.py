"""How much memory features and one epoch take, whatever the number of rows.

    python benchmarks/memory.py                    # 10 M rows: half an hour on 2 cores
    python benchmarks/memory.py --rows 1000000

The recipe is ``quickstart`` with more rows, users and items. Each stage runs as a user
would run it, by the command line, in processes of its own; every 0.2 s the high-water
mark of each of them is read. Prints one JSON line a stage: seconds, and the peak
resident memory of the largest process, and of every process above 200 MiB by name.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

_LEAST_MIB = 200


def main() -> None:
    """Run both stages and print what they took."""
    parser = argparse.ArgumentParser(description="How much memory a long log takes.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="a scratch folder if left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        changes = {
            "data.interactions.rows": options.rows,
            "data.interactions.num_users": options.rows // 250,
            "data.interactions.num_items": options.rows // 500,
            "train.epochs": 1,
        }
        recipe = ["quickstart", *(f"--set={k}={v}" for k, v in changes.items())]
        tables = str(folder / "tables")
        stages = {
            "features": ["features", *recipe, "--output", tables],
            "train": [
                *("train", *recipe, "--tables", tables),
                *("--output", str(folder / "run")),
            ],
        }
        for stage, arguments in stages.items():
            figures = _watch([sys.executable, "-m", "recsys_mtl.cli", *arguments])
            line = {"stage": stage, "rows": options.rows, **figures}
            print(json.dumps(line), flush=True)


def _watch(command: list[str]) -> dict[str, object]:
    """Run a command; tell its seconds and the peaks of all its processes, in MiB."""
    start = time.perf_counter()
    root = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peaks: dict[tuple[int, float], tuple[str, float]] = {}
    while root.poll() is None:
        for process in (root, *_children(root)):
            try:
                key = process.pid, process.create_time()
                # One that has just ended has no mark any more.
                before = peaks.get(key, ("", 0.0))[1]
                peaks[key] = process.name(), max(before, _high_water(process.pid))
            except (psutil.Error, OSError):
                continue  # it ended in between; its last mark stays
        time.sleep(0.2)
    if root.returncode != 0:
        raise SystemExit(root.returncode)
    large = sorted(
        (round(mib), name) for name, mib in peaks.values() if mib > _LEAST_MIB
    )
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mib": large[-1][0],
        "processes": [f"{name} {mib}" for mib, name in reversed(large)],
    }


def _children(root: psutil.Process) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = root.children(recursive=True)
    except psutil.Error:
        return []
    return children


def _high_water(pid: int) -> float:
    """Peak resident memory so far, in MiB; the kernel keeps the mark."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
