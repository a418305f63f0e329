import pytest
import torch
import torch.nn.functional as F

from recsys_mtl.model.bottoms.task_encoder import Norm, TaskEncoder, lay_out

T, G, HEADS = 2, 6, 3
LENGTHS = [3, 0, 1, 4]
N = sum(LENGTHS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def encoder():
    return TaskEncoder(G, num_heads=HEADS, num_layers=2)


@pytest.fixture
def norms(encoder):
    return [
        Norm(torch.randn(T, G), torch.randn(T, G)) for _ in range(encoder.num_norms)
    ]


def slots(lengths, length):
    events_NKD = torch.zeros(sum(lengths), 1, 1)
    return lay_out(events_NKD, torch.tensor(lengths, dtype=torch.int32), length)


def attend(layer, x_LG):
    """Multi-head attention over the events of one row, one event at a time."""
    query, key, value = layer.query_key_value(x_LG).chunk(3, dim=1)
    rows = []
    for query_G in query:
        heads = []
        for part in range(HEADS):
            own = slice(part * G // HEADS, (part + 1) * G // HEADS)
            score = torch.stack([query_G[own] @ key_G[own] for key_G in key])
            weight = (score / (G // HEADS) ** 0.5).softmax(0)
            heads.append(
                sum(w * value_G[own] for w, value_G in zip(weight, value, strict=True))
            )
        rows.append(torch.cat(heads))
    return torch.stack(rows)


def reference(encoder, x_NG, norms, t):
    """One task, one row after the other, no padding; the last norm without affine."""

    def norm(number, x_LG):
        scale_G, shift_G = norms[number].scale_TG[t], norms[number].shift_TG[t]
        return F.layer_norm(x_LG, (G,), scale_G, shift_G)

    rows = []
    for of_row in x_NG.split(LENGTHS):
        if not len(of_row):
            continue
        x_LG = of_row
        for n, layer in enumerate(encoder.layers):
            x_LG = x_LG + layer.mix(attend(layer, norm(2 * n, x_LG)))
            h_LG = F.gelu(layer.inner(norm(2 * n + 1, x_LG)))
            x_LG = x_LG + layer.outer(h_LG)
        rows.append(F.layer_norm(x_LG, (G,)))
    return torch.cat(rows)


@pytest.mark.parametrize("length", [5, 40], ids=["short", "long"])
def test_matches_a_transformer_computed_row_by_row(encoder, norms, length):
    x_TNG = torch.randn(T, N, G)
    encoded = encoder(x_TNG, norms, slots(LENGTHS, length))
    for t in range(T):
        torch.testing.assert_close(encoded[t], reference(encoder, x_TNG[t], norms, t))


@pytest.mark.parametrize("length", [4, 40], ids=["short", "long"])
def test_shared_events_equal_a_copy_of_them_for_each_task(encoder, norms, length):
    x_1NG = torch.randn(1, N, G)
    torch.testing.assert_close(
        encoder(x_1NG, norms, slots(LENGTHS, length)),
        encoder(x_1NG.expand(T, -1, -1), norms, slots(LENGTHS, length)),
    )


@pytest.mark.parametrize("sharing", [1, T])
def test_an_event_alone_reads_itself_whatever_the_room(encoder, norms, sharing):
    x_SNG = torch.randn(sharing, 2, G)
    torch.testing.assert_close(
        encoder(x_SNG, norms, slots([1, 0, 1], 1)),
        encoder(x_SNG, norms, slots([1, 0, 1], 4)),
    )


def test_a_norm_folds_into_the_map_that_follows():
    norm, layer = Norm(torch.randn(T, G), torch.randn(T, G)), torch.nn.Linear(G, 5)
    x_TNG = torch.randn(T, N, G)
    weight_TGX, bias_T1X = norm.into(layer.weight, layer.bias)
    for t in range(T):
        torch.testing.assert_close(
            x_TNG[t] @ weight_TGX[t] + bias_T1X[t],
            layer(x_TNG[t] * norm.scale_TG[t] + norm.shift_TG[t]),
        )


def test_longer_padding_changes_nothing(encoder, norms):
    x_TNG = torch.randn(T, N, G)
    torch.testing.assert_close(
        encoder(x_TNG, norms, slots(LENGTHS, 4)),
        encoder(x_TNG, norms, slots(LENGTHS, 9)),
    )


def test_a_row_alone_equals_a_row_in_a_batch(encoder, norms):
    x_TNG = torch.randn(T, N, G)
    together = encoder(x_TNG, norms, slots(LENGTHS, 4))
    alone = encoder(x_TNG[:, 4:], norms, slots([4], 4))
    torch.testing.assert_close(together[:, 4:], alone)


def test_every_event_has_a_slot_of_its_own_and_an_age():
    found = slots(LENGTHS, 4)
    assert found.slot_N.tolist() == [0, 1, 2, 8, 12, 13, 14, 15]
    assert found.age_N.tolist() == [2, 1, 0, 0, 3, 2, 1, 0]
    assert found.open_BL.sum(1).tolist() == [3, 1, 1, 4]


def test_rows_without_events_leave_no_trace(encoder, norms):
    x_TNG = torch.randn(T, 2, G).requires_grad_()
    encoded = encoder(x_TNG, norms, slots([0, 2, 0], 4))
    encoded.square().sum().backward()
    assert x_TNG.grad.isfinite().all()
    torch.testing.assert_close(encoded, encoder(x_TNG, norms, slots([2], 4)))


def test_no_events_at_all_give_none(encoder, norms):
    assert encoder(torch.randn(T, 0, G), norms, slots([0, 0], 4)).shape == (T, 0, G)
