"""Rows shaped like Criteo's, from a planted model, for every contender alike.

26 categorical columns of 100,000 values each with Zipf frequencies, 13 numbers, 2
labels. Written once as a feature-table folder (documented in
``recsys_mtl/features/schema.py``) and once as plain arrays for contenders that want
everything in memory.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.features.manifest import FeatureManifest, SplitFiles, TaskStats
from recsys_mtl.features.schema import FeatureSchema, IdField

NUM_CATEGORICAL = 26
NUM_NUMERIC = 13
NUM_VALUES = 100_000
TASKS = ("click", "order")

_ZIPF = 1.05
_EFFECT = 0.34
_RANK = 8
_CHUNK = 65_536
_PART = 262_144


class PlantedModel:
    """Labels follow values' own effects and low-rank interactions of pairs of columns.

    Args:
        seed: Of effects and rows.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        weight = 1.0 / np.arange(1, NUM_VALUES + 1) ** _ZIPF
        self._cdf = np.cumsum(weight / weight.sum())
        shape = (NUM_CATEGORICAL, NUM_VALUES)
        shared = self._rng.normal(0.0, _EFFECT, shape)
        own = self._rng.normal(0.0, _EFFECT, shape)
        # Tasks share most of what moves them, as clicks and orders do.
        self._effect_TFV = np.stack([shared, 0.7 * shared + 0.7 * own]).astype("f4")
        self._latent_FVK = self._rng.normal(0.0, 0.3, (6, NUM_VALUES, _RANK)).astype(
            "f4"
        )
        self._slope_TM = self._rng.normal(0.0, 0.1, (len(TASKS), NUM_NUMERIC))
        self._bias_T = np.array([-1.4, -2.6])

    def rows(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draw ids (columns first), numbers, labels, and true probabilities."""
        rng = self._rng
        id_FN = np.searchsorted(self._cdf, rng.random((NUM_CATEGORICAL, count)))
        id_FN = np.minimum(id_FN, NUM_VALUES - 1).astype(np.int32)
        dense_NM = rng.normal(size=(count, NUM_NUMERIC)).astype(np.float32)
        logit_TN = np.zeros((len(TASKS), count))
        for t in range(len(TASKS)):
            for f in range(NUM_CATEGORICAL):
                logit_TN[t] += self._effect_TFV[t, f, id_FN[f]]
            logit_TN[t] += dense_NM @ self._slope_TM[t] + self._bias_T[t]
        for f in range(0, 6, 2):
            left_NK = self._latent_FVK[f, id_FN[f]]
            right_NK = self._latent_FVK[f + 1, id_FN[f + 1]]
            logit_TN += (left_NK * right_NK).sum(1)
        prob_TN = 1.0 / (1.0 + np.exp(-logit_TN))
        label_TN = (rng.random(prob_TN.shape) < prob_TN).astype(np.float32)
        return id_FN, dense_NM, label_TN, prob_TN


def make(folder: Path, *, train_rows: int, test_rows: int, seed: int = 0) -> None:
    """Write ``folder/tables`` and ``folder/arrays`` unless they are there already."""
    stamp = {"train": train_rows, "test": test_rows, "seed": seed, "version": 1}
    marker = folder / "made.json"
    if marker.exists() and json.loads(marker.read_text()) == stamp:
        return
    model = PlantedModel(seed)
    sizes = {"train": train_rows, "valid": max(test_rows // 4, 1), "test": test_rows}
    files = {}
    stats = {}
    for split, size in sizes.items():
        files[split], labels_TN = _write_split(folder, split, size, model)
        for task, label_N in zip(TASKS, labels_TN, strict=True):
            stats.setdefault(task, {})[split] = _stats(label_N)
    spec = recipe("fp32")
    FeatureManifest(
        recipe=spec.model_dump(mode="json"),
        recipe_digest="",
        feature_schema=schema(),
        signature=(),
        splits=files,
        tasks=stats,
    ).save(folder / "tables")
    marker.write_text(json.dumps(stamp))


def recipe(precision: str) -> Recipe:
    """MMoE with 4 experts (256, 128), towers (64), dim 16, batch 4,096, one epoch."""
    features = [
        *({"kind": "categorical", "name": f"c{f}"} for f in range(NUM_CATEGORICAL)),
        *({"kind": "numeric", "name": f"n{m}"} for m in range(NUM_NUMERIC)),
    ]
    return Recipe.model_validate(
        {
            "name": "criteo_shaped",
            "data": {
                "interactions": {"kind": "parquet", "path": "benchmark"},
                "split": {"kind": "column", "column": "split"},
            },
            "features": features,
            "tasks": [{"kind": "binary", "name": t, "label": t} for t in TASKS],
            "model": {
                "embedding": {"dim": 16},
                "gating": {"kind": "mmoe", "num_experts": 4, "hidden": [256, 128]},
                "tower": {"kind": "mlp", "hidden": [64]},
            },
            "train": {
                "epochs": 1,
                "batch_size": 4096,
                "num_threads": 1,
                "shuffle_rows": 131_072,
                "precision": precision,
                "clip_norm": None,
                "embedding_optimizer": {
                    "kind": "rowwise_adagrad",
                    "learning_rate": 0.05,
                },
            },
        }
    )


def arrays(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Load ids (columns first), numbers and labels (tasks last) of ``split``."""
    names = ("ids", "dense", "label")
    id_FN, dense_NM, label_NT = (
        np.load(folder / "arrays" / f"{split}-{name}.npy") for name in names
    )
    return id_FN, dense_NM, label_NT


def _write_split(
    folder: Path, split: str, size: int, model: PlantedModel
) -> tuple[SplitFiles, np.ndarray]:
    (folder / "tables" / split).mkdir(parents=True, exist_ok=True)
    (folder / "arrays").mkdir(parents=True, exist_ok=True)
    chunks = [model.rows(min(_CHUNK, size - first)) for first in range(0, size, _CHUNK)]
    id_FN = np.concatenate([chunk[0] for chunk in chunks], axis=1)
    dense_NM = np.concatenate([chunk[1] for chunk in chunks])
    label_TN = np.concatenate([chunk[2] for chunk in chunks], axis=1)
    prob_TN = np.concatenate([chunk[3] for chunk in chunks], axis=1)
    for name, array in (("ids", id_FN), ("dense", dense_NM), ("label", label_TN.T)):
        np.save(folder / "arrays" / f"{split}-{name}.npy", np.ascontiguousarray(array))
    np.save(folder / "arrays" / f"{split}-prob.npy", prob_TN.T)
    # Encoded ids: 0 is missing and 1 unseen.
    table = pa.table(
        {
            **{f"c{f}": ids_N + np.int32(2) for f, ids_N in enumerate(id_FN)},
            **{f"n{m}": dense_NM[:, m] for m in range(NUM_NUMERIC)},
            **{f"label.{t}": y_N for t, y_N in zip(TASKS, label_TN, strict=True)},
        }
    )
    parts = []
    for number, first in enumerate(range(0, size, _PART)):
        name = f"part-{number:05d}.parquet"
        pq.write_table(
            table.slice(first, _PART),
            folder / "tables" / split / name,
            row_group_size=_CHUNK,
        )
        parts.append(name)
    return SplitFiles(rows=size, parts=tuple(parts)), label_TN


def schema() -> FeatureSchema:
    """Columns of the encoded rows."""
    return FeatureSchema(
        ids=tuple(
            IdField(name=f"c{f}", size=NUM_VALUES + 2) for f in range(NUM_CATEGORICAL)
        ),
        dense=tuple(f"n{m}" for m in range(NUM_NUMERIC)),
        histories=(),
    )


def _stats(label_N: np.ndarray) -> TaskStats:
    return TaskStats(
        rows=len(label_N),
        positives=int(label_N.sum()),
        mean=float(label_N.mean()),
        log_mean=float(np.log1p(label_N).mean()),
        log_std=float(np.log1p(label_N).std()),
    )
