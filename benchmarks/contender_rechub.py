"""torch-rechub's MMoE and trainer with its own defaults, in its own environment.

Run by ``train.py``; prints one JSON line. Imports nothing of this library.
"""

import json
import math
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rechub_mmoe import rechub_mmoe
from sklearn.metrics import roc_auc_score
from torch_rechub.trainers import MTLTrainer
from torch_rechub.utils.data import DataGenerator

_BATCH = 4096


class Batches:
    """Batches cut from memory, for what the library does without its own loader."""

    def __init__(self, columns: dict[str, np.ndarray], label_NT: np.ndarray) -> None:
        self._columns = {n: torch.from_numpy(c) for n, c in columns.items()}
        self._label_NT = torch.from_numpy(label_NT)
        self._order = torch.randperm(len(label_NT))

    def __len__(self) -> int:
        return math.ceil(len(self._order) / _BATCH)

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        for rows in self._order.split(_BATCH):
            yield {n: c[rows] for n, c in self._columns.items()}, self._label_NT[rows]


def main(folder: Path, loader: str) -> None:
    """Train one epoch, then test."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    columns, label_NT = load(folder, "train")
    model = rechub_mmoe(columns)
    trainer = MTLTrainer(model, ["classification"] * 2, n_epoch=1)
    if loader == "memory":
        batches = Batches(columns, label_NT)
    else:
        generator = DataGenerator(columns, label_NT)
        tail = ({n: c[:1] for n, c in columns.items()}, label_NT[:1]) * 2
        batches, _, _ = generator.generate_dataloader(*tail, batch_size=_BATCH)
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.train_one_epoch(batches)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = len(label_NT)
    columns, label_NT = load(folder, "test")
    model.eval()
    prob_NT = []
    with torch.no_grad():
        for first in range(0, len(label_NT), _BATCH):
            cut = slice(first, first + _BATCH)
            prob_NT.append(
                model({n: torch.from_numpy(c[cut]) for n, c in columns.items()})
            )
    prob_NT = torch.cat(prob_NT).numpy()
    auc = [float(roc_auc_score(label_NT[:, t], prob_NT[:, t])) for t in range(2)]
    figures = {"rows": rows, "wall_s": wall, "cpu_s": cpu, "rss_mb": rss, "auc": auc}
    print(json.dumps(figures))


def load(folder: Path, split: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns and labels of ``split``."""
    id_FN = np.load(folder / "arrays" / f"{split}-ids.npy")
    dense_NM = np.load(folder / "arrays" / f"{split}-dense.npy")
    columns = {f"c{f}": ids_N.astype(np.int64) for f, ids_N in enumerate(id_FN)}
    columns |= {f"n{m}": dense_NM[:, m].copy() for m in range(dense_NM.shape[1])}
    return columns, np.load(folder / "arrays" / f"{split}-label.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
