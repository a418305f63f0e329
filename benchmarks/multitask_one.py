"""One training of ``multitask.py``, and its test."""

import shutil
import statistics
from pathlib import Path
from typing import Any

from pipelines.evaluate import evaluate_network
from recsys_mtl.config.load import load_recipe
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.train import load_network, train

__all__ = ["test_once", "train_once"]


def train_once(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train into ``folder``; gives validation AUCs, cost and parameters."""
    recipe, tables = _recipe(job), Path(job["tables"])
    result = train(recipe, tables, folder, device="cpu")
    network = load_network(recipe, tables, folder)
    valid = {task: result.best.metrics[task]["auc"] for task in _binary(recipe)}
    return {
        "valid": statistics.fmean(valid.values()),
        "valid_auc": valid,
        "epochs": result.checks[-1].epoch,
        "cpu_s": sum(check.cpu_seconds for check in result.checks),
        "parameters": sum(p.numel() for p in network.trunk.parameters()),
    }


def test_once(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Test what was trained into ``folder``, which is no longer needed then."""
    recipe, tables = _recipe(job), Path(job["tables"])
    network = load_network(recipe, tables, folder)
    metrics = evaluate_network(network, recipe, tables, "test")
    shutil.rmtree(folder)
    return {"test": {task: metrics[task]["auc"] for task in _binary(recipe)}}


def _recipe(job: dict[str, Any]) -> Recipe:
    changes = [text.removeprefix("--set=") for text in job["set"]]
    return load_recipe(job["recipe"], overrides=changes)


def _binary(recipe: Recipe) -> list[str]:
    return [task.name for task in recipe.tasks if task.kind == "binary"]
