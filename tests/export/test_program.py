"""Which engine a bundle gets, and what happens where it cannot be had."""

import logging

import numpy as np
import pytest
import torch

from recsys_mtl.config.export import ExportSpec
from recsys_mtl.data.request_batch import RequestBatch
from recsys_mtl.errors import ArtifactError, EnvironmentFault
from recsys_mtl.export import program
from recsys_mtl.export.bundle import load_bundle, write_bundle
from recsys_mtl.export.program import EngineInfo, load_engine, write_program


@pytest.fixture
def bundle(made, tmp_path):
    return load_bundle(write_bundle(tmp_path / "bundle", **made.arguments()))


def test_a_tiny_network_stays_eager_and_says_why(bundle):
    assert bundle.engine.kind == "eager"
    assert bundle.info.engine.why.endswith("weights gain nothing by another")
    assert bundle.files.started.why == bundle.info.engine.why


def test_the_engine_scores_as_the_network(bundle, made):
    assembled = bundle.store.assemble(made.log)
    encoded = bundle.featurizer.encode(assembled.raw, assembled.histories)
    batch = RequestBatch.of_rows(bundle.split, encoded)
    expected = bundle.network(batch.joined()).logits
    for one, other in zip(bundle.engine.score(batch), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_eager_is_taken_at_its_word(tmp_path):
    info = write_program("eager", _network(500_000), [], tmp_path)
    assert info == EngineInfo(kind="eager", why="the recipe says so")


@pytest.mark.parametrize("wanted", ["auto", "onnx"])
def test_without_rows_to_trace_with_there_is_no_program(wanted, tmp_path, caplog):
    if wanted == "onnx":
        with pytest.raises(ArtifactError, match="must be exportable to ONNX"):
            write_program(wanted, _network(500_000), [], tmp_path)
        return
    with caplog.at_level(logging.WARNING):
        info = write_program(wanted, _network(500_000), [], tmp_path)
    assert info.kind == "eager"
    assert "no training rows" in info.why
    (record,) = caplog.records
    assert "eager PyTorch, not ONNX Runtime" in record.getMessage()


@pytest.mark.parametrize("wanted", ["auto", "onnx"])
def test_what_is_not_installed_is_named(wanted, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(program, "_installed", lambda name: name != "onnxscript")
    if wanted == "onnx":
        with pytest.raises(EnvironmentFault, match="onnxscript"):
            write_program(wanted, _network(500_000), [], tmp_path)
        return
    with caplog.at_level(logging.WARNING):
        info = write_program(wanted, _network(500_000), [], tmp_path)
    assert info.why == "onnxscript is not installed"


def test_a_server_without_onnx_runtime_says_so_in_one_line(
    bundle, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(program, "_installed", lambda name: False)
    with caplog.at_level(logging.WARNING):
        started = load_engine(
            EngineInfo(kind="onnx", why="the fastest"), _network(1), tmp_path
        )
    assert started.engine.kind == "eager"
    assert started.why == "onnxruntime is not installed"
    assert len(caplog.records) == 1


@pytest.fixture
def bf16_bundle(made, tmp_path, monkeypatch):
    # These tables have no validation rows; test_rounding.py measures.
    monkeypatch.setattr("recsys_mtl.export.rounding._auc", lambda *_: {"click": 0.75})
    export = {"precision": "bf16", "max_auc_loss": 0.5}
    recipe = made.recipe.model_copy(update={"export": ExportSpec(**export)})
    return write_bundle(tmp_path / "bundle", **made.arguments(recipe=recipe))


@pytest.mark.parametrize("has", [True, False])
def test_products_are_bf16_where_the_processor_has_it(
    has, bf16_bundle, made, monkeypatch, caplog
):
    monkeypatch.setattr(program, "has_bf16", lambda device: has)
    with caplog.at_level(logging.WARNING):
        bundle = load_bundle(bf16_bundle)
    assembled = bundle.store.assemble(made.log)
    encoded = bundle.featurizer.encode(assembled.raw, assembled.histories)
    batch = RequestBatch.of_rows(bundle.split, encoded)
    exact = torch.cat(bundle.network(batch.joined()).logits, dim=1)
    said = torch.cat(bundle.engine.score(batch), dim=1)
    assert said.dtype == torch.float32
    error = float((said - exact).abs().max())
    started = bundle.files.started
    if has:
        assert (started.precision, started.engine.kind) == ("bf16", "eager")
        assert 1e-5 < error < 0.05 * float(exact.std())
        assert not caplog.records
    else:
        assert started.precision == "fp32"
        assert error < 1e-5
        (record,) = caplog.records
        assert "in fp32, not in bf16" in record.getMessage()


def _network(size):
    """Something whose trunk has so many weights."""
    from recsys_mtl.model.request_network import RequestNetwork

    network = RequestNetwork.__new__(RequestNetwork)
    network.trunk = torch.nn.Linear(size, 1, bias=False)
    return network
