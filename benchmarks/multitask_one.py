"""One training of ``multitask.py``."""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from pipelines.evaluate import evaluate_network
from recsys_mtl.config.load import load_recipe
from recsys_mtl.train import load_network, train

__all__ = ["train_once"]


def train_once(job: dict[str, Any]) -> dict[str, Any]:
    """Train, and test if asked to; gives AUCs, processor seconds and parameters."""
    changes = [text.removeprefix("--set=") for text in job["set"]]
    recipe, tables = load_recipe(job["recipe"], overrides=changes), Path(job["tables"])
    binary = [task.name for task in recipe.tasks if task.kind == "binary"]
    with tempfile.TemporaryDirectory() as name:
        result = train(recipe, tables, Path(name), device="cpu")
        network = load_network(recipe, tables, Path(name))
        metrics = (
            evaluate_network(network, recipe, tables, "test") if job["test"] else {}
        )
    valid = [result.best.metrics[task]["auc"] for task in binary]
    return {
        "valid": statistics.fmean(valid),
        "valid_auc": dict(zip(binary, valid, strict=True)),
        "test": {task: metrics[task]["auc"] for task in binary if metrics},
        "epochs": result.checks[-1].epoch,
        "cpu_s": sum(check.cpu_seconds for check in result.checks),
        "parameters": sum(p.numel() for p in network.trunk.parameters()),
    }
