import math

import pytest
import torch
import torch.nn.functional as F

from recsys_mtl.model.embeddings.pooling import Bert4Rec, EventEncoder, MaskedGuess

D, K, Q = 4, 3, 2
W = K * D
LENGTHS = torch.tensor([3, 0, 1, 5, 0], dtype=torch.int32)
B, N, L = len(LENGTHS), int(LENGTHS.sum()), 6
IDS = torch.tensor([2, 7, 0, 1, 5, 7, 2, 9, 4])  # 0 is missing and 1 is unseen


def build(pool="mean", *, share=None, dropout=0.0):
    torch.manual_seed(0)
    encoder = EventEncoder(W, length=L, num_layers=2, num_heads=2, dropout=dropout)
    guess = None if share is None else MaskedGuess(W, D, weight=0.5, share=share)
    pooling = Bert4Rec(encoder, guess=guess, pool=pool, query_width=Q * D)
    with torch.no_grad():  # weights far from their small start
        for parameter in pooling.parameters():
            parameter.normal_(std=0.5)
    return pooling


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return torch.randn(N, K, D), LENGTHS, torch.randn(B, Q, D)


def encode(encoder, event_LW):
    """One row's events, oldest first, head by head and event by event."""
    ages = range(len(event_LW) - 1, -1, -1)
    x_LW = encoder.norm(event_LW + encoder.age_LW[list(ages)])
    for layer in encoder.layers:
        query, key, value = layer.read(x_LW).chunk(3, dim=1)
        read = []
        for row in range(len(x_LW)):
            heads = []
            for h in range(layer.num_heads):
                part = slice(h * W // layer.num_heads, (h + 1) * W // layer.num_heads)
                score_L = key[:, part] @ query[row, part]
                weight_L = (score_L / math.sqrt(part.stop - part.start)).softmax(0)
                heads.append(weight_L @ value[:, part])
            read.append(torch.cat(heads))
        x_LW = layer.mix_norm(x_LW + layer.mix(torch.stack(read)))
        x_LW = layer.norm(x_LW + layer.narrow(F.gelu(layer.widen(x_LW))))
    return x_LW


def reference(pooling, events_NKD, length_B, query_BQD):
    rows = []
    for events_LKD, query_QD in zip(
        events_NKD.split(length_B.tolist()), query_BQD, strict=True
    ):
        if len(events_LKD) == 0:
            rows.append(torch.zeros(K, D))
            continue
        x_LW = encode(pooling.encoder, events_LKD.flatten(1))
        if pooling.pool == "mean":
            pooled_W = x_LW.mean(0)
        elif pooling.pool == "last":
            pooled_W = x_LW[-1]
        else:
            score_L = x_LW @ pooling.query(query_QD.flatten()) / math.sqrt(W)
            pooled_W = score_L.softmax(0) @ x_LW
        rows.append(pooled_W.view(K, D))
    return torch.stack(rows)


@pytest.mark.parametrize("pool", ["mean", "last", "target"])
def test_matches_the_encoder_computed_row_by_row(pool, inputs):
    pooling = build(pool)
    torch.testing.assert_close(
        pooling(*inputs), reference(pooling, *inputs), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("pool", ["mean", "last", "target"])
def test_every_parameter_and_every_event_gets_gradient(pool, inputs):
    events_NKD, length_B, query_BQD = inputs
    pooling = build(pool)
    pooling(events_NKD.requires_grad_(), length_B, query_BQD).square().sum().backward()
    assert (events_NKD.grad.abs().sum((1, 2)) > 0).all(), "both directions of time"
    for name, parameter in pooling.named_parameters():
        assert parameter.grad.isfinite().all(), name
        if name == "encoder.age_LW":  # no row has six events
            assert parameter.grad.abs().sum(1).gt(0).tolist() == [True] * 5 + [False]
        else:
            assert parameter.grad.abs().sum() > 0, name


def test_the_order_of_events_matters(inputs):
    events_NKD, length_B, query_BQD = inputs
    pooling = build()
    row = slice(4, 9)
    one = pooling(events_NKD[row], length_B[3:4], query_BQD[3:4])
    other = pooling(events_NKD[row].flip(0), length_B[3:4], query_BQD[3:4])
    assert (one - other).abs().max() > 1e-3


def test_places_are_counted_from_the_newest_event(inputs):
    events_NKD, _, query_BQD = inputs
    pooling = build("last")
    with torch.no_grad():  # events that read nobody know their place alone
        for layer in pooling.encoder.layers:
            layer.mix.weight.zero_()
    short, long = (
        pooling(events_NKD[-n:], torch.tensor([n]), query_BQD[:1]) for n in (2, 5)
    )
    torch.testing.assert_close(short, long)


def test_the_candidate_makes_no_difference_but_to_the_pool_target(inputs):
    events_NKD, length_B, query_BQD = inputs
    for pool in ("mean", "last", "target"):
        pooling = build(pool)
        same = pooling(*inputs).equal(pooling(events_NKD, length_B, -query_BQD))
        assert same == (pool != "target")


def test_dropout_acts_in_training_only(inputs):
    pooling = build(dropout=0.5)
    assert not pooling(*inputs).equal(pooling(*inputs))
    pooling.eval()
    assert pooling(*inputs).equal(pooling(*inputs))


def naive_loss(pooling, events_NKD, masked_N):
    """Guess each masked event among the distinct masked ids, row by row."""
    guess = pooling.guess
    shown_NW = events_NKD.flatten(1).clone()
    shown_NW[masked_N] = guess.mask_W
    x_NW = torch.cat([encode(pooling.encoder, x) for x in shown_NW.split([3, 1, 5])])
    masked = masked_N.nonzero()[:, 0].tolist()
    vectors = {IDS[n].item(): events_NKD[n, 0] for n in masked}
    losses = []
    for n in masked:
        y_D = guess.norm(F.gelu(guess.dense(x_NW[n])))
        scores = {i: y_D @ vector_D for i, vector_D in vectors.items()}
        losses.append(
            torch.stack(list(scores.values())).logsumexp(0) - scores[IDS[n].item()]
        )
    return 0.5 * torch.stack(losses).mean()


@pytest.fixture
def events():
    """Events of which equal ids have equal vectors, as from a table."""
    torch.manual_seed(2)
    events_NKD = torch.randn(N, K, D)
    events_NKD[:, 0] = torch.randn(10, D)[IDS]
    return events_NKD


def test_the_masked_loss_matches_guessing_computed_naively(events):
    pooling = build(share=0.999)
    masked_N = IDS > 1  # with this seed all that may be are masked
    torch.testing.assert_close(
        pooling.auxiliary(events, LENGTHS, IDS), naive_loss(pooling, events, masked_N)
    )
    torch.manual_seed(5)
    half = build(share=0.5)
    torch.manual_seed(5)
    loss = half.auxiliary(events, LENGTHS, IDS)
    torch.manual_seed(5)
    masked_N = half.guess.masked(IDS)
    assert 1 < masked_N.sum() < (IDS > 1).sum()
    torch.testing.assert_close(loss, naive_loss(half, events, masked_N))


def test_a_masked_event_is_not_seen_by_its_own_guess(events):
    pooling = build(share=0.999)
    torch.manual_seed(0)
    loss = pooling.auxiliary(events, LENGTHS, IDS)
    changed_NKD = events.clone()
    changed_NKD[:, 1:] += 1.0  # fields that are not the ones guessed among
    torch.manual_seed(0)
    changed_NKD[IDS <= 1] = events[IDS <= 1]
    assert pooling.auxiliary(changed_NKD, LENGTHS, IDS).equal(loss)


def test_missing_and_unseen_ids_are_never_guessed():
    guess = MaskedGuess(W, D, weight=1.0, share=0.999)
    assert not guess.masked(torch.tensor([0, 1] * 100)).any()
    share = MaskedGuess(W, D, weight=1.0, share=0.2).masked(torch.arange(2, 10_002))
    assert share.float().mean().item() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("ids", [IDS, torch.zeros(N, dtype=torch.int64)])
def test_the_masked_loss_gives_every_parameter_a_gradient(events, ids):
    # Without one, workers that mask nothing would wait for each other for ever.
    pooling = build(share=0.9)
    pooling.auxiliary(events, LENGTHS, ids).backward()
    for name, parameter in pooling.named_parameters():
        if name.startswith("query"):
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_batch_without_events_has_nothing_to_guess():
    pooling = build(share=0.9)
    none = torch.zeros(2, dtype=torch.int32)
    assert pooling.auxiliary(torch.empty(0, K, D), none, IDS[:0]).item() == 0.0


def test_guessing_is_learned(events):
    torch.manual_seed(0)
    encoder = EventEncoder(W, length=L)
    pooling = Bert4Rec(encoder, guess=MaskedGuess(W, D, weight=1.0, share=0.4))
    optimizer = torch.optim.Adam(pooling.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = pooling.auxiliary(events, LENGTHS, IDS)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
