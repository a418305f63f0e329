import numpy as np
import pytest
import torch
from torchrec import KeyedTensor

from recsys_mtl.data.batch import Batch, to_batch
from recsys_mtl.model.embeddings.batch_embedding import BatchEmbedding

B = 9


def rows_of(embedding, name):
    pooled = dict(embedding.pooled.named_parameters())
    sequence = dict(embedding.sequence.named_parameters())
    return {**pooled, **sequence}[name]


@pytest.fixture
def embedding(network):
    return network.embedding


def test_a_single_field_is_its_row_of_the_table(embedding, encoded, schema):
    fields_BFD = embedding(to_batch(encoded(B), schema)).fields_BFD
    weight_VD = rows_of(embedding, "embedding_bags.id_type.weight")
    ids = encoded(B).column("type").to_numpy()
    assert fields_BFD[:, 1].equal(weight_VD[ids.astype(np.int64)])


def test_a_list_field_is_the_mean_of_its_rows(embedding, encoded, schema):
    fields_BFD = embedding(to_batch(encoded(B), schema)).fields_BFD
    weight_VD = rows_of(embedding, "embedding_bags.id_tags.weight")
    lists = encoded(B).column("tags").to_pylist()
    assert [] in lists, "an empty list is part of the case"
    for vector_D, ids in zip(fields_BFD[:, 2], lists, strict=True):
        expected_D = weight_VD[ids].mean(0) if ids else torch.zeros(4)
        torch.testing.assert_close(vector_D, expected_D)


def test_candidates_and_events_share_a_table(embedding, encoded, schema):
    fields_BFD = embedding(to_batch(encoded(B), schema)).fields_BFD
    weight_VD = rows_of(embedding, "embeddings.id_item.weight")
    ids = encoded(B).column("item").to_numpy().astype(np.int64)
    assert fields_BFD[:, 3].equal(weight_VD[ids])
    orders = encoded(B).column("orders.item").to_pylist()
    for vector_D, events in zip(fields_BFD[:, -1], orders, strict=True):
        expected_D = weight_VD[events].mean(0) if events else torch.zeros(4)
        torch.testing.assert_close(vector_D, expected_D)


def test_events_meet_the_candidates_field_of_the_same_name(embedding):
    clicks, orders = embedding.histories
    assert clicks.matched == ("item", "values")
    assert clicks.columns[:2] == ("clicks.item", "clicks.values")
    assert set(clicks.columns[2:]) == {"clicks.dwell", "clicks.gap"}
    assert orders.matched == ("item",)


def test_fields_are_as_many_as_announced(embedding, batches):
    fields_BFD, dense_BM, *_ = embedding(batches(B))
    # user, type, tags; item, values; item, values, dwell and gap of clicks; of orders
    assert fields_BFD.shape == (B, 3 + 2 + 4 + 1, 4)
    assert embedding.num_fields == fields_BFD.shape[1]
    assert dense_BM.equal(batches(B).dense_BM)


def test_empty_histories_give_zeros(embedding, batches):
    fields_BFD = embedding(batches(B, history_length=0)).fields_BFD
    assert fields_BFD[:, 5:].abs().sum() == 0
    assert (fields_BFD[:, 3:5].abs().sum(-1) > 0).all()


def test_longer_neighbours_change_nothing(embedding, encoded, schema):
    table = encoded(B)
    together = embedding(to_batch(table, schema)).fields_BFD
    for b in range(B):
        alone = embedding(to_batch(table.slice(b, 1), schema)).fields_BFD
        torch.testing.assert_close(alone[0], together[b])


def test_missing_and_unseen_ids_are_trained_like_others(embedding, encoded, schema):
    table = encoded(B)
    zeros = np.zeros(B, np.int32)
    table = table.set_column(table.column_names.index("type"), "type", [zeros])
    embedding(to_batch(table, schema)).fields_BFD.sum().backward()
    weight_VD = rows_of(embedding, "embedding_bags.id_type.weight")
    assert weight_VD.grad[0].abs().sum() > 0
    assert weight_VD.grad[1:].abs().sum() == 0


def test_numbers_alone_are_enough():
    batch = Batch(None, None, torch.randn(3, 2))
    embedding = BatchEmbedding(
        4,
        pooled=[],
        sequence=[],
        candidates=(),
        histories=[],
        init_std=0.01,
        device=torch.device("cpu"),
    )
    fields_BFD, dense_BM, *_ = embedding(batch)
    assert fields_BFD.shape == (3, 0, 4)
    assert dense_BM is batch.dense_BM


def test_a_sharding_plan_may_return_columns_in_another_order(embedding, batches):
    batch = batches(B)
    expected = embedding(batch).fields_BFD
    embedding.pooled = Shuffled(embedding.pooled)
    assert embedding(batch).fields_BFD.equal(expected)


class Shuffled(torch.nn.Module):
    """Gives the columns of a pooled collection in reverse."""

    def __init__(self, collection):
        super().__init__()
        self.collection = collection

    def forward(self, ids):
        found = self.collection(ids)
        keys = found.keys()[::-1]
        return KeyedTensor(
            keys, [4] * len(keys), torch.cat([found[k] for k in keys], 1)
        )


def test_tables_start_normal_with_the_given_width(network_of):
    weight_VD = rows_of(
        network_of(dim=64, init_std=0.1).embedding, "embedding_bags.id_user.weight"
    )
    assert weight_VD.std().item() == pytest.approx(0.1, rel=0.1)


def test_on_meta_no_memory_is_taken_and_names_are_equal(network, network_of):
    meta = network_of(device="meta")
    assert all(p.is_meta for p in meta.embedding.pooled.parameters())
    assert all(p.is_meta for p in meta.embedding.sequence.parameters())
    assert not any(p.is_meta for p in meta.trunk.parameters())
    assert set(meta.state_dict()) == set(network.state_dict())
