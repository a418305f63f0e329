import pytest
import torch

from recsys_mtl.model.bottoms import DTRN, EventHistory, TaskEncoder, TaskInterest
from recsys_mtl.model.embeddings import EventSequence
from recsys_mtl.model.embeddings.pooling import MeanPooling, TargetAttention

T, F, D, M = 3, 5, 4, 2
WIDTH = 6
LENGTHS = [2, 0, 3]
B, N = len(LENGTHS), sum(LENGTHS)
NUM_EVENT_FIELDS = 3 + 1


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make(num_tasks=T, *, history_length=3, reduction=4, code_dim=2):
    torch.manual_seed(0)
    din = TargetAttention(D, num_fields=3, num_matched=2, hidden=(5,))
    interest = TaskInterest(
        D,
        [
            EventHistory(3, history_length, din),
            EventHistory(1, history_length, MeanPooling()),
        ],
        encoder=TaskEncoder(WIDTH, num_heads=2, num_layers=1),
        num_tasks=num_tasks,
        code_dim=code_dim,
        hidden=(7,),
    )
    return DTRN(
        num_fields=F,
        dim=D,
        num_dense=M,
        num_tasks=num_tasks,
        interest=interest,
        reduction=reduction,
    )


def draw(lengths=LENGTHS):
    length_B = torch.tensor(lengths, dtype=torch.int32)
    rows, events = len(lengths), sum(lengths)
    sequences = (
        EventSequence(torch.randn(events, 3, D), length_B, torch.randn(rows, 2, D)),
        EventSequence(torch.randn(events, 1, D), length_B, torch.randn(rows, 1, D)),
    )
    return torch.randn(rows, F, D), torch.randn(rows, M), sequences


def numbers_of(bottom):
    return sum(parameter.numel() for parameter in bottom.parameters())


@torch.no_grad()
def silence(network):
    network.last_HG.zero_()


def test_a_task_weighs_each_field_by_squeeze_and_excitation():
    bottom = DTRN(num_fields=F, dim=D, num_dense=M, num_tasks=T, reduction=2)
    fields_BFD, dense_BM, _ = draw()
    x_BTX = bottom(fields_BFD, dense_BM)
    assert x_BTX.shape == (B, T, bottom.out_dim)
    for b in range(B):
        for t in range(T):
            mean_F = torch.stack([fields_BFD[b, f].mean() for f in range(F)])
            squeezed = (bottom.squeeze_TGF[t] @ mean_F).clamp(min=0)
            weight_F = 2 / (1 + (-bottom.excite_TFG[t] @ squeezed).exp())
            parts = [weight_F[f] * fields_BFD[b, f] for f in range(F)]
            torch.testing.assert_close(
                x_BTX[b, t], torch.cat([*parts, dense_BM[b]]), msg=f"{b} {t}"
            )


def test_untold_weights_leave_fields_as_they_are():
    bottom = DTRN(num_fields=F, dim=D, num_dense=M, num_tasks=T)
    torch.nn.init.zeros_(bottom.excite_TFG)
    fields_BFD, dense_BM, _ = draw()
    expected = torch.cat([fields_BFD.flatten(1), dense_BM], dim=1)
    torch.testing.assert_close(
        bottom(fields_BFD, dense_BM), expected[:, None].expand(-1, T, -1)
    )


def test_a_silent_hypernetwork_gives_every_task_the_same_interest():
    bottom = make()
    inputs = draw()
    for interest_BTKD in bottom.interest(inputs[2]):
        assert not torch.allclose(interest_BTKD[:, 0], interest_BTKD[:, 1])
    silence(bottom.interest.hypernetwork)
    for interest_BTKD in bottom.interest(inputs[2]):
        for t in range(1, T):
            torch.testing.assert_close(interest_BTKD[:, t], interest_BTKD[:, 0])
    assert not torch.allclose(*bottom(*inputs)[:, :2].unbind(1)), "weights differ yet"
    with torch.no_grad():
        bottom.squeeze_TGF.copy_(bottom.squeeze_TGF[:1].expand(T, -1, -1))
        bottom.excite_TFG.copy_(bottom.excite_TFG[:1].expand(T, -1, -1))
    x_BTX = bottom(*inputs)
    torch.testing.assert_close(x_BTX, x_BTX[:, :1].expand(-1, T, -1))


def test_tasks_folded_into_rows_equal_one_task_after_the_other():
    interest, (_, _, sequences) = make().interest, draw()
    together = interest(sequences)
    task_TD = interest.task_TD.detach().clone()
    for t in range(T):
        interest.task_TD = torch.nn.Parameter(task_TD[t : t + 1])
        for one, all_tasks in zip(interest(sequences), together, strict=True):
            torch.testing.assert_close(one[:, 0], all_tasks[:, t])


