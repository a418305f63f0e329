"""How well survival tasks rank and calibrate, through the whole pipeline.

    RECSYS_MTL_DATA=/path/to/data python benchmarks/survival.py
    RECSYS_MTL_DATA=/path/to/data python benchmarks/survival.py --only flchain --seeds 1
    python benchmarks/survival.py --only fatigue

Recipes run as ``recsys-mtl run`` runs them. ``hdfail`` and ``flchain``: each seed also
splits the rows anew, 60 % to train, 10 % to choose the weights, 30 % to test.
``kuairand`` (watch time: the event is a skip before the end; watching to the end
censors) and ``fatigue`` (simulated, known hazards, beside clicks) train with several
seeds on one split.

Prints one JSON line a data set: mean and standard deviation over seeds of the test
metrics. For ``fatigue`` also the mean distance of predicted from true survival and
hazard over test rows and bins, hazards weighed by who is there at the start of a bin.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.evaluate import read_predictions
from pipelines.run import RunOptions, run_recipe
from recsys_mtl.config.load import load_recipe
from recsys_mtl.config.source import SimulatorSource
from recsys_mtl.data.fatigue import fatigue_survival
from recsys_mtl.data.simulator import Simulator
from recsys_mtl.evaluate.concordance import concordance
from recsys_mtl.evaluate.survival import Observed

_TASKS = {"hdfail": "failure", "flchain": "death"}
_RECIPES = {"kuairand": "kuairand_survival"}
_BOTH = ("click", "leave")
_LEAVE = (
    "{kind: survival, name: leave, time: fatigue_s, event: fatigue_event, bins: 20}"
)
_FATIGUE = (
    f"tasks=[{{kind: binary, name: click, label: is_click}}, {_LEAVE}]",
    "score={kind: sum, weights: {click: 1.0}}",
    "train.early_stopping.metric=leave.c_index",
)
_SHOWN = (
    "auc",
    "c_index",
    "c_index_uno",
    "integrated_brier",
    "ece",
    "survival_error",
    "hazard_error",
)
_GOALS = {"hdfail": 0.86, "flchain": 0.79}


def main() -> None:
    """Run the data sets asked for, and print what they came to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=[*_RUNS], nargs="*", default=[*_RUNS])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--output", type=Path, help="keeps the runs; else temporary")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        for name in options.only:
            result = _RUNS[name](name, folder, options.seeds, options.set)
            sys.stdout.write(json.dumps({"data": name, **result}) + "\n")
            sys.stdout.flush()


def _new_splits(name: str, folder: Path, seeds: int, overrides: list[str]) -> dict:
    """Split and train anew with every seed."""
    valid, test = [], []
    for seed in range(seeds):
        numbers = [f"train.seed={seed}", f"data.split.seed={seed}"]
        output = folder / f"{name}-{seed}"
        summary = run_recipe(
            load_recipe(name, overrides=[*numbers, *overrides]), output
        )
        test.append(summary.metrics[_TASKS[name]])
        history = json.loads((output / "history.json").read_text())
        best = [check for check in history if check["best"]][-1]
        valid.append(best["metrics"][_TASKS[name]])
        _tell(f"{name}, seed {seed}: test c_index {test[-1]['c_index']:.4f}")
    return {
        "seeds": seeds,
        "goal": _GOALS[name],
        "test": _spread(test),
        "valid": _spread(valid),
    }


def _one_split(name: str, folder: Path, seeds: int, overrides: list[str]) -> dict:
    """Train with every seed on one split."""
    recipe = load_recipe(_RECIPES[name], overrides=overrides)
    summary = run_recipe(recipe, folder / name, RunOptions(seeds=seeds))
    by_task = {
        task: _spread([seed.metrics[task] for seed in summary.seeds])
        for task in summary.metrics
    }
    return {"seeds": seeds, "test": by_task}


def _fatigue(name: str, folder: Path, seeds: int, overrides: list[str]) -> dict:
    """Compare with the truth that only the simulator knows."""
    recipe = load_recipe("quickstart", overrides=[*_FATIGUE, *overrides])
    source = recipe.data.interactions
    assert isinstance(source, SimulatorSource)
    output = folder / name
    summary = run_recipe(recipe, output, RunOptions(seeds=seeds))
    simulator = Simulator(source)
    names = ["user_id", "time_ms", "true.fatigue_rate"]
    truth = pa.concat_tables(
        simulator.chunk(i).select(names) for i in range(simulator.num_chunks)
    ).to_pandas()
    errors = []
    for seed in summary.seeds:
        first = seed.seed == recipe.train.seed
        path = output if first else output / f"seed-{seed.seed}"
        curve = read_predictions(path / "predictions.parquet", recipe).curves["leave"]
        keys = pq.read_table(path / "predictions.parquet").to_pandas()
        keys["time_ms"] = keys["key.time"] // 1_000
        rows = keys.rename(columns={"key.user": "user_id"})[["user_id", "time_ms"]]
        rows = rows.merge(truth, on=["user_id", "time_ms"], how="left", validate="1:1")
        true_BP = fatigue_survival(rows["true.fatigue_rate"], [0.0, *curve.points])
        ours_BP = np.pad(curve.above_BP, ((0, 0), (1, 0)), constant_values=1.0)
        hazards = [
            1 - each[:, 1:] / each[:, :-1].clip(1e-9) for each in (true_BP, ours_BP)
        ]
        gap_BP = np.abs(hazards[0] - hazards[1])
        base_BP = np.abs(
            hazards[0] - np.average(hazards[0], 0, weights=true_BP[:, :-1])
        )
        weights = true_BP[:, :-1]
        errors.append(
            {
                "survival_error": float(np.abs(true_BP - ours_BP)[:, 1:].mean()),
                "hazard_error": float(np.average(gap_BP, weights=weights)),
                "hazard_error_of_the_mean": float(np.average(base_BP, weights=weights)),
                "c_index_of_the_truth": _true_c_index(keys, rows),
            }
        )
    test = {task: _spread([s.metrics[task] for s in summary.seeds]) for task in _BOTH}
    return {"seeds": seeds, "test": test, **_spread(errors)}


def _true_c_index(keys: pd.DataFrame, rows: pd.DataFrame) -> float:
    seen = Observed.of(keys["label.leave"].to_numpy())
    found = concordance(
        seen.time_B, seen.event_B, -rows["true.fatigue_rate"].to_numpy()
    )
    assert found is not None
    return found


def _spread(metrics: list[dict[str, float]]) -> dict[str, list[float]]:
    """Mean and standard deviation of each metric."""
    spread = {}
    for metric in [name for name in metrics[0] if name in _SHOWN or "_of_" in name]:
        values = [of[metric] for of in metrics if metric in of]
        if len(values) == len(metrics):
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            spread[metric] = [round(statistics.fmean(values), 5), round(deviation, 5)]
    return spread


def _tell(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()


_RUNS = {
    "hdfail": _new_splits,
    "flchain": _new_splits,
    "kuairand": _one_split,
    "fatigue": _fatigue,
}


if __name__ == "__main__":
    main()
