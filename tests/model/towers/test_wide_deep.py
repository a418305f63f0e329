import torch
from torch import nn

from recsys_mtl.config.gating import DirectSpec
from recsys_mtl.config.tower import WideDeepSpec
from recsys_mtl.data.batch import to_batch
from recsys_mtl.model.towers.wide_deep import WideDeepTower

B, T, D = 5, 2, 4
NUM_LOGITS = (1, 2)


def make(**options):
    torch.manual_seed(0)
    return WideDeepTower(D, (7,), num_logits=NUM_LOGITS, **options)


def test_is_a_linear_model_beside_an_mlp():
    tower = make()
    h_BTH, wide_BFX = torch.randn(B, T, D), torch.randn(B, 3, 4)
    found = torch.cat(tower(h_BTH, (wide_BFX,)), dim=1)
    (layer,) = tower.mlp.layers
    for x, t in enumerate([0, 1, 1]):
        for b in range(B):
            deep = (layer.weight_THG[t] @ h_BTH[b, t] + layer.bias_TH[t]).relu()
            logit = tower.logits.weight_XH[x] @ deep + tower.logits.bias_X[x]
            logit = logit + sum(wide_BFX[b, f, x] for f in range(3))
            torch.testing.assert_close(found[b, x], logit)


def test_starts_where_it_is_told():
    tower = make()
    nn.init.zeros_(tower.logits.weight_XH)
    start = ((0.5,), (1.0, -2.0))
    tower.start_at(start)
    wide_BFX = torch.zeros(B, 1, 4)
    found = tower(torch.randn(B, T, D), (wide_BFX,))
    for logits_BC, expected in zip(found, start, strict=True):
        torch.testing.assert_close(logits_BC, torch.tensor(expected).expand(B, -1))


def test_options_of_the_mlp_reach_it():
    h_BTH, wide = torch.randn(B, T, D), (torch.zeros(B, 1, 4),)
    tower = make(dropout=0.5)
    assert not tower(h_BTH, wide)[0].equal(tower(h_BTH, wide)[0])
    tower = make(batch_norm=True)
    assert not tower(h_BTH, wide)[0].equal(tower.eval()(h_BTH, wide)[0])


def test_the_linear_part_of_a_network_has_weights_of_its_own(
    network_of, encoded, schema, tasks
):
    spec = WideDeepSpec(kind="wide_deep", wide=("type", "item", "age"), hidden=(3,))
    network = network_of(gating=DirectSpec(), tower=spec)
    with torch.no_grad():
        network.trunk.tower.logits.weight_XH.zero_()
        network.trunk.tower.logits.bias_X.zero_()
    (wide,) = network.embedding.contexts
    of_type_VX = dict(wide.named_parameters())[
        "pooled.embedding_bags.context1_type.weight"
    ]
    of_item_VX = dict(wide.named_parameters())[
        "sequence.embeddings.context1_item.weight"
    ]
    assert of_type_VX.shape[1] == 4  # four logits of three tasks, a multiple of four
    table = encoded(B)
    logits = torch.cat(network(to_batch(table, schema)).logits, dim=1)
    for b, row in enumerate(table.select(["type", "item", "age"]).to_pylist()):
        expected_X = of_type_VX[row["type"]] + of_item_VX[row["item"]]
        expected_X = expected_X + row["age"] * wide.numbers.weight_MD[0]
        torch.testing.assert_close(logits[b], expected_X)


def test_all_columns_are_linear_if_none_is_named(network_of, schema):
    network = network_of(
        gating=DirectSpec(), tower=WideDeepSpec(kind="wide_deep", hidden=(3,))
    )
    (wide,) = network.embedding.contexts
    ids = {field.name for field in schema.ids if not field.history_only}
    assert {*wide.pooled_columns, *wide.candidates} == ids
    assert len(wide.places) == len(schema.dense)
