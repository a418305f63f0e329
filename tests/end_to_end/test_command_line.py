"""``recsys-mtl`` from raw rows to an answer, as a user types it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from simulated import simulated

from recsys_mtl.config.source import SimulatorSource
from recsys_mtl.data.simulator import Simulator

PROGRAM = str(Path(sys.executable).parent / "recsys-mtl")
LINE = re.compile(r"([a-z][\w(): -]*): [\d,]+( of [\d,]+)?, \d+ s(  .*)?")
RECIPE = {
    "name": "small",
    "data": simulated(rows=6_000, users=120, items=80),
    "features": [
        {"kind": "categorical", "name": "user_id"},
        {"kind": "categorical", "name": "item_id"},
        {"kind": "categorical", "name": "tab"},
        {
            "kind": "history",
            "name": "clicks",
            "fields": ["item_id"],
            "where": {"column": "is_click", "equals": 1},
            "length": 5,
        },
    ],
    "tasks": [
        {"kind": "binary", "name": "click", "label": "is_click"},
        {
            "kind": "value",
            "name": "watch",
            "label": "watch_s",
            "sample_space": {"column": "is_click", "equals": 1},
        },
    ],
    "model": {
        "embedding": {"dim": 4},
        "gating": {"kind": "mmoe", "hidden": [8], "num_experts": 2},
        "tower": {"kind": "mlp", "hidden": [4]},
    },
    "train": {"epochs": 1, "batch_size": 512},
}


@dataclass(frozen=True)
class Run:
    """A finished run of the command line."""

    recipe: Path
    output: Path
    stdout: str
    stderr: str

    def read(self, name):
        return json.loads((self.output / name).read_text())


def call(*arguments, folder):
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        check=False,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def contents(folder):
    """Every file and its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def noise(said):
    """Lines that are no progress."""
    return [line for line in said.splitlines() if LINE.fullmatch(line) is None]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "small.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    done = call("run", recipe, "--output", "out", "--seeds", "2", folder=folder)
    assert done.returncode == 0, done.stderr
    return Run(recipe, folder / "out", done.stdout, done.stderr)


@pytest.fixture
def again(run):
    """Types a command in the folder of the run."""
    return lambda *arguments: call(*arguments, folder=run.output.parent)


def test_a_run_leaves_every_part_and_says_where(run):
    for part in ("tables", "checkpoint", "events", "report.html", "bundle"):
        assert (run.output / part).exists()
    for said in ("out/bundle", "out/report.html", "out/summary.json"):
        assert said in run.stdout


def test_a_run_shows_progress_and_nothing_else(run):
    assert noise(run.stderr) == []
    stages = {LINE.fullmatch(line)[1] for line in run.stderr.splitlines()}
    assert {"train", "train (seed 1)", "evaluate", "report", "bundle"} <= stages


def test_metrics_are_the_mean_of_the_seeds_and_each_seed_is_told(run):
    summary = run.read("summary.json")
    aucs = [seed["metrics"]["click"]["auc"] for seed in summary["seeds"]]
    assert [seed["seed"] for seed in summary["seeds"]] == [0, 1]
    assert aucs[0] != aucs[1]
    assert summary["metrics"]["click"]["auc"] == pytest.approx(sum(aucs) / 2)
    mean, spread = (summary[part]["click"]["auc"] for part in ("metrics", "deviations"))
    assert f"{mean:.4f} ± {spread:.4f}" in run.stdout
    assert "rmse" in summary["metrics"]["watch"]


def test_the_summary_tells_what_made_it_and_how_long_it_took(run):
    summary = run.read("summary.json")
    assert summary["command"].endswith("--output out --seeds 2")
    assert list(summary["seconds"]) == [
        "features",
        "train",
        "evaluate",
        "train (seed 1)",
        "evaluate (seed 1)",
        "report",
        "bundle",
    ]
    assert summary["versions"]["torch"].startswith("2.13.0")


