"""The loss of masked events, on its way from a history to the penalty of a network."""

import pytest
import torch

from recsys_mtl.config.feature import Bert4RecPooling, MaskedLoss
from recsys_mtl.data.batch import to_batch

B = 16
ITEMS = "embedding.sequence.embeddings.id_item.weight"


@pytest.fixture
def network(network_of):
    masked = MaskedLoss(weight=0.5, share=0.5)
    return network_of(
        pooling=Bert4RecPooling(kind="bert4rec", dropout=0.0, masked_loss=masked)
    )


def penalty(network, batch, seed=0):
    torch.manual_seed(seed)
    return network(batch).penalty


def test_it_is_the_penalty_in_training_and_nothing_in_evaluation(network, batches):
    batch = batches(B)
    assert penalty(network, batch) > 0
    network.eval()
    assert penalty(network, batch) == 0


def test_without_one_the_penalty_is_nothing(network_of, batches):
    network = network_of(pooling=Bert4RecPooling(kind="bert4rec"))
    assert penalty(network, batches(B)) == 0


def test_a_seed_decides_what_is_masked(network, batches):
    batch = batches(B)
    assert penalty(network, batch).equal(penalty(network, batch))
    assert not penalty(network, batch, seed=1).equal(penalty(network, batch))


def test_masking_does_not_touch_what_is_scored(network, batches):
    batch = batches(B)
    trained = network(batch).logits
    network.eval()
    for one, other in zip(trained, network(batch).logits, strict=True):
        assert one.equal(other)


def test_the_candidate_is_neither_guessed_nor_guessed_among(network, encoded, schema):
    table = encoded(B)
    place = table.column_names.index("item")
    # An item that is in nobody's history, and for every row.
    columns = ("clicks.item", "orders.item")
    events = {i for column in columns for row in table[column].to_pylist() for i in row}
    (stranger, *_) = set(range(2, 30)) - events
    changed = table.set_column(
        place, "item", [torch.full((B,), stranger, dtype=torch.int32).numpy()]
    )
    before = penalty(network, to_batch(table, schema))
    loss = penalty(network, to_batch(changed, schema))
    assert loss.equal(before)
    loss.backward()
    weight_VD = dict(network.named_parameters())[ITEMS]
    assert weight_VD.grad[stranger].abs().sum() == 0
    assert weight_VD.grad[sorted(events)].abs().sum() > 0


def test_longer_neighbours_change_nothing(network, encoded, schema):
    network.eval()
    table = encoded(B)
    together = network.embedding(to_batch(table, schema)).fields_BFD
    for b in range(B):
        alone = network.embedding(to_batch(table.slice(b, 1), schema)).fields_BFD
        torch.testing.assert_close(alone[0], together[b])
