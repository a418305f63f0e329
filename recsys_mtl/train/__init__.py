"""Fitting a network to feature tables.

Takes a recipe and a feature-table folder; gives a checkpoint, events and a history of
checks. Must not know raw rows, bundles or who started it: one process or many.
"""

from recsys_mtl.train.checkpoint import load_network
from recsys_mtl.train.loop import TrainResult, train
from recsys_mtl.train.predict import predict

__all__ = ["TrainResult", "load_network", "predict", "train"]
