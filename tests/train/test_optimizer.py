import pytest
import torch
from feature_tables import SCHEMA, encoded_table, recipe

from recsys_mtl.data.batch import to_batch
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.train.checkpoint import build
from recsys_mtl.train.optimizer import Optimizer
from recsys_mtl.train.shard import full_state, process_group, shard
from recsys_mtl.train.step import Stepper

CPU = torch.device("cpu")
ADAM = {"kind": "adam", "learning_rate": 0.1}


@pytest.fixture
def ready(tables):
    """Build model, optimizer and step of a recipe's training section."""

    def make(**train):
        spec = recipe(**train)
        torch.manual_seed(0)
        network = build(spec, FeatureManifest.load(tables), device=torch.device("meta"))
        embeddings = spec.train.embedding_optimizer
        model = shard(network, embeddings, device=CPU, seed=0)
        optimizer = Optimizer(model, spec.train)
        step = Stepper(model, optimizer, tasks=spec.tasks, bf16=False, seed=0)
        return model, optimizer, step

    with process_group(CPU):
        yield make


def batch():
    return to_batch(encoded_table(64, seed=9), SCHEMA, ("click", "stay"))


def is_table(name):
    return ".id_" in name or ".gap_" in name


@pytest.mark.parametrize("embeddings", [{"kind": "rowwise_adagrad"}, ADAM])
def test_a_step_changes_every_weight(ready, embeddings):
    model, _, step = ready(embedding_optimizer=embeddings, clip_norm=None)
    before = full_state(model)
    step(batch(), 0)
    same = [n for n, w in full_state(model).items() if torch.equal(w, before[n])]
    assert same == []


@pytest.mark.parametrize("embeddings", [{"kind": "rowwise_adagrad"}, ADAM])
def test_the_factor_scales_the_update_of_tables_and_of_the_rest(ready, embeddings):
    moves = []
    for factor in (1.0, 0.25):
        model, optimizer, step = ready(embedding_optimizer=embeddings)
        before = full_state(model)
        optimizer.set_rates(factor)
        step(batch(), 0)
        moves.append({n: w - before[n] for n, w in full_state(model).items()})
    whole, quarter = moves
    assert any(map(is_table, whole))
    for name, move in whole.items():
        # Weights near 0.1 leave a step of 1e-3 few digits in float32.
        torch.testing.assert_close(
            quarter[name], move * 0.25, rtol=1e-3, atol=1e-6, msg=name
        )


def test_a_rate_of_almost_nothing_leaves_fused_tables_almost_alone(ready):
    model, optimizer, step = ready()
    before = full_state(model)
    optimizer.set_rates(1e-9)
    step(batch(), 0)
    for name, weight in full_state(model).items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-7)


def test_the_floor_holds_rates_up_but_never_lifts_a_start(ready):
    _, optimizer, _ = ready(optimizer={"learning_rate": 1e-5})
    optimizer.set_rates(1e-3, floor=1e-4)
    *fused, dense = optimizer.rates
    assert fused == pytest.approx([1e-4] * len(fused))
    assert dense == pytest.approx(1e-5)


def test_fused_tables_follow_rowwise_adagrad(ready):
    model, _, step = ready(clip_norm=None)
    name = "embedding.pooled.embedding_bags.id_user.weight"
    before = full_state(model)[name]
    rows = batch()
    step(rows, 0)
    move_VD = full_state(model)[name] - before
    seen = rows.pooled["user"].values().unique()
    untouched = torch.ones(len(before), dtype=torch.bool)
    untouched[seen] = False
    assert move_VD[untouched].abs().max() == 0
    # The first update of a row is rate * g / sqrt(mean(g^2)), so its RMS is the rate.
    rms_V = move_VD[seen].square().mean(1).sqrt()
    torch.testing.assert_close(rms_V, torch.full_like(rms_V, 0.1), rtol=1e-3, atol=0)


def test_l2_pulls_rows_that_no_batch_has_read(ready):
    moved = {}
    for l2 in (0.0, 0.1):
        model, _, step = ready(embedding_optimizer=ADAM | {"l2": l2}, clip_norm=None)
        before = full_state(model)
        small = to_batch(encoded_table(3, seed=9), SCHEMA, ("click", "stay"))
        step(small, 0)
        after = full_state(model)
        moved[l2] = {n: (after[n] != before[n]).all(1) for n in after if is_table(n)}
    for name in moved[0.0]:
        assert not moved[0.0][name].all(), name
        assert moved[0.1][name].all(), name


def test_l2_is_the_gradient_of_the_penalty_on_whole_tables(ready):
    model, optimizer, _ = ready(embedding_optimizer=ADAM | {"l2": 0.5}, clip_norm=None)
    tables = {n: p for n, p in model.named_parameters() if is_table(n)}
    for weight in tables.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    penalty = sum(0.25 * w.detach().clone().square().sum() for w in tables.values())
    assert penalty > 0
    for weight in tables.values():
        # Adam's first step is rate * sign(gradient); the gradient is 0.5 * weight.
        assert (weight.grad.sign() != 0).all()


def test_clipping_bounds_the_norm_of_all_but_fused_tables(ready):
    model, optimizer, _ = ready(clip_norm=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    dense = [p.grad for n, p in model.named_parameters() if not is_table(n)]
    norm = torch.stack([g.square().sum() for g in dense]).sum().sqrt()
    assert norm == pytest.approx(0.5, rel=1e-4)
