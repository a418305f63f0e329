"""What each part of the model catalogue costs to train, at the Criteo shape.

    python benchmarks/catalogue.py                         # 200,000 rows, 3 repeats
    python benchmarks/catalogue.py --only mmoe home dtrn   # some of them

Rows as in ``criteo_shaped.py``: 26 categorical columns of 100,000 values, 13 numbers, 2
tasks, batch 4,096, one thread, fp32, through the training loop from Parquet feature
tables. Each part stands in for its stage of the reference, ``mmoe``: a flat bottom, 4
experts (256, 128), towers (64). PLE and HoME have experts of as many parameters, give
or take a twentieth. There are no histories here, so ``dtrn`` only weighs fields.

Every part runs in a process of its own, in turn, ``--repeats`` times. Prints one JSON
line a part: median rows a processor second, the cost of a row as a multiple of that of
``mmoe``, peak memory of the process, and parameters without embedding tables.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from contender import run

_MMOE = {"kind": "mmoe", "num_experts": 4, "hidden": [256, 128]}
_HOME = {"kind": "home", "levels": [[256], [128]]}
_WHOLE = {"gating": {"kind": "direct"}}
_WIDE = {"hidden": [400, 400]}
_PARTS: dict[str, dict[str, Any]] = {
    "mmoe": {},
    "shared_bottom": {"gating": {"kind": "shared_bottom", "hidden": [1024, 128]}},
    "cgc": {"gating": {"kind": "cgc", "hidden": [256, 128]}},
    "ple": {"gating": {"kind": "ple", "levels": [[256], [128]]}},
    "home": {"gating": _HOME | {"num_meta_group": 2}},
    "home, 2 groups": {
        "gating": _HOME | {"groups": {"watch": ["click"], "buy": ["order"]}}
    },
    "dtrn": {"bottom": {"kind": "dtrn"}},
    "apem": {"bottom": {"kind": "apem"}},
    "dtrn + home": {
        "bottom": {"kind": "dtrn"},
        "gating": _HOME | {"num_meta_group": 2},
    },
    "esmm": {"chain": {"kind": "esmm", "steps": ["click", "order"]}},
    "aitm": {"chain": {"kind": "aitm", "steps": ["click", "order"]}},
    "direct + mlp": _WHOLE | {"tower": {"kind": "mlp", **_WIDE}},
    "direct + final_mlp": _WHOLE
    | {
        "tower": {
            "kind": "final_mlp",
            "first": {"hidden": [400]},
            "second": {"hidden": [800]},
            "num_heads": 10,
        }
    },
    "direct + dcn_v2": _WHOLE | {"tower": {"kind": "dcn_v2", **_WIDE}},
    "direct + wide_deep": _WHOLE | {"tower": {"kind": "wide_deep", **_WIDE}},
}


def main() -> None:
    """Run all parts and print what they cost."""
    from criteo_shaped import make

    options = _options()
    folder = options.cache / f"criteo-{options.rows}-4096"
    if options.one:
        print(json.dumps(_train(options.one, folder)))
        return
    make(folder, train_rows=options.rows, test_rows=4096)
    names = list(dict.fromkeys(["mmoe", *(options.only or _PARTS)]))
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name in names:
            runs[name].append(_run(name, options))
            print(name, runs[name][-1], file=sys.stderr, flush=True)
    speeds = {
        name: statistics.median(run["rows_per_cpu_s"] for run in of)
        for name, of in runs.items()
    }
    for name, of in runs.items():
        line = {
            "part": name,
            "rows_per_cpu_s": round(speeds[name]),
            "times_mmoe": round(speeds["mmoe"] / speeds[name], 2),
            "rss_mb": round(max(run["rss_mb"] for run in of)),
            "parameters": of[0]["parameters"],
            "repeats": len(of),
        }
        print(json.dumps(line))


def _train(name: str, folder: Path) -> dict[str, float]:
    """Train one part, in this process."""
    from criteo_shaped import recipe

    from recsys_mtl.config.model import ModelSpec
    from recsys_mtl.train import load_network, train

    spec = recipe("fp32")
    model = spec.model.model_dump(mode="json") | _PARTS[name]
    spec = spec.model_copy(update={"model": ModelSpec.model_validate(model)})
    with tempfile.TemporaryDirectory() as run_dir:
        best = train(spec, folder / "tables", Path(run_dir), device="cpu").best
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        network = load_network(spec, folder / "tables", Path(run_dir))
    return {
        "rows_per_cpu_s": best.rows_per_s * best.seconds / best.cpu_seconds,
        "rss_mb": rss,
        "parameters": sum(p.numel() for p in network.trunk.parameters()),
    }


def _run(name: str, options: argparse.Namespace) -> dict[str, float]:
    rows, cache = str(options.rows), str(options.cache)
    arguments = ("--one", name, "--rows", rows, "--cache", cache)
    return run(sys.executable, Path(__file__).name, *arguments)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(_PARTS))
    parser.add_argument("--one", choices=list(_PARTS), help=argparse.SUPPRESS)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--cache", type=Path, default=default / "recsys-mtl")
    return parser.parse_args()


if __name__ == "__main__":
    main()
