"""Scores over HTTP equal those of offline evaluation, on real rows."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from recsys_mtl.export.bundle import load_bundle
from serving.process import ServerProcess

PROGRAM = str(Path(sys.executable).parent / "recsys-mtl")
DATA = os.environ.get("RECSYS_MTL_DATA")
ROWS, ROWS_A_REQUEST, TOLERANCE = 1_000, 250, 1e-5
HISTORIES = {
    # history: which rows, newest how many, raw columns
    "clicks": ("is_click", 30, ["video_id", "duration_ms"]),
    "impressions": (
        None,
        50,
        [
            "is_click",
            "long_view",
            "is_profile_enter",
            "is_comment",
            "comment_stay_time",
            "play_time_ms",
            "duration_ms",
        ],
    ),
    "last": (None, 1, ["is_click", "long_view", "play_time_ms", "duration_ms"]),
}
RATES = {
    "clicks": "is_click",
    "long_views": "long_view",
    "comment_reads": "comment_stay_time",
    "profiles": "is_profile_enter",
    "comments": "is_comment",
}

pytestmark = pytest.mark.skipif(
    DATA is None, reason="RECSYS_MTL_DATA does not name a folder with the public data"
)


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
    read_only_of_events = {c for _, _, names in HISTORIES.values() for c in names}
    assert declared - set(columns) <= read_only_of_events
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
    by_user = dict(iter(log.groupby("user_id")))
    by_item = dict(iter(log.groupby("video_id")))
    for user, item, micros in zip(
        rows["key.user"].astype(int), items, rows["key.time"], strict=True
    ):
        now = micros // 1_000
        for key, all_rows in (("user", by_user[user]), ("video", by_item[item])):
            earlier = all_rows[all_rows["time_ms"] < now]
            if key == "user":
                add_histories(columns, earlier.sort_values("time_ms", kind="stable"))
            for name, column in RATES.items():
                hits = (earlier[column] > 0).sum()
                columns.setdefault(f"{key}_{name}.rows", []).append(float(len(earlier)))
                columns.setdefault(f"{key}_{name}.hits", []).append(float(hits))
    return columns


def add_histories(columns: dict[str, list], earlier: pd.DataFrame) -> None:
    for history, (where, length, names) in HISTORIES.items():
        events = earlier if where is None else earlier[earlier[where] == 1]
        events = events.tail(length)
        times = columns.setdefault(f"{history}.time", [])
        times.append(events["time_ms"].tolist())
        for name in names:
            cells = events[name]
            amount = name.endswith(("_ms", "_time"))
            values = cells.astype(float) if amount else cells.astype(str)
            columns.setdefault(f"{history}.{name}", []).append(values.tolist())