def test_what_rounding_cost_is_printed_summed_up_and_reported(tmp_path):
    recipe = tmp_path / "rounded.yaml"
    export = {"tables": "float16", "precision": "bf16", "max_auc_loss": 0.01}
    recipe.write_text(yaml.safe_dump(RECIPE | {"export": export}))
    done = call("run", recipe, "--output", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    run = Run(recipe, tmp_path / "out", done.stdout, done.stderr)
    tables = run.read("bundle/bundle.json")["tables"]
    assert run.read("summary.json")["rounding"] == tables
    before, after = tables["auc"]["click"]
    pages = [
        (run.output / name).read_text()
        for name in ("report.html", "bundle/report.html")
    ]
    for said in (run.stdout, *pages):
        assert "Embedding tables in float16" in said
        assert "Products in bf16" in said
        assert f"{after - before:+.5f}" in said
    # A page that was lost is written again as it was.
    (run.output / "report.html").unlink()
    again = call("run", recipe, "--output", "out", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "Embedding tables in float16" in (run.output / "report.html").read_text()


def test_a_run_of_whole_tables_says_nothing_of_rounding(run):
    assert run.read("summary.json")["rounding"] is None
    assert "Embedding tables in" not in run.stdout


def test_the_bundle_measures_what_the_run_measured(run, again):
    done = again(
        *("evaluate", "out/bundle", "--tables", "out/tables"),
        *("--predictions", "predictions.parquet"),
    )
    assert done.returncode == 0, done.stderr
    assert noise(done.stderr) == []
    first = run.read("summary.json")["seeds"][0]["metrics"]
    assert f"{first['click']['auc']:.4f}" in done.stdout
    table = pq.read_table(run.output.parent / "predictions.parquet")
    assert table.num_rows == first["click"]["rows"]
    # A label that does not exist is null, not a number.
    assert table.num_rows - table["label.watch"].null_count == first["watch"]["rows"]


def test_an_xray_is_a_page_and_its_figures_and_leaves_the_bundle_alone(run, again):
    before = contents(run.output / "bundle")
    done = again("xray", "out/bundle", "--rows", "400", "--shuffles", "2")
    assert done.returncode == 0, done.stderr
    assert noise(done.stderr) == []
    for about in ("collapse", "degradation", "underfitting", "conflict", "tables"):
        assert about in done.stdout
    figures = run.read("xray.json")
    assert figures["rows"] == 400
    assert {of["feature"] for of in figures["features"]} == {
        "user_id",
        "item_id",
        "tab",
        "clicks",
    }
    assert [check["step"] for check in figures["history"]] == [
        check["step"] for check in run.read("history.json")
    ]
    page = (run.output / "xray.html").read_text(encoding="utf-8")
    assert all(task in page for task in ("click", "watch"))
    assert contents(run.output / "bundle") == before


@pytest.mark.parametrize("output", ["out/bundle/xray.html", "xray.json"])
def test_an_xray_is_not_written_where_it_would_break_something(again, output):
    done = again("xray", "out/bundle", "--output", output)
    assert done.returncode == 1
    assert "must" in done.stderr
    assert done.stderr.count("\n") == 1


def test_verbose_shows_what_libraries_say(again):
    done = again("evaluate", "out/bundle", "--tables", "out/tables", "--verbose")
    assert done.returncode == 0, done.stderr
    assert noise(done.stderr) != []


def test_rows_are_scored_in_bulk(run, again):
    log = Simulator(SimulatorSource.model_validate(RECIPE["data"]["interactions"]))
    rows = log.chunk(0).slice(0, 100)
    pq.write_table(rows, run.output.parent / "rows.parquet")
    done = again(
        "score", "out/bundle", "--input", "rows.parquet", "--output", "scores.parquet"
    )
    assert done.returncode == 0, done.stderr
    assert noise(done.stderr) == []
    scores = pq.read_table(run.output.parent / "scores.parquet")
    assert scores["item_id"].equals(rows["item_id"])
    assert {"click", "watch", "score"} <= set(scores.column_names)


def test_a_second_start_does_nothing_twice(run, again):
    before = run.read("stages.json")
    done = again("run", run.recipe, "--output", "out", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert run.read("stages.json") == before
    assert run.read("summary.json")["skipped"] == list(before["stages"])
    assert "done before" in done.stdout


def test_a_stage_whose_output_was_removed_is_done_again_alone(run, again):
    (run.output / "report.html").unlink()
    done = again("run", run.recipe, "--output", "out", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert (run.output / "report.html").exists()
    assert set(run.read("stages.json")["stages"]) - set(
        run.read("summary.json")["skipped"]
    ) == {"report"}


def test_another_recipe_does_not_overwrite_a_run_unasked(run, again):
    before = run.read("evaluation.json")
    done = again("run", run.recipe, "--output", "out", "--set", "train.epochs=2")
    assert done.returncode == 1
    assert "--overwrite" in done.stderr
    assert run.read("evaluation.json") == before


def test_a_run_does_not_start_in_a_folder_of_something_else(run, again):
    folder = run.output.parent / "thesis"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    done = again("run", run.recipe, "--output", "thesis", "--overwrite")
    assert done.returncode == 1
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_port_in_use_is_told_in_one_line(again):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = again("serve", "out/bundle", "--port", port)
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "in use" in done.stderr
    assert done.stderr.count("\n") == 1


# A shell's background job ignores Ctrl-C, and so do its children.
_HEARING = """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "stopped\n"), (signal.SIGTERM, 143, "")],
)
def test_a_signal_ends_a_run_with_no_traceback_and_no_process_left(
    tmp_path, run, number, code, said
):
    hearing = [sys.executable, "-c", _HEARING]
    process = subprocess.Popen(
        [*hearing, PROGRAM, "run", run.recipe, "--output", tmp_path / "run"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        first = process.stderr.readline()  # it is at work
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        out, rest = process.communicate(timeout=60)
    assert process.returncode == code, first + rest
    assert rest.endswith(said)
    assert "Traceback" not in rest
    assert out == ""
    assert psutil.wait_procs(started, timeout=10)[1] == []
