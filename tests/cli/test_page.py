import io
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.summary import RunSummary, SeedResult
from recsys_mtl.cli.page import closing_page, metrics_table
from recsys_mtl.evaluate.rounding import Rounding

CLICK = {
    "rows": 80_000.0,
    "positives": 24_678.0,
    "auc": 0.83061,
    "gauc": 0.81,
    "log_loss": 0.45,
    "normalised_entropy": 0.74,
    "calibration_ratio": 1.005,
}
WATCH = {"rows": 24_678.0, "positives": 24_678.0, "rmse": 20.3, "mae": 11.76}
METRICS = {"long_view_30s": CLICK, "watch": WATCH}


def printed(page, width=80):
    written = io.StringIO()
    Console(file=written, width=width).print(page, crop=False)
    return written.getvalue()


def summary(**changed):
    values = {
        "recipe": "shop",
        "command": "recsys-mtl run shop",
        "metrics": METRICS,
        "deviations": {},
        "seeds": (SeedResult(seed=0, metrics=METRICS),),
        "seconds": {"features": 31.4, "train": 58.7},
        "skipped": (),
        "tables": "runs/a_rather_long_name/tables",
        "bundle": "runs/a_rather_long_name/bundle",
        "report": "runs/a_rather_long_name/report.html",
        "request": None,
        "response": None,
        "versions": {},
    }
    return RunSummary(**{**values, **changed})


def test_metrics_fit_a_narrow_terminal_uncut():
    said = printed(metrics_table(METRICS))
    assert "…" not in said
    for cell in ("long_view_30s", "0.8306", "24,678", "1.005", "11.76"):
        assert cell in said


def test_tasks_of_a_kind_share_a_table_and_no_cell_is_of_the_other_kind():
    first, second = printed(metrics_table(METRICS)).split("RMSE")
    assert "AUC" in first
    assert "long_view_30s" in first
    assert "watch" in second
    assert "watch" not in first


def test_deviations_stand_beside_means_and_counts_have_none():
    said = printed(metrics_table({"click": CLICK}, {"click": {"auc": 0.0012}}))
    assert "0.8306 ± 0.0012" in said
    assert said.count("±") == 1


def test_a_task_without_positives_has_an_empty_cell_for_auc():
    said = printed(metrics_table({"a": CLICK, "b": {"rows": 5.0, "positives": 0.0}}))
    assert said.splitlines()[2].split() == ["b", "5", "0"]


def test_the_closing_page_has_commands_to_copy_and_all_places():
    said = printed(closing_page(summary(), Path("runs/a_rather_long_name")))
    commands = [row for row in said.splitlines() if row.startswith("recsys-mtl ")]
    assert len(commands) == 3
    assert "recsys-mtl serve runs/a_rather_long_name/bundle" in commands
    assert "runs/a_rather_long_name/summary.json" in said
    assert "90 s in all" in said


def test_commands_are_never_cut_or_wrapped():
    page = closing_page(summary(), Path("runs/x"), program=".venv/bin/recsys-mtl")
    said = printed(page, width=40)
    assert (
        ".venv/bin/recsys-mtl evaluate runs/a_rather_long_name/bundle "
        "--tables runs/a_rather_long_name/tables\n" in said
    )


def test_the_closing_page_tells_what_rounding_cost():
    auc = {"long_view_30s": (0.81234, 0.81229)}
    rounding = Rounding(kind="int8", bytes=3e6, float32_bytes=8e6, auc=auc)
    said = printed(closing_page(summary(rounding=rounding), Path("runs/x")))
    assert "Embedding tables in int8: 3.00 MB instead of 8.00" in said
    (line,) = (line for line in said.splitlines() if "-0.00005" in line)
    assert line.split() == ["long_view_30s", "0.8123", "0.8123", "-0.00005"]
    assert "Embedding tables" not in printed(closing_page(summary(), Path("runs/x")))


def test_the_closing_page_shows_what_was_ranked_best_first():
    items = [
        {"id": 9 - n, "score": 1.0 - n / 10, "predictions": {"click": 0.5 - n / 10}}
        for n in range(3)
    ]
    page = closing_page(summary(response={"items": items}), Path("runs/x"))
    rows = printed(page).split("One ranked request")[1].splitlines()[2:5]
    assert [row.split() for row in rows] == [
        ["9", "1.0000", "0.5000"],
        ["8", "0.9000", "0.4000"],
        ["7", "0.8000", "0.3000"],
    ]


@pytest.mark.parametrize("skipped", [(), ("features", "train")])
def test_stages_that_were_done_before_are_told(skipped):
    said = printed(closing_page(summary(skipped=skipped), Path("runs/x")))
    assert ("done before: features, train" in said) == bool(skipped)


def test_levels_and_times_have_tables_of_their_own():
    rating = {"rows": 9.0, "positives": 5.0, "mae": 0.5, "kappa": 0.6123}
    leave = {"rows": 7.0, "positives": 3.0, "c_index": 0.7123, "ece": 0.0123}
    said = printed(metrics_table({"leave": leave, "rating": rating, "click": CLICK}))
    first, second, third = said.split("task")[1:]
    assert "0.8306" in first
    assert "0.6123" in second
    assert "0.7123" in third
