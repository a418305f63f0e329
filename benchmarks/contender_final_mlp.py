"""This library's FinalMLP on Frappe, from Parquet feature tables, by its own loop.

Run by ``final_mlp.py``; prints one JSON line.
"""

import json
import sys
import tempfile
from pathlib import Path

from frappe import published_recipe

from recsys_mtl.train import load_network, train


def main(folder: Path, precision: str) -> None:
    """Train two epochs."""
    recipe = published_recipe(
        "final_mlp", 0, 0, "train.epochs=2", f"train.precision={precision}"
    )
    with tempfile.TemporaryDirectory() as name:
        run_dir, tables = Path(name), folder / "tables"
        checks = train(recipe, tables, run_dir, device="cpu").checks
        network = load_network(recipe, tables, run_dir)
    figures = {
        "rows": round(sum(check.rows_per_s * check.seconds for check in checks)),
        "cpu_s": sum(check.cpu_seconds for check in checks),
        "parameters": sum(p.numel() for p in network.parameters()),
        "train_loss": checks[-1].train_loss["click"],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
