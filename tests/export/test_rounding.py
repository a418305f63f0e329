"""Rounded tables: smaller, measured, and refused where they cost too much."""

import pytest
import torch
from feature_tables import recipe, write_tables

from recsys_mtl.config.export import ExportSpec
from recsys_mtl.errors import ArtifactError
from recsys_mtl.export.network_files import empty_network
from recsys_mtl.export.rounding import load_rows, round_network, save_rows, unrounded
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.model.embeddings import ByteRows, FloatRows, stacks_of


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("tables") / "tables", rows=200)


@pytest.fixture
def network_with(tables):
    """Function (init_std) -> network with random tables."""

    def make(spec, std=1.0):
        manifest = FeatureManifest.load(tables)
        stats = {task: of["train"] for task, of in manifest.tasks.items()}
        network = empty_network(spec, manifest.feature_schema, stats)
        generator = torch.Generator().manual_seed(0)
        state = {
            name: torch.randn(weight.shape, generator=generator) * std
            if weight.is_meta
            else weight
            for name, weight in network.state_dict().items()
        }
        network.load_state_dict(state, assign=True)
        return network.requires_grad_(requires_grad=False).eval()

    return make


def exporting(**export):
    return recipe().model_copy(update={"export": ExportSpec(**export)})


@pytest.mark.parametrize(
    ("kind", "times", "error"), [("float16", 2.0, 1e-3), ("int8", 32 / 12, 2e-2)]
)
def test_rounded_tables_are_smaller_and_close(
    kind, times, error, network_with, tables, tmp_path
):
    spec = exporting(tables=kind, max_auc_loss=0.5)
    network = network_with(spec)
    stacks = stacks_of(network.embedding)
    trained = unrounded(stacks, [s.rows(network.state_dict()) for s in stacks])
    rows, info = round_network(spec, network, tables)
    assert info.float32_bytes / info.bytes == pytest.approx(times)
    before, after = info.auc["click"]
    assert set(info.auc) == {"click"}, "amounts have no AUC"
    assert after == pytest.approx(before, abs=0.01)
    save_rows(stacks, rows, tmp_path / "tables.safetensors")
    loaded = unrounded(stacks, load_rows(stacks, tmp_path / "tables.safetensors"))
    for name, table in unrounded(stacks, rows).items():
        assert loaded[name].equal(table)
        assert (table - trained[name]).abs().max() < error
        assert network.state_dict()[name].equal(table), "measured as stored"


def test_tables_that_cost_too_much_are_refused(network_with, tables, monkeypatch):
    spec = exporting(tables="int8")
    # All rows alike: nothing is left to tell candidates apart.
    monkeypatch.setattr(
        ByteRows,
        "of",
        classmethod(
            lambda cls, rows_VD: cls(
                torch.zeros(rows_VD.shape, dtype=torch.uint8),
                torch.zeros(len(rows_VD), 2).half(),
                1.0,
            )
        ),
    )
    lenient = exporting(tables="int8", max_auc_loss=0.99)
    for seed in range(20):  # a random network is as often worse than chance as better
        network = _with_trunk(network_with(spec), seed)
        before, after = round_network(lenient, network, tables)[1].auc["click"]
        if before > after + 0.01:
            break
    with pytest.raises(
        ArtifactError, match=r"'click' must lose at most 0\.0005 AUC by int8 tables"
    ):
        round_network(spec, _with_trunk(network_with(spec), seed), tables)


def test_products_in_bf16_are_measured_and_change_no_weight(network_with, tables):
    spec = exporting(precision="bf16", max_auc_loss=0.5)
    network = network_with(spec)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    rows, info = round_network(spec, network, tables)
    assert (info.kind, info.precision, info.rounds) == ("float32", "bf16", True)
    assert info.bytes == info.float32_bytes == sum(part.num_bytes for part in rows)
    trained, served = info.auc["click"]
    assert served != trained
    assert served == pytest.approx(trained, abs=0.02)
    for name, weight in network.state_dict().items():
        assert weight.equal(before[name])


def test_where_nothing_is_rounded_nothing_is_predicted(network_with, tmp_path):
    spec = exporting()
    _, info = round_network(spec, network_with(spec), tmp_path / "no tables here")
    assert not info.rounds
    assert info.auc == {}


@pytest.mark.parametrize(
    ("export", "said"),
    [
        (
            {"precision": "bf16"},
            "by bf16 products .* set export.precision to fp32, or allow more",
        ),
        (
            {"precision": "bf16", "tables": "int8"},
            "by int8 tables and bf16 products .* set export.tables to float16 or "
            "float32 or export.precision to fp32, or allow more",
        ),
        (
            {"tables": "float16"},
            "by float16 tables .* set export.tables to float32, or allow more",
        ),
    ],
)
def test_what_costs_too_much_is_named_with_its_remedy(
    export, said, network_with, tables, monkeypatch
):
    auc = iter([0.75, 0.74])
    monkeypatch.setattr(
        "recsys_mtl.export.rounding._auc", lambda *_: {"click": next(auc)}
    )
    spec = exporting(**export)
    with pytest.raises(ArtifactError, match=f"'click' must lose .* {said}"):
        round_network(spec, network_with(spec), tables)


def _with_trunk(network, seed):
    generator = torch.Generator().manual_seed(seed)
    for weight in network.trunk.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    return network


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e4])
def test_bytes_are_off_by_half_a_step_at_most(scale):
    rows_VD = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * scale
    rows_VD[7] = 3 * scale  # a row of equal numbers
    rows = ByteRows.of(rows_VD)
    step_V = (rows_VD.amax(1) - rows_VD.amin(1)) / 255
    error_V = (rows.gather(torch.arange(50)) - rows_VD).abs().amax(1)
    # Half a step, and what float16 rounds of the scale and the offset.
    assert (error_V <= 0.8 * step_V + 2e-3 * rows_VD.abs().amax(1)).all()
    assert rows.num_bytes == 50 * (8 + 4)


def test_a_file_of_other_tables_is_refused(network_with, tables, tmp_path):
    network = network_with(exporting())
    stacks = stacks_of(network.embedding)
    save_rows(stacks, [FloatRows(torch.zeros(3, 8))], tmp_path / "t.safetensors")
    with pytest.raises(ArtifactError, match=r"'fields'.* must have the shape"):
        load_rows(stacks, tmp_path / "t.safetensors")
