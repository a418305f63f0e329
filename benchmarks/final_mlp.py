"""How fast FinalMLP trains on Frappe, beside FuxiCTR.

    RECSYS_MTL_DATA=/data python benchmarks/final_mlp.py

Published sizes (see ``frappe.py``), batch 4,096, L2 on whole tables, one thread. Every
contender runs in a process of its own, one at a time, in turn, ``--repeats`` times, two
epochs each. Ours reads Parquet feature tables through its own loop. FuxiCTR 2.3.10
trains by its own step on the parts of its own FinalMLP, once fed by its own loader and
once with batches cut from memory; it has an environment of its own.

Prints one JSON line a contender, medians over repeats of training rows a processor
second, and last a line of ratios. bf16 is left out where the machine has none.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from contender import peer_python, run

from pipelines.features import build_feature_tables
from recsys_mtl.config.load import load_recipe
from recsys_mtl.errors import EnvironmentFault
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.train.device import check_precision

_CONTENDERS = {
    "ours-fp32": ("contender_final_mlp.py", "fp32"),
    "ours-bf16": ("contender_final_mlp.py", "bf16"),
    "fuxictr": ("contender_fuxictr.py", "loader"),
    "fuxictr-memory": ("contender_fuxictr.py", "memory"),
}
_PEER = "contender_fuxictr.py"
_REQUIREMENTS = ("torch==2.13.0", "fuxictr==2.3.10", "polars<2")


def main() -> None:
    """Run all contenders and print what they came to."""
    options = _options()
    folder = options.cache / "frappe"
    build_feature_tables(load_recipe("frappe"), folder / "tables")
    _write_arrays(folder)
    contenders = {n: _CONTENDERS[n] for n in options.only}
    try:
        check_precision("bf16", torch.device("cpu"))
    except EnvironmentFault as fault:
        print(json.dumps({"left out": "ours-bf16", "why": str(fault)}))
        contenders.pop("ours-bf16", None)
    peer = peer_python(
        options.cache / "fuxictr-2.3.10", _REQUIREMENTS, module="fuxictr"
    )
    runs: dict[str, list[dict]] = {name: [] for name in contenders}
    for _ in range(options.repeats):
        for name, (script, argument) in contenders.items():
            python = peer if script == _PEER else sys.executable
            runs[name].append(run(python, script, str(folder), argument))
    speeds = {}
    for name, results in runs.items():
        each = [run["rows"] / run["cpu_s"] for run in results]
        speeds[name] = statistics.median(each)
        line = {
            "contender": name,
            "rows_per_cpu_s": round(speeds[name]),
            "all_rows_per_cpu_s": [round(speed) for speed in each],
            "parameters": results[0]["parameters"],
            "train_loss": round(results[0]["train_loss"], 4),
        }
        print(json.dumps(line))
    ratios = {
        f"{ours} / {theirs}": round(speeds[ours] / speeds[theirs], 2)
        for ours in speeds
        for theirs in speeds
        if ours.startswith("ours") and theirs.startswith("fuxictr")
    }
    print(json.dumps({"ratios": ratios}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=_CONTENDERS, default=_CONTENDERS)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--cache", type=Path, default=default / "recsys-mtl")
    return parser.parse_args()


def _write_arrays(folder: Path) -> None:
    """Training rows as plain arrays, for who cannot read feature tables."""
    schema = FeatureManifest.load(folder / "tables").feature_schema
    table = pq.read_table(folder / "tables" / "train")
    arrays = {
        field.name: table.column(field.name).to_numpy().astype(np.int64)
        for field in schema.ids
    }
    label_N = table.column("label.click").to_numpy()
    np.savez(folder / "train.npz", **arrays, label=label_N)
    sizes = {field.name: field.size for field in schema.ids}
    (folder / "sizes.json").write_text(json.dumps(sizes))


if __name__ == "__main__":
    main()
