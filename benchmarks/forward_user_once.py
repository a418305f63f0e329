"""One user and 500 candidates: whole rows against user-once. Run by ``forward.py``.

python benchmarks/forward_user_once.py BUNDLE TABLES
"""

import json
import statistics
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from forward_clock import interleaved

from recsys_mtl.data.request_batch import RequestBatch
from recsys_mtl.engine import EagerEngine
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.model.request_network import RequestNetwork


def main(folder: Path, tables: Path) -> None:
    """Time a request of several users, one after the other."""
    torch.set_num_threads(1)
    bundle = load_bundle(folder)
    table = pq.read_table(tables / "test", columns=list(bundle.schema.columns))
    eager = EagerEngine(RequestNetwork(bundle.network, bundle.split))
    figures: dict[str, object] = {"bundle_engine": bundle.engine.kind}
    for candidates in (500, 1):
        times: dict[str, list[float]] = {}
        worst = 0.0
        for user in range(0, 500, 100):
            batch = RequestBatch.of_tables(
                bundle.split,
                table.slice(user, 1),
                table.slice(500, candidates),
                np.zeros(candidates, np.int64),
            )
            joined = batch.joined()
            with torch.inference_mode():
                whole = bundle.network(joined).logits
                for one, other in zip(eager.score(batch), whole, strict=True):
                    worst = max(worst, float((one - other).abs().max()))
                calls = {
                    "whole rows": lambda joined=joined: bundle.network(joined),
                    "user once, eager": lambda batch=batch: eager.score(batch),
                    "user once, engine": lambda batch=batch: bundle.engine.score(batch),
                }
                for name, ms in interleaved(calls, rounds=15).items():
                    times.setdefault(name, []).extend(ms)
        figures[f"{candidates} candidates, cpu_ms"] = {
            name: round(statistics.median(ms), 3) for name, ms in times.items()
        }
        figures[f"{candidates} candidates, largest difference"] = worst
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
