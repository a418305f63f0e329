"""How fast the training loop is, beside a hand-written loop and torch-rechub.

    python benchmarks/train.py
    python benchmarks/train.py --rows 100000 --repeats 1 --skip-rechub  # a short look

Criteo-shaped rows (see ``criteo_shaped.py``), MMoE with 4 experts (256, 128), 2 tasks,
towers (64), dim 16, batch 4,096, one epoch, one thread. Every contender runs in a
process of its own, one at a time, in turn, ``--repeats`` times. Ours reads Parquet
feature tables; the hand-written loop and ``rechub-memory`` have all rows in memory.

Prints one JSON line a contender: medians of rows a processor second and a wall second
over the epoch's steps, peak memory of the process, AUC on test rows; and last a line
of ratios. Each run is told on the error output as it ends.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from contender import peer_python, run
from criteo_shaped import arrays, make

from recsys_mtl.errors import EnvironmentFault
from recsys_mtl.evaluate.metric import binary_metrics
from recsys_mtl.train.device import check_precision

_OURS = {
    "loop-fp32": ("contender_loop.py", "fp32"),
    "ours-fp32": ("contender_ours.py", "fp32"),
    "loop-bf16": ("contender_loop.py", "bf16"),
    "ours-bf16": ("contender_ours.py", "bf16"),
}
_PEERS = {
    "rechub": ("contender_rechub.py", "loader"),
    "rechub-memory": ("contender_rechub.py", "memory"),
}
_REQUIREMENTS = ("torch==2.13.0", "torch-rechub==0.9.0")


def main() -> None:
    """Run all contenders and print what they came to."""
    options = _options()
    folder = options.cache / f"criteo-{options.rows}-{options.test_rows}"
    make(folder, train_rows=options.rows, test_rows=options.test_rows)
    contenders = dict(_OURS) if options.skip_rechub else _OURS | _PEERS
    if options.only:
        contenders = {n: contenders[n] for n in options.only}
    contenders = _runnable(contenders)
    peer = "" if options.skip_rechub else _peer(options.cache)
    results: dict[str, list[dict]] = {name: [] for name in contenders}
    for _ in range(options.repeats):
        for name, (script, argument) in contenders.items():
            python = peer if name in _PEERS else sys.executable
            results[name].append(run(python, script, str(folder), argument))
            print(json.dumps({name: results[name][-1]}), file=sys.stderr, flush=True)
    print(json.dumps({"contender": "best possible", "auc": _best_auc(folder)}))
    speeds = {}
    for name, runs in results.items():
        line = _summary(name, runs)
        speeds[name] = line["rows_per_cpu_s"]
        print(json.dumps(line))
    pairs = [
        ("ours-fp32", "loop-fp32"),
        ("ours-bf16", "loop-bf16"),
        ("ours-fp32", "rechub-memory"),
        ("ours-bf16", "rechub-memory"),
    ]
    ratios = {
        f"{a} / {b}": round(speeds[a] / speeds[b], 3)
        for a, b in pairs
        if a in speeds and b in speeds
    }
    print(json.dumps({"ratios": ratios}))


def _runnable(contenders: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Leave bf16 out where this machine would only emulate it."""
    try:
        check_precision("bf16", torch.device("cpu"))
    except EnvironmentFault as fault:
        print(f"without the bf16 contenders: {fault}", file=sys.stderr)
        return {n: c for n, c in contenders.items() if c[1] != "bf16"}
    return contenders


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--test-rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-rechub", action="store_true")
    parser.add_argument("--only", nargs="*", choices=[*_OURS, *_PEERS])
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--cache", type=Path, default=default / "recsys-mtl")
    return parser.parse_args()


def _summary(name: str, runs: list[dict]) -> dict:
    def median(key: str) -> float:
        return statistics.median(run["rows"] / run[key] for run in runs)

    return {
        "contender": name,
        "rows": runs[0]["rows"],
        "repeats": len(runs),
        "rows_per_cpu_s": round(median("cpu_s")),
        "rows_per_wall_s": round(median("wall_s")),
        "all_rows_per_cpu_s": [round(run["rows"] / run["cpu_s"]) for run in runs],
        "rss_mb": round(max(run["rss_mb"] for run in runs)),
        "auc": [round(value, 4) for value in runs[0]["auc"]],
    }


def _best_auc(folder: Path) -> list[float]:
    label_NT = arrays(folder, "test")[2]
    prob_NT = np.load(folder / "arrays" / "test-prob.npy")
    return [
        round(binary_metrics(label_NT[:, t], prob_NT[:, t])["auc"], 4)
        for t in range(label_NT.shape[1])
    ]


def _peer(cache: Path) -> str:
    folder = cache / "torch-rechub-0.9.0"
    return peer_python(folder, _REQUIREMENTS, module="torch_rechub")


if __name__ == "__main__":
    main()
