"""What a forward pass costs, engine by engine, beside torch-rechub.

    python benchmarks/forward.py                     # the Criteo shape: 512 rows, 1 row
    python benchmarks/forward.py --bundle BUNDLE --tables TABLES   # user once, too

The Criteo shape of ``criteo_shaped.py``: 26 categorical columns of 100,000 values, 13
numbers, MMoE with 4 experts (256, 128), 2 towers (64), width 16; random weights, random
ids; one thread. Every candidate is called in turn, and processes take turns: a figure
is the median of the processor milliseconds of all calls. Prints one JSON line for each
number of rows, and names what this machine lacks instead of leaving it out.

With a bundle and its feature tables: one user, 500 candidates of the test split, the
network on whole rows against user-once, eager and by the bundle's own engine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from contender import peer_python, run

_PEER = ("torch-rechub==0.9.0", "torch==2.13.0", "scikit-learn", "onnx", "onnxruntime")
_ROWS = (512, 1)


def main() -> None:
    """Run all and print."""
    options = _options()
    if options.bundle:
        print(
            json.dumps(_alone("forward_user_once.py", options.bundle, options.tables))
        )
        return
    python = peer_python(
        options.cache / "torch-rechub-0.9.0", _PEER, module="torch_rechub, onnxruntime"
    )
    said: dict[str, dict[str, list[float]]] = {}
    lacking: dict[str, str] = {}
    for _ in range(options.repeats):
        for figures in (
            run(sys.executable, "forward_ours.py"),
            run(python, "forward_rechub.py"),
        ):
            lacking |= figures.pop("lacking", {})
            for rows, of in figures.items():
                for name, ms in of.items():
                    said.setdefault(rows, {}).setdefault(name, []).extend(ms)
    for rows, of in said.items():
        ms = {name: round(statistics.median(times), 3) for name, times in of.items()}
        line = {
            "rows": int(rows),
            "cpu_ms": dict(sorted(ms.items(), key=lambda item: item[1])),
            "times_rechub": round(ms["torch-rechub eager"] / ms["engine onnx"], 2),
            "lacking": lacking,
            "repeats": options.repeats,
            "cpu": _cpu(),
        }
        print(json.dumps(line))


def _alone(script: str, *arguments: str) -> dict:
    return run(sys.executable, script, *arguments)


def _cpu() -> str:
    said = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    flags = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in said]
    model = next((x for x in said.split("\n") if x.startswith("Model name")), "")
    return f"{model.partition(':')[2].strip()}, {' '.join(flags) or 'AVX2 at most'}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bundle", help="time user-once on this bundle instead")
    parser.add_argument("--tables", help="its feature tables")
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--cache", type=Path, default=default / "recsys-mtl")
    options = parser.parse_args()
    if bool(options.bundle) != bool(options.tables):
        parser.error("--bundle and --tables go together")
    return options


if __name__ == "__main__":
    main()
