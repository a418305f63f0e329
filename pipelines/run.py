"""All stages of a recipe in one folder: a run.

``tables/ checkpoint/ events/ history.json calibration.json evaluation.json
predictions.parquet report.html bundle/ summary.json``; further seeds lie in
``seed-<seed>/``.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, final

from pipelines.ledger import Ledger
from pipelines.summary import (
    Metrics,
    RunSummary,
    SeedResult,
    installed,
    over_seeds,
)
from recsys_mtl.calibrate import Calibration, check_labels, wants_calibration
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.evaluate.rounding import Rounding
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.progress import OnProgress, Progress, silent

__all__ = ["RunOptions", "run_recipe", "train_once"]

_OUTPUTS = (
    "tables",
    "checkpoint",
    "events",
    "history.json",
    "calibration.json",
    "evaluation.json",
    "predictions.parquet",
    "report.html",
    "bundle",
    "xray.html",
    "xray.json",
    "request.json",
    "summary.json",
    "stages.json",
)


@dataclass(frozen=True)
class RunOptions:
    """How to run, as against what.

    Attributes:
        workers: Training processes.
        seeds: Trainings, with seeds counted up from the recipe's.
        overwrite: Whether to start anew in a folder that holds a run.
        request: Whether to start a server at the end and ask it once.
        verbose: Whether libraries may write to the console.
        command: What the user typed.
    """

    workers: int = 1
    seeds: int = 1
    overwrite: bool = False
    request: bool = False
    verbose: bool = False
    command: str = ""


def run_recipe(
    recipe: Recipe,
    output: Path,
    options: RunOptions | None = None,
    *,
    on_progress: OnProgress = silent,
) -> RunSummary:
    """Run every stage that is not done yet, and write ``summary.json``.

    Args:
        recipe: What to run.
        output: Folder of this run alone.
        options: How to run.
        on_progress: Told of every stage.

    Raises:
        ArtifactError: ``output`` holds something else, or a run of another recipe.
        RecsysError: A stage failed; those before it stay done.
    """
    options = options or RunOptions()
    if options.overwrite:
        _remove_run(output)
    return _Run(recipe, output, options, on_progress).finish()


def train_once(
    recipe: Recipe,
    tables: Path,
    run_dir: Path,
    *,
    workers: int,
    on_progress: OnProgress = silent,
) -> None:
    """Train in this process, or with Ray on several."""
    if workers == 1:
        from recsys_mtl.train.loop import train

        train(recipe, tables, run_dir, on_progress=on_progress)
    else:
        from pipelines.train import train_on_workers

        train_on_workers(recipe, tables, run_dir, workers, on_progress=on_progress)


@final
class _Run:
    """One run, stage after stage."""

    def __init__(
        self, recipe: Recipe, output: Path, options: RunOptions, on_progress: OnProgress
    ) -> None:
        self._recipe = recipe
        self._options = options
        self._on_progress = on_progress
        self._output = output
        self._tables = output / "tables"
        self._ledger = Ledger(output)
        self._skipped: list[str] = []

    def finish(self) -> RunSummary:
        self._features()
        first = self._recipe.train.seed
        seeds = [
            self._seed(first + n, self._folder(n)) for n in range(self._options.seeds)
        ]
        key = self._key(first)
        self._report(key, seeds[0].metrics)
        self._bundle(key, seeds[0].metrics)
        request, response = self._ask(key) if self._options.request else (None, None)
        means, deviations = over_seeds([seed.metrics for seed in seeds])
        summary = RunSummary(
            recipe=self._recipe.name,
            command=self._options.command,
            metrics=means,
            deviations=deviations,
            seeds=tuple(seeds),
            seconds=self._ledger.seconds,
            skipped=tuple(self._skipped),
            tables=str(self._tables),
            bundle=str(self._output / "bundle"),
            report=str(self._output / "report.html"),
            request=request,
            response=response,
            rounding=self._rounding(),
            versions=installed(),
        )
        text = json.dumps(summary.model_dump(mode="json"), indent=1)
        (self._output / "summary.json").write_text(text + "\n")
        return summary

    def _folder(self, number: int) -> Path:
        if number == 0:
            return self._output
        return self._output / f"seed-{self._recipe.train.seed + number}"

    def _features(self) -> None:
        from pipelines.features import tables_digest

        key = tables_digest(self._recipe)
        if not self._skip("features", key, self._tables):
            self._ledger.record("features", key, self._build_tables)
        self._check_labels()

    def _build_tables(self) -> None:
        from pipelines.features import build_feature_tables

        build_feature_tables(
            self._recipe,
            self._tables,
            verbose=self._options.verbose,
            on_progress=self._on_progress,
        )

    def _check_labels(self) -> None:
        """Refuse now what could not be calibrated after a long training."""
        if wants_calibration(self._recipe.tasks):
            tasks = FeatureManifest.load(self._tables).tasks
            valid = {name: of["valid"] for name, of in tasks.items() if "valid" in of}
            counts = {name: (of.positives, of.rows) for name, of in valid.items()}
            check_labels(self._recipe.tasks, counts)

    def _train_key(self, seed: int) -> str:
        """Digest of what the training depends on."""
        return self._digest(_with_seed(self._recipe, seed).uncalibrated)

    def _key(self, seed: int) -> str:
        """Digest of what comes after the training, and is done again if it changes."""
        return self._digest(_with_seed(self._recipe, seed))

    def _digest(self, recipe: Recipe) -> str:
        # Without torch, so that a run with nothing left to do says so at once.
        digest = sha256(recipe.model_dump_json().encode())
        digest.update((self._tables / "manifest.json").read_bytes())
        return digest.hexdigest()

    def _seed(self, seed: int, folder: Path) -> SeedResult:
        recipe, key = _with_seed(self._recipe, seed), self._train_key(seed)
        suffix = "" if folder == self._output else f" (seed {seed})"
        if not self._skip(f"train{suffix}", key, folder / "checkpoint"):
            self._ledger.record(
                f"train{suffix}",
                key,
                lambda: train_once(
                    recipe,
                    self._tables,
                    folder,
                    workers=self._options.workers,
                    on_progress=_renamed(self._on_progress, suffix),
                ),
            )
        key = self._key(seed)
        calibration = folder / "calibration.json"
        if not wants_calibration(recipe.tasks):
            calibration.unlink(missing_ok=True)  # of an earlier recipe
        elif not self._skip(f"calibrate{suffix}", key, calibration, again=True):
            self._ledger.record(
                f"calibrate{suffix}",
                key,
                self._told(
                    f"calibrate{suffix}", lambda: self._calibrate(recipe, folder)
                ),
            )
        path = folder / "evaluation.json"
        if not self._skip(f"evaluate{suffix}", key, path, again=True):
            self._ledger.record(
                f"evaluate{suffix}",
                key,
                lambda: self._evaluate(recipe, seed, folder, suffix),
            )
        return SeedResult.model_validate_json(path.read_text())

    def _calibrate(self, recipe: Recipe, folder: Path) -> None:
        from pipelines.calibrate import calibrate_network
        from recsys_mtl.train.checkpoint import load_network

        network = load_network(recipe, self._tables, folder)
        fitted = calibrate_network(network, recipe, self._tables)
        fitted.save(folder / "calibration.json")

    def _evaluate(self, recipe: Recipe, seed: int, folder: Path, suffix: str) -> None:
        from pipelines.evaluate import evaluate_network
        from pipelines.truth import best_possible
        from recsys_mtl.train.checkpoint import load_network

        predictions = folder / "predictions.parquet"
        metrics = evaluate_network(
            load_network(recipe, self._tables, folder),
            recipe,
            self._tables,
            "test",
            calibration=_calibration(folder),
            predictions=predictions,
            on_progress=_renamed(self._on_progress, suffix),
        )
        for task, best in best_possible(recipe, predictions, metrics).items():
            metrics[task] |= best
        result = SeedResult(seed=seed, metrics=metrics)
        (folder / "evaluation.json").write_text(result.model_dump_json(indent=1))

    def _report(self, key: str, metrics: Metrics) -> None:
        if self._skip("report", key, self._output / "report.html", again=True):
            return
        folder = self._output / "bundle"
        bundled = self._ledger.is_done("bundle", key, folder, again=True)
        rounding = self._rounding() if bundled else None
        work = self._told("report", lambda: self._write_report(metrics, rounding))
        self._ledger.record("report", key, work)

    def _write_report(self, metrics: Metrics, rounding: Rounding | None) -> None:
        from pipelines.evaluate import read_predictions, read_uncalibrated
        from recsys_mtl.evaluate.report import write_report

        history = json.loads((self._output / "history.json").read_text())
        best = next(check for check in reversed(history) if check["best"])
        predictions = self._output / "predictions.parquet"
        made = read_predictions(predictions, self._recipe)
        write_report(
            self._output / "report.html",
            recipe=self._recipe,
            history=history,
            metrics={"test": metrics, "valid": best["metrics"]},
            label_BT=made.label_BT,
            prediction_BT=made.prediction_BT,
            curves=made.curves,
            uncalibrated=read_uncalibrated(predictions),
            rounding=rounding,
            command=self._options.command,
            counts=FeatureManifest.load(self._tables).counts,
            seconds=self._ledger.seconds,
        )

    def _rounding(self) -> Rounding | None:
        """What the bundle says of its rounding, if there is any."""
        info = json.loads((self._output / "bundle" / "bundle.json").read_text())
        rounding = Rounding.model_validate(info["tables"])
        return rounding if rounding.rounds else None

    def _bundle(self, key: str, metrics: Metrics) -> None:
        folder = self._output / "bundle"
        if self._skip("bundle", key, folder, again=True):
            return

        def work() -> None:
            from recsys_mtl.export.bundle import write_bundle
            from recsys_mtl.train.checkpoint import load_network

            shutil.rmtree(folder, ignore_errors=True)
            network = load_network(self._recipe, self._tables, self._output)

            def on_rounding(rounding: Rounding) -> None:
                # Known only now; the page in the bundle is to tell it as well.
                if rounding.rounds:
                    self._write_report(metrics, rounding)

            write_bundle(
                folder,
                recipe=self._recipe,
                tables=self._tables,
                state=network.state_dict(),
                metrics=metrics,
                report=self._output / "report.html",
                calibration=_calibration(self._output),
                on_rounding=on_rounding,
            )

        self._ledger.record("bundle", key, self._told("bundle", work))

    def _ask(self, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
        path = self._output / "request.json"

        def work() -> None:
            from pipelines.request import ask_once

            exchange = ask_once(
                self._output / "bundle", self._tables, on_progress=self._on_progress
            )
            path.write_text(json.dumps(exchange, indent=1))

        if not self._skip("request", key, path, again=True):
            self._ledger.record("request", key, work)
        exchange = json.loads(path.read_text())
        return exchange["request"], exchange["response"]

    def _skip(self, stage: str, key: str, output: Path, *, again: bool = False) -> bool:
        if not self._ledger.is_done(stage, key, output, again=again):
            return False
        self._skipped.append(stage)
        self._on_progress(Progress(stage, 1, 1, "done before"))
        return True

    def _told(self, stage: str, work: Callable[[], None]) -> Callable[[], None]:
        def told() -> None:
            self._on_progress(Progress(stage, 0, 1))
            work()
            self._on_progress(Progress(stage, 1, 1))

        return told


def _calibration(folder: Path) -> Calibration:
    path = folder / "calibration.json"
    return Calibration.load(path) if path.exists() else Calibration()


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    train = recipe.train.model_copy(update={"seed": seed})
    return recipe.model_copy(update={"train": train})


def _renamed(on_progress: OnProgress, suffix: str) -> OnProgress:
    """Tell further seeds' stages from the first one's."""
    return lambda progress: on_progress(
        replace(progress, stage=progress.stage + suffix)
    )


def _remove_run(output: Path) -> None:
    """Remove what a run made, if ``output`` is a run; nothing else is touched."""
    if not (output / "stages.json").exists():
        return
    for path in (*(output / name for name in _OUTPUTS), *output.glob("seed-*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
