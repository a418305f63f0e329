"""Single-task models on Frappe_x1, all by FinalMLP's published protocol.

    RECSYS_MTL_DATA=/data python benchmarks/frappe.py
    RECSYS_MTL_DATA=/data python benchmarks/frappe.py --models final_mlp --seeds 1

Protocol: embeddings of 10 that start normal with deviation 1e-4; L2 on whole tables,
the towers' own included; Adam at 1e-3, batch 4,096, gradients clipped at norm 10; a
check of validation AUC an epoch, each without progress cuts the learning rate to a
tenth, the second in a row stops; the best check's weights are kept. Rows and labels:
official validation and test files, training negatives redrawn by the rule of the
official ones, save that a user may get an app twice.

Every model has four settings, the best by validation AUC of the first seed is its own:
FinalMLP the four dropouts of its published grid at the other published sizes, L2 0.05;
the others, three layers of 400 with batch normalisation, DCN-V2 three cross layers
beside them, two strengths of L2 and two dropouts. Test rows are read once a model and
seed, after that choice.

``--distinct`` redraws the training negatives once more, so that no pair of user and app
comes twice among the negatives of all three files, as is so in the official ones.

Prints one JSON line a run and a table of means and standard deviations over seeds.
Finished runs are kept in ``--cache`` and not run again.
"""

import argparse
import json
import os
import statistics
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

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
_DEEP = "hidden: [400, 400, 400], batch_norm: true"
_TOWERS = {
    "final_mlp": "{{kind: final_mlp, num_heads: 5, gate_hidden: [400], "
    "first: {{hidden: [400], dropout: {}, context: [user]}}, "
    "second: {{hidden: [100], dropout: {}, context: [item]}}}}",
    "dnn": f"{{{{kind: mlp, {_DEEP}, dropout: {{}}}}}}",
    "dcn_v2": f"{{{{kind: dcn_v2, num_layers: 3, {_DEEP}, dropout: {{}}}}}}",
    "wide_deep": f"{{{{kind: wide_deep, {_DEEP}, dropout: {{}}}}}}",
}
_PAIRS = ((0.4, 0.4), (0.5, 0.4), (0.4, 0.3), (0.5, 0.3))
_GRID = [(l2, (dropout,)) for l2 in (0.05, 0.02) for dropout in (0.2, 0.4)]
_SETTINGS = {"final_mlp": [(0.05, pair) for pair in _PAIRS]} | dict.fromkeys(
    ("dnn", "dcn_v2", "wide_deep"), _GRID
)
"""For each model strengths of L2 and dropouts, the published ones first."""
_METRICS = ("auc", "log_loss")


def main() -> None:
    """Run what is not there yet, and print what all came to."""
    options = _options()
    cache = options.cache / "distinct" if options.distinct else options.cache
    recipe = load_recipe("frappe")
    if options.distinct:
        files = _write_distinct(recipe, cache / "rows")
        paths = f"data.interactions.path=[{', '.join(map(str, files))}]"
        recipe = load_recipe("frappe", overrides=[paths])
    build_feature_tables(recipe, cache / "tables")
    rows = []
    for model in options.models:
        tried = [
            _trained(model, setting, 0, cache)
            for setting in range(len(_SETTINGS[model]))
        ]
        chosen = max(range(len(tried)), key=lambda i: tried[i]["valid"]["auc"])
        runs = []
        for seed in range(options.seeds):
            runs.append(_tested(model, chosen, seed, cache))
            print(json.dumps(runs[-1]), flush=True)
        rows.append((model, runs))
    print(f"\n{'model':10} {'test AUC':>17} {'test log loss':>17} seeds  setting")
    for model, runs in rows:
        auc, loss = (_spread([run["test"][m] for run in runs]) for m in _METRICS)
        setting = f"L2 {runs[0]['l2']}, dropout {runs[0]['dropout']}"
        print(f"{model:10} {auc:>17} {loss:>17} {len(runs):5}  {setting}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="*", choices=_TOWERS, default=[*_TOWERS])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--distinct", action="store_true", help="no negative twice")
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--cache", type=Path, default=default / "recsys-mtl/frappe")
    return parser.parse_args()


def published_recipe(model: str, setting: int, seed: int, *overrides: str) -> Recipe:
    """One of the models under the protocol; setting 0 is the published one."""
    l2, dropouts = _SETTINGS[model][setting]
    own = (
        f"model.tower={_TOWERS[model].format(*dropouts)}",
        f"train.embedding_optimizer.l2={l2}",
        f"train.seed={seed}",
    )
    return load_recipe("frappe", overrides=[*_PROTOCOL, *own, *overrides])


def _write_distinct(recipe: Recipe, folder: Path) -> list[Path]:
    """Redraw the training negatives so that no user gets an app twice.

    Uniformly, among apps that the user neither used nor has as a negative to validate
    or to test: so they are distributed given the official files, whose negatives
    repeat no pair.
    """
    files = [Path(os.path.expandvars(p)) for p in recipe.data.interactions.path]
    train_path, *other_paths = files
    frame, *others = map(pd.read_csv, (train_path, *other_paths))
    everything = pd.concat([frame, *others])
    items = np.sort(everything["item"].unique())
    taken = pd.concat([everything[everything["label"] == 1], *others])
    taken_by = taken.groupby("user")["item"].unique()
    negative = frame["label"] == 0
    rng = np.random.default_rng(0)
    for user, rows in frame[negative].groupby("user").groups.items():
        free = np.setdiff1d(items, taken_by[user])
        frame.loc[rows, "item"] = rng.choice(free, len(rows), replace=False)
    pairs = pd.concat([frame, *others]).query("label == 0")[["user", "item"]]
    assert not pairs.duplicated().any()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / train_path.name
    frame.to_csv(path, index=False)
    return [path, *other_paths]


def _folder(recipe: Recipe, model: str, cache: Path) -> Path:
    digest = sha256(recipe.model.model_dump_json().encode())
    digest.update(recipe.train.model_dump_json().encode())
    return cache / "runs" / f"{model}-{digest.hexdigest()[:12]}"


def _trained(model: str, setting: int, seed: int, cache: Path) -> dict:
    """Train, and look at validation rows alone."""
    recipe = published_recipe(model, setting, seed)
    folder = _folder(recipe, model, cache)
    path = folder / "trained.json"
    if not path.exists():
        result = train(recipe, cache / "tables", folder, device="cpu")
        path.write_text(json.dumps(_told(model, setting, seed, result)))
    return json.loads(path.read_text())


def _told(model: str, setting: int, seed: int, result: TrainResult) -> dict:
    checks = result.checks
    cuts = [check.epoch for check in checks if not check.best]
    l2, dropout = _SETTINGS[model][setting]
    return {
        "model": model,
        "l2": l2,
        "dropout": dropout,
        "seed": seed,
        "epochs": len(checks),
        "best_epoch": result.best.epoch,
        "first_cut_epoch": cuts[0],
        "cpu_s": round(sum(check.cpu_seconds for check in checks), 1),
        "valid": {m: result.best.metrics["click"][m] for m in _METRICS},
    }


def _tested(model: str, setting: int, seed: int, cache: Path) -> dict:
    told = _trained(model, setting, seed, cache)
    recipe = published_recipe(model, setting, seed)
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
