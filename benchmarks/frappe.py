"""Single-task models on Frappe_x1, all by FinalMLP's published protocol.

    RECSYS_MTL_DATA=/data python benchmarks/frappe.py
    RECSYS_MTL_DATA=/data python benchmarks/frappe.py --models final_mlp --seeds 1

Protocol: embeddings of 10 that start normal with deviation 1e-4; L2 on whole tables,
the towers' own included; Adam at 1e-3, batch 4,096, gradients clipped at norm 10; a
check of validation AUC an epoch, each without progress cuts the learning rate to a
tenth, the second in a row stops; the best check's weights are kept. Rows and labels:
official validation and test files, training negatives redrawn by the rule of the
official ones.

FinalMLP has its published settings. The other models have three layers of 400 with
batch normalisation and dropout 0.2, DCN-V2 three cross layers beside them, and choose
between two strengths of L2 (0.05, 0.02) by the validation AUC of the first seed. Test
rows are read once a model and seed, after that choice.

Prints one JSON line a run and a table of means and standard deviations over seeds.
Finished runs are kept in ``--cache`` and not run again.
"""

import argparse
import json
import os
import statistics
from hashlib import sha256
from pathlib import Path

from pipelines.features import build_feature_tables
from recsys_mtl.config.load import load_recipe
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.evaluate.metric import evaluate_tasks
from recsys_mtl.train import TrainResult, load_network, predict, train

_PROTOCOL = (
    "model.embedding={dim: 10, init_std: 0.0001}",
    "model.gating={kind: direct}",
    "train.embedding_optimizer={kind: adam, learning_rate: 0.001}",
    "train.optimizer.learning_rate=0.001",
    "train.schedule={kind: plateau, factor: 0.1, floor: 0.000001}",
    "train.early_stopping={metric: click.auc, patience: 2}",
    "train.epochs=100",
    "train.batch_size=4096",
    "train.clip_norm=10",
    "train.num_threads=1",
)
_DEEP = "hidden: [400, 400, 400], dropout: 0.2, batch_norm: true"
_TOWERS = {
    "final_mlp": "{kind: final_mlp, num_heads: 5, gate_hidden: [400], "
    "first: {hidden: [400], dropout: 0.4, context: [user]}, "
    "second: {hidden: [100], dropout: 0.4, context: [item]}}",
    "dnn": f"{{kind: mlp, {_DEEP}}}",
    "dcn_v2": f"{{kind: dcn_v2, num_layers: 3, {_DEEP}}}",
    "wide_deep": f"{{kind: wide_deep, {_DEEP}}}",
}
_L2 = {"final_mlp": (0.05,)} | dict.fromkeys(
    ("dnn", "dcn_v2", "wide_deep"), (0.05, 0.02)
)


def main() -> None:
    """Run what is not there yet, and print what all came to."""
    options = _options()
    tables = options.cache / "tables"
    build_feature_tables(load_recipe("frappe"), tables)
    rows = []
    for model in options.models:
        seeds = range(options.seeds)
        l2 = max(
            _L2[model],
            key=lambda l2: _trained(model, l2, 0, options.cache)["valid"]["auc"],
        )
        runs = []
        for seed in seeds:
            runs.append(_tested(model, l2, seed, options.cache))
            print(json.dumps(runs[-1]), flush=True)
        rows.append((model, l2, runs))
    print(f"\n{'model':10} {'L2':>5} {'test AUC':>17} {'test log loss':>17} seeds")
    for model, l2, runs in rows:
        auc, loss = (_spread([run["test"][m] for run in runs]) for m in _METRICS)
        print(f"{model:10} {l2:5} {auc:>17} {loss:>17} {len(runs):5}")


_METRICS = ("auc", "log_loss")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="*", choices=_TOWERS, default=[*_TOWERS])
    parser.add_argument("--seeds", type=int, default=5)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--cache", type=Path, default=default / "recsys-mtl/frappe")
    return parser.parse_args()


def published_recipe(model: str, l2: float, seed: int, *overrides: str) -> Recipe:
    """One of the models under the protocol."""
    own = (
        f"model.tower={_TOWERS[model]}",
        f"train.embedding_optimizer.l2={l2}",
        f"train.seed={seed}",
    )
    return load_recipe("frappe", overrides=[*_PROTOCOL, *own, *overrides])


def _folder(recipe: Recipe, model: str, cache: Path) -> Path:
    digest = sha256(recipe.model.model_dump_json().encode())
    digest.update(recipe.train.model_dump_json().encode())
    return cache / "runs" / f"{model}-{digest.hexdigest()[:12]}"


def _trained(model: str, l2: float, seed: int, cache: Path) -> dict:
    """Train, and look at validation rows alone."""
    recipe = published_recipe(model, l2, seed)
    folder = _folder(recipe, model, cache)
    path = folder / "trained.json"
    if not path.exists():
        result = train(recipe, cache / "tables", folder, device="cpu")
        path.write_text(json.dumps(_told(model, l2, seed, result)))
    return json.loads(path.read_text())


def _told(model: str, l2: float, seed: int, result: TrainResult) -> dict:
    checks = result.checks
    cuts = [check.epoch for check in checks if not check.best]
    return {
        "model": model,
        "l2": l2,
        "seed": seed,
        "epochs": len(checks),
        "best_epoch": result.best.epoch,
        "first_cut_epoch": cuts[0],
        "cpu_s": round(sum(check.cpu_seconds for check in checks), 1),
        "valid": {m: result.best.metrics["click"][m] for m in _METRICS},
    }


def _tested(model: str, l2: float, seed: int, cache: Path) -> dict:
    told = _trained(model, l2, seed, cache)
    recipe = published_recipe(model, l2, seed)
    folder = _folder(recipe, model, cache)
    path = folder / "tested.json"
    if not path.exists():
        reader = FeatureReader(
            cache / "tables", "test", batch_size=4096, tasks=("click",)
        )
        network = load_network(recipe, cache / "tables", folder)
        prediction_BT, label_BT, _ = predict(network, reader)
        metrics = evaluate_tasks(recipe.tasks, label_BT, prediction_BT)["click"]
        path.write_text(json.dumps({m: metrics[m] for m in _METRICS}))
    return told | {"test": json.loads(path.read_text())}


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.5f} ± {deviation:.5f}"


if __name__ == "__main__":
    main()
