"""Sharing between tasks compared: seven models on three logs, under one budget.

    python benchmarks/multitask.py --data kuairand jd_micro simulator-0 simulator-1
    python benchmarks/multitask.py --data simulator-0 --models mmoe home --seeds 2

Needs RECSYS_MTL_DATA for the public logs. Every model gets the same settings to choose
from (``_TRIALS``), one training each, chosen by the mean validation AUC of the binary
tasks, or of clicks where the recipe stops by clicks; the chosen one is trained with
``--seeds`` seeds, and only those see test rows, once: the first of them is the training
it was chosen by. Everything but
``model.bottom``, ``model.gating`` and the settings tried is the shipped recipe's, or
``_SIMULATED``. Each training is kept in ``--folder``, so that a second start goes on.

Simulated logs are small, so that all fits into two hours of one core. Prints one JSON
line a model and log: test AUC a task, mean and standard deviation over
seeds; differences to MMoE, paired by seed, with 95 % intervals of Student's t;
parameters without embedding tables; processor seconds of a training. Last a table.
"""

import argparse
import hashlib
import json
import math
import os
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from multitask_one import test_once, train_once

from pipelines.features import build_feature_tables
from recsys_mtl.config.load import load_recipe

# Without orders: so few rows have hardly any.
_SIMULATED = {
    "tasks": "[{kind: binary, name: click, label: is_click}, "
    "{kind: binary, name: long_view, label: long_view}, "
    "{kind: binary, name: like, label: like}, "
    "{kind: binary, name: follow, label: follow}, "
    "{kind: value, name: watch_s, label: watch_s, loss: log_normal, weight: 0.3, "
    "sample_space: {column: is_click, equals: 1}}]",
    "score.weights": "{click: 1.0}",
    "features.24.length": 10,
    "data.interactions.rows": 40_000,
    "data.interactions.num_users": 400,
    "data.interactions.num_items": 400,
    "model.embedding.dim": 8,
    "train.batch_size": 512,
    "train.epochs": 6,
    "train.checks_per_epoch": 1,
    "train.early_stopping": "{metric: mean.auc, patience: 2}",
}
_LOGS: dict[str, tuple[str, dict[str, Any]]] = {
    "kuairand": ("kuairand", {}),
    "jd_micro": ("jd_micro", {}),
    **{
        f"simulator-{conflict}": (
            "quickstart",
            {**_SIMULATED, "data.interactions.conflict": conflict},
        )
        for conflict in (0, 0.5, 1)
    },
}
# Tasks that want the same of a feed, for HoME.
_GROUPS = {
    "kuairand": "{watch: [click, long_view], read: [read_comments, profile, comment], "
    "share: [forward, follow]}",
    "jd_micro": "{read: [comments, spec, bottom, dwell], buy: [cart, order]}",
    "quickstart": "{watch: [click, long_view, watch_s], act: [like, follow]}",
}
# Experts of about the same number of parameters in all: 4 of (WIDE, NARROW), or what
# comes nearest to it in a gating with experts of tasks and groups.
_MMOE = "{kind: mmoe, num_experts: 4, hidden: [WIDE, NARROW], dropout: DROPOUT}"
_HOME = (
    "{kind: home, groups: GROUPS, levels: [[NARROW], [NARROW]], num_meta_shared: 2, "
    "num_meta_group: 1, dropout: DROPOUT}"
)
_DTRN = "{kind: dtrn, width: 16, dropout: BOTTOM}"
_FLAT = "{kind: flat, dropout: BOTTOM}"
_MODELS = {
    "shared_bottom": (
        _FLAT,
        "{kind: shared_bottom, hidden: [SHARED, NARROW], dropout: DROPOUT}",
    ),
    "mmoe": (_FLAT, _MMOE),
    "ple": (
        _FLAT,
        "{kind: ple, levels: [[NARROW], [NARROW]], num_specific: 1, num_shared: 2, "
        "dropout: DROPOUT}",
    ),
    "home": (_FLAT, _HOME),
    "dtrn+mmoe": (_DTRN, _MMOE),
    "dtrn+home": (_DTRN, _HOME),
    "apem": ("{kind: apem}", _MMOE),
}
_SMALL = {"WIDE": "64", "NARROW": "32", "SHARED": "192", "BOTTOM": "DROPOUT"}
_LARGE = {"WIDE": "128", "NARROW": "64", "SHARED": "384", "BOTTOM": "0.1"}
_SIZES = {"quickstart": _SMALL, "kuairand": _LARGE, "jd_micro": _LARGE}
_TRIALS = [{"DROPOUT": dropout} for dropout in (0.1, 0.3)]


def main() -> None:
    """Train what is not trained yet, and print what all came to."""
    options = _options()
    for log in options.data:
        recipe, changes = _LOGS[log]
        if not (tables := options.folder / log / "tables").exists():
            overrides = [f"{key}={value}" for key, value in changes.items()]
            build_feature_tables(load_recipe(recipe, overrides=overrides), tables)
    # Workers start anew: each then reads these switches, and imports torch once.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        lines = [
            line
            for log in options.data
            for line in _compare(log, options.models, options, pool)
        ]
    for line in lines:
        print(json.dumps(line))
    print(_table(lines))