def test_an_interest_is_the_pooling_of_encoded_events():
    interest, (_, _, sequences) = make().interest, draw()
    pooled = interest(sequences)
    norms = interest._norms()
    for number, (events_NKD, length_B, query_BQD) in enumerate(sequences):
        encoded = interest._encode(number, events_NKD, length_B, norms[number])
        for t in range(T):
            last = norms[number][-1]
            normed = encoded[t] * last.scale_TG[t] + last.shift_TG[t]
            change = interest.outward[number](normed).view_as(events_NKD)
            torch.testing.assert_close(
                pooled[number][:, t],
                interest.poolings[number](events_NKD + change, length_B, query_BQD),
            )


def test_encoding_is_added_to_the_events():
    interest, (_, _, sequences) = make().interest, draw()
    for layer in interest.outward:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    for number, interest_BTKD in enumerate(interest(sequences)):
        plain_BKD = interest.poolings[number](*sequences[number])
        for t in range(T):
            torch.testing.assert_close(interest_BTKD[:, t], plain_BKD)


def test_a_new_task_adds_a_code_and_its_weights_of_fields():
    fields = F + NUM_EVENT_FIELDS
    for code_dim, reduction in ((2, 4), (5, 3)):
        options = {"code_dim": code_dim, "reduction": reduction}
        few, many = (numbers_of(make(n, **options)) for n in (2, 5))
        squeezed = -(-fields // reduction)
        assert many - few == 3 * (code_dim + 2 * fields * squeezed)


def test_a_row_without_events_has_no_interest():
    interest, (_, _, sequences) = make().interest, draw()
    for interest_BTKD in interest(sequences):
        assert (interest_BTKD[1] == 0).all()
        assert (interest_BTKD[[0, 2]].abs().sum(-1) > 0).all()


def test_rows_do_not_see_each_other():
    bottom, (fields_BFD, dense_BM, sequences) = make(), draw()
    together = bottom(fields_BFD, dense_BM, sequences)
    alone = bottom(
        fields_BFD[2:],
        dense_BM[2:],
        tuple(EventSequence(s[0][2:], s[1][2:], s[2][2:]) for s in sequences),
    )
    torch.testing.assert_close(together[2:], alone)


def test_room_for_longer_histories_changes_nothing():
    short, long, inputs = make(), make(history_length=8), draw()
    state = short.state_dict()
    for name, tensor in long.state_dict().items():
        if ".age." in name:
            state[name] = torch.cat([state[name], tensor[len(state[name]) :]])
    long.load_state_dict(state)
    torch.testing.assert_close(short(*inputs), long(*inputs))


def test_positions_count_from_the_newest_event():
    interest, (_, _, sequences) = make().interest, draw([1])
    (event_1KD, length_B, query_BQD), second = sequences
    older = torch.cat([torch.randn(1, 3, D), event_1KD])
    for lengths, events in ((length_B, event_1KD), (length_B + 1, older)):
        interest.zero_grad()
        history = EventSequence(events, lengths, query_BQD)
        interest((history, second))[0].sum().backward()
        touched = interest.age[0].weight.grad.abs().sum(1) > 0
        assert touched.tolist() == [n < int(lengths) for n in range(3)]


def test_every_parameter_and_input_gets_gradient():
    bottom, (fields_BFD, dense_BM, sequences) = make(), draw()
    leaves = [fields_BFD, dense_BM, *(s.events_NKD for s in sequences)]
    for leaf in leaves:
        leaf.requires_grad_()
    bottom(fields_BFD, dense_BM, sequences).square().sum().backward()
    for name, parameter in bottom.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    for leaf in leaves:
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().sum() > 0


def test_half_precision_is_close():
    bottom, inputs = make(), draw()
    with torch.autocast("cpu", torch.bfloat16):
        half = bottom(*inputs)
    torch.testing.assert_close(half.float(), bottom(*inputs), rtol=0.1, atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 3, 40], ids=["alone", "short", "long"])
def test_export_equals_eager_at_another_batch_size(length):
    bottom, rows = make(history_length=length).eval(), torch.export.Dim("rows", min=1)
    shapes = tuple(
        EventSequence({0: torch.export.Dim(f"events{n}", min=0)}, {0: rows}, {0: rows})
        for n in range(2)
    )
    program = torch.export.export(
        bottom, draw([1, 0, 1]), dynamic_shapes=({0: rows}, {0: rows}, shapes)
    )
    for lengths in ([1], [0, length, 0, 1, length], [0, 0]):
        inputs = draw(lengths)
        torch.testing.assert_close(program.module()(*inputs), bottom(*inputs))
