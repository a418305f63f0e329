"""This library, from Parquet feature tables, through its own loop.

Run by ``train.py``; prints one JSON line.
"""

import json
import resource
import sys
import tempfile
from pathlib import Path

from criteo_shaped import TASKS, recipe

from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.evaluate.metric import evaluate_tasks
from recsys_mtl.train import load_network, predict, train


def main(folder: Path, precision: str) -> None:
    """Train one epoch, then test."""
    spec, tables = recipe(precision), folder / "tables"
    with tempfile.TemporaryDirectory() as name:
        run_dir = Path(name)
        check = train(spec, tables, run_dir, device="cpu").best
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        reader = FeatureReader(tables, "test", batch_size=4096, tasks=TASKS)
        prediction_BT, label_BT, _ = predict(
            load_network(spec, tables, run_dir), reader
        )
    metrics = evaluate_tasks(spec.tasks, label_BT, prediction_BT)
    figures = {
        "rows": round(check.rows_per_s * check.seconds),
        "wall_s": check.seconds,
        "cpu_s": check.cpu_seconds,
        "rss_mb": rss,
        "auc": [metrics[task]["auc"] for task in TASKS],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
