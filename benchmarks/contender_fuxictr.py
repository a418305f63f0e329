"""FuxiCTR's FinalMLP by its own training step, in its own environment.

Run by ``final_mlp.py``; prints one JSON line. Imports nothing of this library.

The FinalMLP that FuxiCTR 2.3.10 installs reads behaviour sequences and leaves its own
feature selection out; here it gets back the forward pass without sequences, put
together from its own embedding, selection, MLPs and fusion.
"""

import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders.npz_dataloader import NpzDataLoader
from fuxictr.pytorch.models import BaseModel
from model_zoo.LongCTR.FinalMLP.FinalMLP import FinalMLP

_BATCH, _DIM, _EPOCHS = 4096, 10, 2


class WithoutSequences(FinalMLP):
    """FuxiCTR's FinalMLP over plain columns."""

    get_inputs = BaseModel.get_inputs
    get_labels = BaseModel.get_labels
    train_step = BaseModel.train_step

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Give the probability of a click."""
        columns = self.get_inputs(inputs)
        embedded = self.embedding_layer(columns, flatten_emb=True)
        first, second = self.fs_module(columns, embedded)
        logit = self.fusion_module(self.mlp1(first), self.mlp2(second))
        return {"y_pred": self.output_activation(logit)}


class Batches:
    """Batches cut from memory."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self._columns = {n: torch.from_numpy(arrays[n]) for n in arrays}

    def __len__(self) -> int:
        return math.ceil(len(self._columns["label"]) / _BATCH)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for rows in torch.randperm(len(self._columns["label"])).split(_BATCH):
            yield {name: column[rows] for name, column in self._columns.items()}


def main(folder: Path, loader: str) -> None:
    """Train two epochs."""
    logging.disable()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features = feature_map(folder)
    model = build(features)
    if loader == "memory":
        batches = Batches(folder / "train.npz")
    else:
        path = str(folder / "train.npz")
        batches = NpzDataLoader(
            features, path, batch_size=_BATCH, shuffle=True, num_workers=0
        )
    model._max_gradient_norm, model._stop_training = 10.0, False
    model._eval_steps, model._total_steps = 1 << 60, 0
    losses: list[float] = []
    step = model.train_step

    def train_step(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = step(batch)
        losses.append(loss.item())
        return loss

    model.train_step = train_step
    cpu = time.process_time()
    for epoch in range(_EPOCHS):
        model._epoch_index = epoch
        model.train_epoch(batches)
    cpu = time.process_time() - cpu
    with np.load(folder / "train.npz") as arrays:
        rows = _EPOCHS * len(arrays["label"])
    figures = {
        "rows": rows,
        "cpu_s": cpu,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_loss": float(np.mean(losses[len(losses) // _EPOCHS :])),
    }
    print(json.dumps(figures))


def feature_map(folder: Path) -> FeatureMap:
    """Describe the columns."""
    features = FeatureMap("frappe", str(folder))
    for name, size in json.loads((folder / "sizes.json").read_text()).items():
        features.features[name] = {
            "source": "",
            "type": "categorical",
            "padding_idx": 0,
            "oov_idx": size - 1,
            "vocab_size": size,
        }
    features.labels = ["label"]
    features.num_fields = len(features.features)
    features.default_emb_dim = _DIM
    features.set_column_index()
    return features


def build(features: FeatureMap) -> WithoutSequences:
    """Build the model in its published size."""
    return WithoutSequences(
        features,
        embedding_dim=_DIM,
        mlp1_hidden_units=[400],
        mlp1_dropout=0.4,
        mlp1_batch_norm=True,
        mlp2_hidden_units=[100],
        mlp2_dropout=0.4,
        mlp2_batch_norm=True,
        fs_hidden_units=[400],
        fs1_context=["user"],
        fs2_context=["item"],
        num_heads=5,
        embedding_regularizer=0.05,
        optimizer="adam",
        loss="binary_crossentropy",
        metrics=["AUC"],
        verbose=0,
        model_root=tempfile.mkdtemp(),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
