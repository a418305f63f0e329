import numpy as np
import torch

from recsys_mtl.config.gating import DirectSpec
from recsys_mtl.config.tower import FinalMLPSpec, StreamSpec
from recsys_mtl.data.batch import to_batch
from recsys_mtl.model.embeddings.number import LinearNumbers

B = 9
TOWER = FinalMLPSpec(
    kind="final_mlp",
    first=StreamSpec(hidden=(4,), context=("price", "item", "type")),
    second=StreamSpec(hidden=(4,), context=("item",)),
    gate_hidden=(5,),
)


def embedding_of(network_of, **options):
    return network_of(gating=DirectSpec(), tower=TOWER, **options).embedding


def test_contexts_are_rows_of_tables_apart(network_of, encoded, schema):
    embedding = embedding_of(network_of)
    table = encoded(B)
    first, second = embedding(to_batch(table, schema)).contexts
    assert (first.shape, second.shape) == ((B, 3, 4), (B, 1, 4))
    weights = dict(embedding.contexts.named_parameters())
    ids = {c: table.column(c).to_numpy().astype(np.int64) for c in ("type", "item")}
    price_B = torch.from_numpy(table.column("price").to_numpy().copy())
    expected = [
        weights["0.pooled.embedding_bags.context1_type.weight"][ids["type"]],
        weights["0.sequence.embeddings.context1_item.weight"][ids["item"]],
        price_B[:, None] * weights["0.numbers.weight_MD"][0],
    ]
    assert first.equal(torch.stack(expected, dim=1))
    other_VD = weights["1.sequence.embeddings.context2_item.weight"]
    assert second[:, 0].equal(other_VD[ids["item"]])


def test_contexts_change_no_field(network_of, batches):
    with_contexts = embedding_of(network_of)
    without = network_of(gating=DirectSpec()).embedding
    state = with_contexts.state_dict()
    without.load_state_dict({n: state[n] for n in without.state_dict()})
    batch = batches(B)
    assert without(batch).contexts == ()
    assert with_contexts(batch).fields_BFD.equal(without(batch).fields_BFD)


def test_a_tower_learns_its_contexts(network_of, batches):
    network = network_of(gating=DirectSpec(), tower=TOWER)
    torch.cat(network(batches(B)).logits, dim=1).square().sum().backward()
    for name, parameter in network.embedding.contexts.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_linear_numbers_are_the_last_fields(network_of, batches):
    raw, linear = (network_of(numeric=kind) for kind in ("raw", "linear"))
    batch = batches(B)
    embedded = linear.embedding(batch)
    assert embedded.dense_BM.shape == (B, 0)
    assert embedded.fields_BFD.shape[1] == linear.embedding.num_fields
    before = raw.embedding.num_fields
    expected = linear.embedding.numbers.weight_MD * batch.dense_BM[:, :, None]
    assert embedded.fields_BFD[:, before:].equal(expected)
    assert linear(batch).logits[0].shape == raw(batch).logits[0].shape


def test_numbers_are_bias_free_linear_layers():
    numbers = LinearNumbers(3, dim=4)
    dense_BM = torch.randn(B, 3)
    for m in range(3):
        layer = torch.nn.Linear(1, 4, bias=False)
        layer.weight.data = numbers.weight_MD[m, :, None].data
        torch.testing.assert_close(numbers(dense_BM)[:, m], layer(dense_BM[:, [m]]))
