"""Scores over HTTP equal those of offline evaluation, on real rows."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from recsys_mtl.config.feature import AggregateFeature, HistoryFeature
from recsys_mtl.config.load import load_recipe
from recsys_mtl.export.bundle import load_bundle
from serving.process import ServerProcess

PROGRAM = str(Path(sys.executable).parent / "recsys-mtl")
DATA = os.environ.get("RECSYS_MTL_DATA")
ROWS, ROWS_A_REQUEST, TOLERANCE = 1_000, 250, 1e-5
pytestmark = pytest.mark.skipif(
    DATA is None, reason="RECSYS_MTL_DATA does not name a folder with the public data"
)
FEATURES = load_recipe("kuairand").features if DATA else ()
HISTORIES = [f for f in FEATURES if isinstance(f, HistoryFeature)]
AGGREGATES = [f for f in FEATURES if isinstance(f, AggregateFeature)]
COLUMN_OF = {f.name: getattr(f, "column", None) or f.name for f in FEATURES}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kuairand") / "run"
    subprocess.run(
        [PROGRAM, "run", "kuairand", "--output", folder, "--set", "train.epochs=1"],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def expected(run) -> pd.DataFrame:
    """A thousand test rows as evaluation predicted them."""
    rows = pd.read_parquet(run / "predictions.parquet")
    # The log has some rows twice; one of each is enough to ask for.
    rows = rows.drop_duplicates(["key.user", "key.item", "key.time"])
    return rows.sample(ROWS, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def url(run):
    with ServerProcess(run / "bundle", engine="uvicorn") as server:
        yield server.url


def ask(url: str, columns: dict[str, list]) -> dict[str, np.ndarray]:
    parts: dict[str, list] = {}
    for start in range(0, ROWS, ROWS_A_REQUEST):
        stop = start + ROWS_A_REQUEST
        body = {"columns": {n: v[start:stop] for n, v in columns.items()}}
        answer = httpx.post(f"{url}/v1/score", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        for task, values in answer.json()["predictions"].items():
            parts.setdefault(task, []).extend(values)
    return {task: np.array(values) for task, values in parts.items()}


def keys(rows: pd.DataFrame) -> dict[str, list]:
    return {
        "user_id": rows["key.user"].tolist(),
        "video_id": rows["key.item"].tolist(),
        "time_ms": (rows["key.time"] // 1_000).tolist(),
    }


def test_rows_given_by_id_score_as_in_evaluation(url, expected):
    for task, scores in ask(url, keys(expected)).items():
        np.testing.assert_allclose(
            scores, expected[f"prediction.{task}"], rtol=0, atol=TOLERANCE
        )


def test_rows_given_by_raw_features_score_as_in_evaluation(run, url, expected):
    columns = keys(expected) | given_features(expected)
    declared = {column.name for column in load_bundle(run / "bundle").signature}
    read_of_events = {c for h in HISTORIES for c in raw_columns(h)}
    assert declared - set(columns) <= read_of_events
    for task, scores in ask(url, columns).items():
        np.testing.assert_allclose(
            scores, expected[f"prediction.{task}"], rtol=0, atol=TOLERANCE
        )


def given_features(rows: pd.DataFrame) -> dict[str, list]:
    """What a client would send that keeps features, histories and counts itself."""
    folder = Path(DATA) / "kuairand"
    log = pd.read_csv(folder / "processed_standard_kcore_15.tsv.gz", sep="\t")
    users = pd.read_csv(folder / "user_features_pure.csv.gz", dtype=str)
    numbers = {"follow_user_num", "fans_user_num", "friend_user_num", "register_days"}
    mine = users.set_index("user_id").loc[rows["key.user"]]
    mine = mine[[name for name in mine.columns if name in COLUMN_OF.values()]]
    columns = {
        name: [
            None if pd.isna(v) else float(v) if name in numbers else v
            for v in mine[name]
        ]
        for name in mine.columns
    }
    duration = log.drop_duplicates("video_id").set_index("video_id")["duration_ms"]
    items = rows["key.item"].astype(int)
    columns["duration_ms"] = duration.loc[items].astype(float).tolist()
    log = log.sort_values("time_ms", kind="stable").reset_index(drop=True)
    counts_A = [counted_and_hit(aggregate, log) for aggregate in AGGREGATES]
    of_user, of_item = (log.groupby(key).indices for key in ("user_id", "video_id"))
    times = log["time_ms"].to_numpy()
    for user, item, micros in zip(
        rows["key.user"].astype(int), items, rows["key.time"], strict=True
    ):
        now = micros // 1_000
        earlier = {
            by: places[times[places] < now]
            for by, places in (("user", of_user[user]), ("item", of_item[item]))
        }
        for history in HISTORIES:
            add_history(columns, history, log.iloc[earlier["user"]])
        for aggregate, (counted, hit) in zip(AGGREGATES, counts_A, strict=True):
            places = earlier[aggregate.by]
            places = places[counted[places]][-aggregate.length :]
            name = aggregate.name
            columns.setdefault(f"{name}.rows", []).append(float(len(places)))
            columns.setdefault(f"{name}.hits", []).append(float(hit[places].sum()))
    return columns


def counted_and_hit(aggregate, log: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    everything = pd.Series(True, log.index)
    counted = everything if aggregate.where is None else holds(aggregate.where, log)
    return counted.to_numpy(), holds(aggregate.rate_of, log).to_numpy()


def holds(condition, rows: pd.DataFrame) -> pd.Series:
    cells = rows[condition.column]
    return (
        cells > condition.above
        if condition.equals is None
        else (cells == condition.equals)
    )


def raw_columns(history) -> list[str]:
    return [COLUMN_OF[name] for name in history.fields]


def add_history(columns: dict[str, list], history, earlier: pd.DataFrame) -> None:
    events = (
        earlier if history.where is None else earlier[holds(history.where, earlier)]
    )
    events = events.tail(history.length)
    times = columns.setdefault(f"{history.name}.time", [])
    times.append(events["time_ms"].tolist())
    for name in raw_columns(history):
        cells = events[name]
        amount = name.endswith(("_ms", "_time"))
        values = cells.astype(float) if amount else cells.astype(str)
        columns.setdefault(f"{history.name}.{name}", []).append(values.tolist())
