import pytest
import torch
from torch import nn

from recsys_mtl.config.bottom import DTRNSpec, FlatSpec
from recsys_mtl.config.feature import (
    AttentionPooling,
    Bert4RecPooling,
    CategoricalFeature,
    HistoryFeature,
)
from recsys_mtl.config.gating import MMoESpec, SharedBottomSpec
from recsys_mtl.config.task import OrdinalTask, SurvivalTask, ValueTask
from recsys_mtl.config.tower import MLPTowerSpec
from recsys_mtl.errors import ConfigError
from recsys_mtl.features.schema import FeatureSchema, HistoryField, IdField
from recsys_mtl.model.build import lay_out_histories

B = 8


def test_an_untrained_network_predicts_the_training_means(network_of, batches, tasks):
    network = network_of()
    with torch.no_grad():
        for layer in network.trunk.tower.logits:
            layer.weight.zero_()
    prediction_BT = network.predict(network(batches(B)).logits)
    click, watch, amount = prediction_BT.unbind(1)
    torch.testing.assert_close(click, torch.full((B,), 0.2))
    torch.testing.assert_close(amount, torch.full((B,), 12.0))
    # the mean of a log-normal amount whose log1p has mean 3.0 and deviation 0.9
    expected = torch.tensor(3.0 + 0.9**2 / 2).expm1()
    torch.testing.assert_close(watch, expected.expand(B))


def test_heads_of_every_kind_start_at_the_training_labels(network_of, batches):
    leave = SurvivalTask(
        kind="survival", name="leave", time="s", event="e", horizons=(2.5,)
    )
    loss = "zero_inflated_log_normal"
    spend = ValueTask(kind="value", name="spend", label="spend", loss=loss)
    rating = OrdinalTask(
        kind="ordinal", name="rating", label="r", levels=("a", "b", "c")
    )
    network = network_of(tasks=(leave, spend, rating))
    with torch.no_grad():
        for layer in network.trunk.tower.logits:
            layer.weight.zero_()
    logits = network(batches(B)).logits
    survival_BC, none_B0, _ = network.curves(logits)
    torch.testing.assert_close(survival_BC[0], torch.tensor([0.8, 0.4, 0.04]))
    assert none_B0.shape == (B, 0)
    leaving, spending, levels = network.details(logits)
    torch.testing.assert_close(leaving["survival@2.5"], torch.full((B,), 0.4))
    torch.testing.assert_close(spending["prob_positive"], torch.full((B,), 0.1))
    torch.testing.assert_close(levels["prob@b"], torch.full((B,), 0.5))
    with pytest.raises(ConfigError, match="task 'leave': horizons must be at most"):
        network_of(tasks=(leave.model_copy(update={"horizons": (7.0,)}),))


def test_names_that_modules_use_are_fine_as_features(network_of):
    # `type` and `values` of the schema are attributes of nn.Module and nn.ModuleDict.
    names = set(network_of().state_dict())
    assert "embedding.pooled.embedding_bags.id_type.weight" in names
    assert "embedding.sequence.embeddings.id_values.weight" in names


def test_every_table_has_the_size_of_its_vocabulary(network_of, schema):
    shapes = {
        name.split(".")[-2]: tuple(parameter.shape)
        for name, parameter in network_of().embedding.named_parameters()
        if "embed" in name
    }
    tables = {f"id_{field.name}": (field.size, 4) for field in schema.ids}
    assert shapes == {**tables, "gap_clicks": (64, 4)}


def test_parameter_count_is_the_formula(network_of):
    network = network_of(
        gating=MMoESpec(hidden=(12, 8), num_experts=3), tower=MLPTowerSpec(hidden=(6,))
    )
    x = 10 * 4 + 2
    gating = 3 * 3 * x + 3 * (x * 12 + 12 + 12 * 8 + 8)
    towers = 3 * (8 * 6 + 6) + (6 + 1) + (6 * 2 + 2) + (6 + 1)
    assert sum(map(nn.Parameter.numel, network.trunk.parameters())) == gating + towers


@pytest.mark.parametrize(
    "stage",
    [
        {"bottom": FlatSpec(dropout=0.9)},
        {"bottom": DTRNSpec(kind="dtrn", dropout=0.9)},
        {"gating": SharedBottomSpec(dropout=0.9)},
        {"gating": MMoESpec(dropout=0.9)},
        {"tower": MLPTowerSpec(dropout=0.9)},
    ],
    ids=lambda stage: next(iter(stage.values())).kind,
)
def test_dropout_of_each_stage_has_an_effect(stage, network_of, batches):
    network, batch = network_of(**stage), batches(B)
    assert not network(batch).logits[0].equal(network(batch).logits[0])
    network.eval()
    assert network(batch).logits[0].equal(network(batch).logits[0])


@pytest.mark.parametrize(
    "pooling",
    [AttentionPooling(kind="din"), Bert4RecPooling(kind="bert4rec", pool="target")],
    ids=lambda spec: spec.kind,
)
def test_attention_without_anything_to_compare_names_the_history(pooling):
    schema = FeatureSchema(
        ids=(IdField(name="dwell", size=5, history_only=True),),
        dense=(),
        histories=(HistoryField(name="seen", fields=("dwell",), gaps=True, length=3),),
    )
    features = (
        CategoricalFeature(kind="categorical", name="dwell", history_only=True),
        HistoryFeature(
            kind="history",
            name="seen",
            fields=("dwell",),
            pooling=pooling,
        ),
    )
    with pytest.raises(ConfigError, match=r"'seen'.*got dwell, all history_only"):
        lay_out_histories(features, schema)
