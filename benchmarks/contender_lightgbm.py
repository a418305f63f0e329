"""LightGBM for ``trees.py``, in an environment without this project."""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd

_TASKS = {
    "click": "is_click",
    "long_view": "long_view",
    "read_comments": "reads",
    "profile": "is_profile_enter",
    "comment": "is_comment",
}
_SETTINGS = {
    "n_estimators": 1_000,
    "learning_rate": 0.04,
    "num_leaves": 15,
    "min_child_samples": 50,
    "subsample": 0.7,
    "subsample_freq": 1,
    "colsample_bytree": 0.3,
    "reg_lambda": 5,
    "n_jobs": 1,
    "verbose": -1,
}
_PATIENCE = 60
_NEWEST = 3
_PROFILE = (
    "follow_user_num",
    "fans_user_num",
    "friend_user_num",
    "register_days",
    "is_video_author",
)


def main() -> None:
    """Train on the table asked for; print what its rows of test come to."""
    kind, tables, log, seeds = sys.argv[1:]
    x, y, split = _table(Path(tables)) if kind == "table" else _by_hand(log, kind)
    valid, test, trees = {}, {}, {}
    for task in _TASKS:
        fits = [_fit(x, y[task], split, seed) for seed in range(int(seeds))]
        valid[task], test[task], trees[task] = zip(*fits, strict=True)
    line = {
        "table": kind,
        "columns": x.shape[1],
        "seeds": int(seeds),
        "valid": {task: _mean_sd(values) for task, values in valid.items()},
        "test": {task: _mean_sd(values) for task, values in test.items()},
        "trees": {task: statistics.median(values) for task, values in trees.items()},
    }
    print(json.dumps(line))


def _fit(
    x: pd.DataFrame, y: pd.Series, split: np.ndarray, seed: int
) -> tuple[float, float, int]:
    """AUC on validation and test rows, and how many trees validation chose."""
    train, valid, test = (split == part for part in range(3))
    model = lightgbm.LGBMClassifier(**_SETTINGS, random_state=seed)
    model.fit(
        x[train],
        y[train],
        eval_set=[(x[valid], y[valid])],
        eval_metric="auc",
        callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
    )
    scores = model.predict_proba(x[test])[:, 1]
    return (
        model.best_score_["valid_0"]["auc"],
        _auc(y[test], scores),
        model.best_iteration_,
    )


def _auc(y: pd.Series, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, scores))


def _table(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """The feature table: numbers and categories, histories as their newest events."""
    parts = [
        pd.concat(
            [
                pd.read_parquet(path)
                for path in sorted((folder / name).glob("*.parquet"))
            ]
        )
        for name in ("train", "valid", "test")
    ]
    split = np.repeat(range(3), [len(part) for part in parts])
    rows = pd.concat(parts, ignore_index=True)
    y = rows[[f"label.{task}" for task in _TASKS]].set_axis(list(_TASKS), axis=1)
    columns = {}
    for name in rows.columns:
        if name.startswith(("label.", "key.")):
            continue
        if rows[name].dtype == object:
            for place in range(_NEWEST):
                columns[f"{name}.{place}"] = rows[name].map(
                    lambda events, place=place: (
                        events[place] if place < len(events) else -1
                    )
                )
        else:
            columns[name] = rows[name]
    return pd.DataFrame(columns), y, split


def _by_hand(log: str, kind: str) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Rates, newest events and gaps, from rows before or from times before."""
    rows = _log(Path(log))
    count = len(rows)
    split = np.digitize(np.arange(count), [int(count * 0.7), int(count * 0.8)])

    def known(values: pd.Series, keys: list[str]) -> pd.Series:
        if kind == "row":
            return values
        # All rows of one time know what the first of them knows.
        place = pd.Series(range(count))
        same = place.groupby([rows[key] for key in [*keys, "time_ms"]])
        return values.iloc[same.transform("min")].set_axis(values.index)

    x = {"duration": rows.duration_ms, "hour": rows.hour, "weekday": rows.weekday}
    x |= {name: rows[name] for name in _PROFILE}
    x["gap"] = known(rows.groupby("user_id").time_ms.diff(), ["user_id"])
    labels = list(_TASKS.values())
    plays = [f"plays_{seconds}s" for seconds in (3, 10, 30)]
    for keys, columns, prior in (
        (["user_id"], [*labels, "plays_10s"], 10),
        (["user_id", "picture"], [*labels, "plays_10s"], 10),
        (["video_id"], labels + plays, 3),
    ):
        before, of = rows.groupby(keys), "_".join(keys)
        seen = known(before.cumcount(), keys)
        x[f"{of}.count"] = seen
        for name in columns:
            hits = known(before[name].cumsum() - rows[name], keys)
            mean = rows[name][split == 0].mean()
            x[f"{of}.{name}"] = (hits + prior * mean) / (seen + prior)
    for keys, length in ((["user_id"], 50), (["user_id", "picture"], 10)):
        for name in labels:
            recent = rows.groupby(keys)[name].transform(_recent(length))
            x[f"{'_'.join(keys)}.{name}.{length}"] = known(recent, keys)
    for place in range(1, _NEWEST + 1):
        for name in [*labels, "play_time_ms"]:
            event = rows.groupby("user_id")[name].shift(place)
            x[f"{name}.{place}"] = known(event, ["user_id"])
    y = rows[labels].set_axis(list(_TASKS), axis=1)
    return pd.DataFrame(x).astype(float), y, split


def _recent(length: int) -> Callable[[pd.Series], pd.Series]:
    return lambda values: values.shift().rolling(length, min_periods=1).mean()


def _log(folder: Path) -> pd.DataFrame:
    """Impressions, oldest first, with what the features are made of."""
    rows = pd.read_csv(folder / "processed_standard_kcore_15.tsv.gz", sep="\t")
    users = pd.read_csv(folder / "user_features_pure.csv.gz")
    rows = rows.sort_values("time_ms", kind="stable")
    rows = rows.merge(users[["user_id", *_PROFILE]], on="user_id", how="left")
    local = pd.to_datetime(rows.time_ms, unit="ms") + pd.Timedelta(hours=8)
    plays = {f"plays_{s}s": (rows.play_time_ms > s * 1_000) * 1 for s in (3, 10, 30)}
    return rows.assign(
        reads=(rows.comment_stay_time > 0) * 1,
        picture=rows.duration_ms == 0,
        hour=local.dt.hour,
        weekday=local.dt.weekday,
        **plays,
    )


def _mean_sd(values: tuple[float, ...]) -> list[float]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return [round(statistics.fmean(values), 4), round(spread, 4)]


if __name__ == "__main__":
    main()