def _compare(
    log: str, models: list[str], options: argparse.Namespace, pool: Executor
) -> list[dict[str, Any]]:
    """Tune and train all models on one log."""
    recipe, changes = _LOGS[log]

    def start(model: str, trial: int, seed: int, *, test: bool) -> Future[dict]:
        settings = _settings(recipe, model, trial) | {"train.seed": seed}
        job = {
            "recipe": recipe,
            "set": _set(changes | settings | {"train.num_threads": 1}),
            "tables": str(options.folder / log / "tables"),
        }
        return pool.submit(_kept, options.folder / log / model, job, test=test)

    trials, seeds = range(len(_TRIALS)), range(options.seeds)
    tried = {m: [start(m, trial, 0, test=False) for trial in trials] for m in models}
    chosen = {
        model: max(trials, key=lambda trial: _worth(log, runs[trial].result()))
        for model, runs in tried.items()
    }
    started = {
        model: [start(model, trial, seed, test=True) for seed in seeds]
        for model, trial in chosen.items()
    }
    results = {model: [r.result() for r in runs] for model, runs in started.items()}
    return [
        _line(log, model, _TRIALS[chosen[model]], runs, results.get("mmoe"))
        for model, runs in results.items()
    ]


def _worth(log: str, result: dict[str, Any]) -> float:
    """What a setting is chosen by: as in the recipe, what training stops by."""
    worth: float = (
        result["valid_auc"]["click"] if log == "kuairand" else result["valid"]
    )
    return worth


def _kept(folder: Path, job: dict[str, Any], *, test: bool) -> dict[str, Any]:
    """Train and test, unless files say what came of it before."""
    text = json.dumps(job, sort_keys=True)
    folder /= hashlib.sha256(text.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    result = _once(folder / "valid.json", lambda: train_once(job, folder / "run"))
    if test:
        result |= _once(folder / "test.json", lambda: test_once(job, folder / "run"))
    print(
        f"{folder.parent.parent.name} {folder.parent.name}: valid "
        f"{result['valid']:.4f}, {result['cpu_s']:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return result


def _once(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not path.exists():
        path.write_text(json.dumps(work()))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _settings(recipe: str, model: str, trial: int) -> dict[str, Any]:
    tried = dict(_TRIALS[trial])
    dropout = str(tried.pop("DROPOUT"))
    words = {"GROUPS": _GROUPS[recipe], **_SIZES[recipe], "DROPOUT": dropout}
    bottom, gating = _MODELS[model]
    for word, value in words.items():
        bottom, gating = bottom.replace(word, value), gating.replace(word, value)
    return {
        "model.bottom": bottom,
        "model.gating": gating,
        "model.tower.dropout": dropout,
        **tried,
    }


def _line(
    log: str,
    model: str,
    trial: dict[str, Any],
    runs: list[dict[str, Any]],
    base: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    tasks = list(runs[0]["test"])
    auc = {task: [run["test"][task] for run in runs] for task in tasks}
    line: dict[str, Any] = {
        "log": log,
        "model": model,
        "chosen": trial,
        "seeds": len(runs),
        "auc": {task: _mean_sd(values) for task, values in auc.items()},
        "mean_auc": _mean_sd([statistics.fmean(run["test"].values()) for run in runs]),
        "parameters": runs[0]["parameters"],
        "cpu_s": round(statistics.median(run["cpu_s"] for run in runs), 1),
    }
    if base is not None and model != "mmoe" and len(runs) > 1:
        line["minus_mmoe"] = {
            task: _paired(
                [a - b["test"][task] for a, b in zip(values, base, strict=True)]
            )
            for task, values in auc.items()
        }
    return line


def _mean_sd(values: list[float]) -> list[float]:
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return [round(statistics.fmean(values), 4), round(spread, 4)]


def _paired(differences: list[float]) -> list[float]:
    """Mean difference and its 95 % interval."""
    from scipy.stats import t

    count, mean = len(differences), statistics.fmean(differences)
    half = float(t.ppf(0.975, count - 1)) * statistics.stdev(differences) / count**0.5
    return [round(value, 4) for value in (mean, mean - half, mean + half)]


def _table(lines: list[dict[str, Any]]) -> str:
    rows = []
    for log in dict.fromkeys(line["log"] for line in lines):
        of_log = [line for line in lines if line["log"] == log]
        tasks = list(of_log[0]["auc"])
        rows += ["", f"| {log} | {' | '.join(tasks)} | parameters | CPU s |"]
        rows.append("|---" * (len(tasks) + 3) + "|")
        for line in of_log:
            cells = [_cell(line, task) for task in tasks]
            cells += [f"{line['parameters']:,}", f"{line['cpu_s']:.0f}"]
            rows.append(f"| {line['model']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(line: dict[str, Any], task: str) -> str:
    mean, spread = line["auc"][task]
    text = f"{mean:.4f} ± {spread:.4f}"
    _, low, high = line.get("minus_mmoe", {}).get(task, (0, 0, 0))
    # A star: better or worse than MMoE, and the interval leaves 0 out.
    return text + (" +" if low > 0 else " -" if high < 0 else "")


def _set(changes: dict[str, Any]) -> list[str]:
    return [f"--set={key}={value}" for key, value in changes.items()]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", choices=list(_LOGS), default=list(_LOGS))
    parser.add_argument(
        "--models", nargs="+", choices=list(_MODELS), default=list(_MODELS)
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument(
        "--folder", type=Path, default=default / "recsys-mtl" / "multitask"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
