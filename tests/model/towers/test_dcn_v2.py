import pytest
import torch
from torch import nn

from recsys_mtl.model.towers.dcn_v2 import DCNV2Tower

B, T, D = 5, 2, 4
NUM_LOGITS = (1, 2)


def make(structure, **options):
    torch.manual_seed(0)
    tower = DCNV2Tower(
        D, (7, 6), num_layers=3, structure=structure, num_logits=NUM_LOGITS, **options
    )
    for name, parameter in tower.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    return tower


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_is_the_published_model_written_row_by_row(structure):
    tower = make(structure)
    h_BTH = torch.randn(B, T, D)
    found = torch.cat(tower(h_BTH), dim=1)
    for x, t in enumerate([0, 1, 1]):
        for b in range(B):
            start = crossed = h_BTH[b, t]
            for cross in tower.crosses:
                inner = cross.weight_THG[t] @ crossed + cross.bias_TH[t]
                crossed = start * inner + crossed
            deep = crossed if structure == "stacked" else start
            for layer in tower.mlp.layers:
                deep = (layer.weight_THG[t] @ deep + layer.bias_TH[t]).relu()
            last = deep if structure == "stacked" else torch.cat([crossed, deep])
            expected = tower.logits.weight_XH[x] @ last + tower.logits.bias_X[x]
            torch.testing.assert_close(found[b, x], expected)


def test_crosses_reach_the_degree_that_layers_allow():
    # Without biases and MLP, L layers make a polynomial whose terms are of degree 1
    # to L + 1; of a zero and a double input only the former tells nothing.
    tower = make("parallel")
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if "bias" in name or name.startswith("mlp"):
                parameter.zero_()
    h_BTH = torch.randn(1, T, D, dtype=torch.float64)
    tower.double()
    scales = torch.arange(1.0, 6.0, dtype=torch.float64)
    values = torch.stack([tower(s * h_BTH)[0][0, 0] for s in scales])
    powers = scales[:, None] ** torch.arange(1, 6)
    terms = torch.linalg.solve(powers, values)
    assert terms[:4].abs().min() > 1e-6
    assert terms[4].abs() < 1e-8


def test_a_task_sees_no_other_tasks_input():
    tower, h_BTH = make("parallel"), torch.randn(B, T, D)
    other = h_BTH.clone()
    other[:, 1] += 1.0
    one, two = tower(h_BTH), tower(other)
    torch.testing.assert_close(one[0], two[0])
    assert not one[1].equal(two[1])


def test_starts_where_it_is_told():
    tower = make("stacked")
    nn.init.zeros_(tower.logits.weight_XH)
    start = ((0.5,), (1.0, -2.0))
    tower.start_at(start)
    for logits_BC, expected in zip(tower(torch.randn(B, T, D)), start, strict=True):
        torch.testing.assert_close(logits_BC, torch.tensor(expected).expand(B, -1))


def test_options_of_the_mlp_reach_it():
    h_BTH = torch.randn(B, T, D)
    tower = make("parallel", dropout=0.5)
    assert not tower(h_BTH)[0].equal(tower(h_BTH)[0])
    tower = make("parallel", batch_norm=True)
    assert not tower(h_BTH)[0].equal(tower.eval()(h_BTH)[0])
