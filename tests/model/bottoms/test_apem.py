import math

import pytest
import torch
import torch.nn.functional as F

from recsys_mtl.model.bottoms import APEM
from recsys_mtl.model.bottoms.apem import GroupTransformer, PatternSelector

B, FIELDS, D, M, T = 4, 5, 6, 2, 3
GROUPS, INDUCING, INDICATORS = 2, 3, 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make(num_layers=1):
    return APEM(
        D,
        num_dense=M,
        num_tasks=T,
        num_layers=num_layers,
        num_groups=GROUPS,
        num_inducing=INDUCING,
        num_indicators=INDICATORS,
    )


def attend(query, keys, values):
    """Attention of one query."""
    score = torch.stack([query @ key for key in keys]) / math.sqrt(len(query))
    return sum(w * v for w, v in zip(score.softmax(0), values, strict=True))


def group_reference(layer, x_FD):
    """Grouped set attention over the fields of one row, group by group."""
    project = layer.project.weight.view(3, GROUPS, D, D)
    groups = []
    for a in range(GROUPS):
        keys, values, queries = ([w @ x for x in x_FD] for w in project[:, a])
        summaries = [attend(i, keys, values) for i in layer.inducing_AID[a]]
        second = [h @ layer.summary_ADX[a] for h in summaries]
        keys, values = [h[:D] for h in second], [h[D:] for h in second]
        groups.append(torch.stack([attend(q, keys, values) for q in queries]))
    mean = torch.stack([y_FD.mean() for y_FD in groups])
    weight = layer.excite(layer.squeeze(mean).clamp(min=0)).sigmoid()
    mixed = sum(w * y_FD for w, y_FD in zip(weight, groups, strict=True))
    return F.layer_norm(x_FD + mixed, (D,), layer.norm.weight, layer.norm.bias)


def select_reference(selector, y_FD):
    """What every task selects of one row, one indicator at a time."""
    gate = 2 * selector.gate(y_FD.mean(0)).sigmoid()
    key_weight, value_weight = selector.key_value.weight.split(D)
    tasks = []
    for indicators in selector.indicator_TPD:
        keys, values = [key_weight @ y for y in y_FD], [value_weight @ y for y in y_FD]
        tasks.append(torch.cat([attend(q * gate, keys, values) for q in indicators]))
    return torch.stack(tasks)


def test_group_attention_matches_the_equations_computed_naively():
    layer = GroupTransformer(D, num_groups=GROUPS, num_inducing=INDUCING)
    x_BFD = torch.randn(B, FIELDS, D)
    y_BFD = layer(x_BFD)
    for b in range(B):
        torch.testing.assert_close(y_BFD[b], group_reference(layer, x_BFD[b]))


def test_the_selector_matches_the_equations_computed_naively():
    selector = PatternSelector(D, num_tasks=T, num_indicators=INDICATORS)
    y_BFD = torch.randn(B, FIELDS, D)
    z_BTX = selector(y_BFD)
    for b in range(B):
        torch.testing.assert_close(z_BTX[b], select_reference(selector, y_BFD[b]))


def test_numbers_follow_what_a_task_selects():
    bottom = make(num_layers=2)
    fields_BFD, dense_BM = torch.randn(B, FIELDS, D), torch.randn(B, M)
    x_BTX = bottom(fields_BFD, dense_BM)
    assert x_BTX.shape == (B, T, bottom.out_dim)
    assert x_BTX[..., -M:].equal(dense_BM[:, None].expand(-1, T, -1))
    selected = bottom.selector(bottom.layers(fields_BFD))
    torch.testing.assert_close(x_BTX[..., :-M], selected)


def test_the_order_of_fields_does_not_matter():
    bottom, fields_BFD = make(), torch.randn(B, FIELDS, D)
    dense_BM = torch.randn(B, M)
    torch.testing.assert_close(
        bottom(fields_BFD.flip(1), dense_BM), bottom(fields_BFD, dense_BM)
    )


def test_permuting_indicators_permutes_tasks():
    bottom, inputs = make(), (torch.randn(B, FIELDS, D), torch.randn(B, M))
    before, order = bottom(*inputs), [2, 0, 1]
    with torch.no_grad():
        indicator_TPD = bottom.selector.indicator_TPD
        indicator_TPD.copy_(indicator_TPD[order])
    torch.testing.assert_close(bottom(*inputs), before[:, order])


@pytest.mark.parametrize("fields", [1, 3])
def test_equal_fields_leave_nothing_to_select(fields):
    field_BFD = torch.randn(B, 1, D).expand(-1, fields, -1)
    selected = make()(field_BFD, torch.zeros(B, M))[..., :-M].unflatten(2, (-1, D))
    torch.testing.assert_close(selected, selected[:, :1, :1].expand_as(selected))


def test_rows_do_not_see_each_other():
    bottom = make()
    fields_BFD, dense_BM = torch.randn(B, FIELDS, D), torch.randn(B, M)
    torch.testing.assert_close(
        bottom(fields_BFD, dense_BM)[2:3], bottom(fields_BFD[2:3], dense_BM[2:3])
    )


def test_half_precision_is_close():
    bottom, inputs = make(), (torch.randn(B, FIELDS, D), torch.randn(B, M))
    with torch.autocast("cpu", torch.bfloat16):
        half = bottom(*inputs)
    torch.testing.assert_close(half.float(), bottom(*inputs), rtol=0.1, atol=0.1)
