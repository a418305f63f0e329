"""The program equals the network for any numbers of requests and candidates."""

import itertools

import numpy as np
import pytest
import torch
from model_stages import STAGES, TASKS, name_of

from recsys_mtl.data.request_batch import RequestBatch, SchemaSplit
from recsys_mtl.engine import EagerEngine
from recsys_mtl.engine.onnx import OnnxEngine, export_trunk
from recsys_mtl.errors import ArtifactError
from recsys_mtl.model.request_network import RequestNetwork

SHARED = {
    *("clicks.item", "clicks.values", "clicks.dwell", "clicks.gap", "orders.item"),
    *("user", "age", "values"),
}


def stage(name, *kinds):
    """Specs of a stage by their kinds, the first of each."""
    by_kind = {spec.kind: spec for spec in reversed(STAGES[name])}
    return [by_kind[kind] for kind in kinds]


# Exporting takes seconds: every kind of input that a program can have, not every stage.
COMBINATIONS = list(
    zip(
        stage("bottom", "flat", "flat", "flat", "dtrn"),
        stage("gating", "mmoe", "ple", "direct", "home"),
        stage("chain", "independent", "esmm", "independent", "aitm"),
        stage("tower", "mlp", "wide_deep", "dcn_v2", "final_mlp"),
        strict=True,
    )
)


@pytest.fixture
def requests_of(encoded, schema):
    split = SchemaSplit.by_columns(schema, SHARED)

    def make(counts, seed=0):
        request_N = np.repeat(np.arange(len(counts)), counts)
        users, items = encoded(len(counts), seed), encoded(len(request_N), seed + 1)
        return RequestBatch.of_tables(split, users, items, request_N)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("combination", COMBINATIONS, ids=name_of)
def test_engines_agree(combination, network_of, requests_of, tmp_path):
    network = network_of(tasks=TASKS, **dict(zip(STAGES, combination, strict=True)))
    examples = [requests_of([3, 4]), requests_of([5])]
    prepared = RequestNetwork(network, examples[0].split)
    export_trunk(prepared, examples, tmp_path / "trunk.onnx")
    onnx, eager = OnnxEngine(prepared, tmp_path / "trunk.onnx"), EagerEngine(prepared)
    for seed, counts in itertools.product(
        range(2), ([1], [7], [40], [9, 0, 30], [1, 1], [0])
    ):
        batch = requests_of(counts, seed)
        pairs = zip(onnx.score(batch), eager.score(batch), strict=True)
        for (one, other), head in zip(pairs, network.heads, strict=True):
            assert one.shape == other.shape == (sum(counts), head.num_logits)
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_program_that_differs_is_refused(network, requests_of, tmp_path, monkeypatch):
    examples = [requests_of([3, 4])]
    prepared = RequestNetwork(network, examples[0].split)
    # No difference is as small as that.
    monkeypatch.setattr("recsys_mtl.engine.onnx._TOLERANCE", -1.0)
    with pytest.raises(ArtifactError, match=r"give its logits to -1\.0, got"):
        export_trunk(prepared, examples, tmp_path / "trunk.onnx")


def test_a_damaged_program_is_refused_by_name(network, requests_of, tmp_path):
    path = tmp_path / "trunk.onnx"
    path.write_bytes(b"no program")
    prepared = RequestNetwork(network, requests_of([1]).split)
    with pytest.raises(ArtifactError, match=r"trunk\.onnx cannot be loaded by ONNX"):
        OnnxEngine(prepared, path)
