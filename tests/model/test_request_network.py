"""User once: equal to the network on whole rows, whatever it is made of."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch
from model_stages import STAGES, TASKS, each_once, name_of

from recsys_mtl.config.feature import (
    AttentionPooling,
    Bert4RecPooling,
    MeanPooling,
)
from recsys_mtl.config.gating import MMoESpec
from recsys_mtl.config.tower import FinalMLPSpec, MLPTowerSpec, StreamSpec
from recsys_mtl.data.request_batch import RequestBatch, SchemaSplit
from recsys_mtl.model.request_network import RequestNetwork

HISTORIES = {
    *("clicks.item", "clicks.values", "clicks.dwell", "clicks.gap", "orders.item")
}
SHARED = HISTORIES | {"user", "age", "values"}
SIZES = [[5], [1], [9, 30], [0, 3], [12, 0, 20], [0], [1, 1, 1], [40]]


@pytest.fixture
def requests_of(encoded, schema):
    """Function (candidates of each request, shared columns, seed) -> RequestBatch."""

    def make(counts, shared=SHARED, seed=0, **options):
        split = SchemaSplit.by_columns(schema, shared)
        request_N = np.repeat(np.arange(len(counts)), counts)
        users = encoded(len(counts), seed, **options).select(split.shared)
        items = encoded(len(request_N), seed + 1, **options).select(split.own)
        if not split.own:
            items = pa.table({"": pa.nulls(len(request_N))})
        return RequestBatch.of_tables(split, users, items, request_N)

    return make


def assert_equal_to_whole_rows(network, batch):
    network.eval()
    scored = RequestNetwork(network, batch.split).score(batch)
    if batch.num_rows == 0:
        assert [tuple(x_BC.shape) for x_BC in scored] == [
            (0, head.num_logits) for head in network.heads
        ]
        return
    with torch.inference_mode():
        expected = network(batch.joined()).logits
    for one, other in zip(scored, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


# Behind another bottom than the flat one rows are whole, as everywhere else.
BEHIND_FLAT = [
    (flat, *others)
    for flat in STAGES["bottom"]
    if flat.kind == "flat"
    for others in itertools.product(*list(STAGES.values())[1:])
]


@pytest.mark.parametrize("combination", [*BEHIND_FLAT, *each_once()], ids=name_of)
def test_every_network_scores_requests_as_whole_rows(
    combination, network_of, requests_of
):
    stages = dict(zip(STAGES, combination, strict=True))
    network = network_of(tasks=TASKS, **stages)
    for counts in ([9, 30], [3, 0, 1]):
        assert_equal_to_whole_rows(network, requests_of(counts))


@pytest.mark.parametrize("combination", each_once(), ids=name_of)
@pytest.mark.parametrize("history", ["clicks", "orders", ""])
def test_histories_may_differ_from_candidate_to_candidate(
    combination, history, network_of, requests_of
):
    shared = {c for c in SHARED if not c.startswith(f"{history}.")}
    shared -= HISTORIES if not history else set()
    network = network_of(tasks=TASKS, **dict(zip(STAGES, combination, strict=True)))
    for counts in ([9, 30], [3, 0, 1], [40]):
        assert_equal_to_whole_rows(network, requests_of(counts, shared))


@pytest.mark.parametrize("counts", SIZES, ids=str)
@pytest.mark.parametrize("numeric", ["raw", "linear"])
def test_any_requests(counts, numeric, network_of, requests_of):
    network = network_of(gating=MMoESpec(hidden=(8, 6), num_experts=3), numeric=numeric)
    for seed in range(3):
        assert_equal_to_whole_rows(network, requests_of(counts, seed=seed))


@pytest.mark.parametrize(
    "pooling",
    [
        MeanPooling(),
        AttentionPooling(kind="din", hidden=(6, 5)),
        *(
            Bert4RecPooling(kind="bert4rec", num_layers=1, pool=pool)
            for pool in ("mean", "last", "target")
        ),
    ],
    ids=lambda p: f"{p.kind} {getattr(p, 'pool', '')}",
)
@pytest.mark.parametrize("history_length", [None, 0, 1])
def test_any_pooling(pooling, history_length, network_of, requests_of):
    network = network_of(pooling=pooling)
    for counts in ([40], [9, 30, 11], [1, 2], [0, 25]):
        for shared in (SHARED, SHARED - HISTORIES):
            batch = requests_of(counts, shared, history_length=history_length)
            assert_equal_to_whole_rows(network, batch)


@pytest.mark.parametrize(
    "shared",
    [
        HISTORIES,
        HISTORIES | {"item", "tags", "price"},
        HISTORIES | {"user", "type", "tags", "item", "values", "age", "price"},
    ],
    ids=["histories alone", "the candidate's fields too", "everything"],
)
@pytest.mark.parametrize("numeric", ["raw", "linear"])
def test_any_split(shared, numeric, network_of, requests_of):
    network = network_of(numeric=numeric, gating=MMoESpec(hidden=(8,), num_experts=2))
    assert_equal_to_whole_rows(network, requests_of([9, 0, 30], shared))


def test_streams_without_a_feature_gate_split(network_of, requests_of):
    tower = FinalMLPSpec(
        kind="final_mlp",
        first=StreamSpec(hidden=(6,)),
        second=StreamSpec(hidden=(8,)),
        feature_selection=False,
        num_heads=2,
    )
    assert_equal_to_whole_rows(network_of(tower=tower), requests_of([4, 7]))


def test_a_changed_weight_is_divided_anew(network_of, requests_of):
    network = network_of(gating=MMoESpec(hidden=(8, 6), num_experts=3))
    batch = requests_of([4, 7])
    scorer = RequestNetwork(network.eval(), batch.split)
    before = scorer.score(batch)[0]
    with torch.no_grad():
        network.trunk.gating.experts.weights[0].mul_(-1)
        expected = network(batch.joined()).logits[0]
    assert not torch.allclose(before, expected)
    torch.testing.assert_close(scorer.score(batch)[0], expected)


def test_what_is_shared_is_multiplied_once(network_of, requests_of):
    network = network_of(
        gating=MMoESpec(hidden=(8, 6), num_experts=3), tower=MLPTowerSpec(hidden=(5,))
    )
    scorer = RequestNetwork(network, requests_of([1]).split)
    shared_RU, own_NI, request_N = scorer.trunk_input(requests_of([9, 30]))
    # user, values, one field of orders; age. Clicks are pooled for each candidate.
    assert shared_RU.shape == (2, 3 * 4 + 1)
    # type, item, tags and four fields of clicks; price.
    assert own_NI.shape == (39, 7 * 4 + 1)
    assert request_N.tolist() == [0] * 9 + [1] * 30
