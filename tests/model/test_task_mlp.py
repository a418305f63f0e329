import pytest
import torch
from torch import nn

from recsys_mtl.model.task_mlp import TaskBatchNorm, TaskLinear, TaskLogits, TaskMLP

B, D, H = 7, 4, 5


@pytest.mark.parametrize("num_tasks", [1, 3])
def test_a_layer_is_one_linear_layer_a_task(num_tasks):
    layer = TaskLinear(D, H, num_tasks=num_tasks)
    nn.init.normal_(layer.bias_TH)
    h_TBG = torch.randn(num_tasks, B, D)
    for t, y_BH in enumerate(layer(h_TBG)):
        expected_BH = h_TBG[t] @ layer.weight_THG[t].T + layer.bias_TH[t]
        torch.testing.assert_close(y_BH, expected_BH)


@pytest.mark.parametrize("num_tasks", [1, 3])
def test_normalisation_is_that_of_torch_for_each_task(num_tasks):
    norm = TaskBatchNorm(num_tasks, H)
    nn.init.normal_(norm.weight_TH)
    nn.init.normal_(norm.bias_TH)
    oracles = [nn.BatchNorm1d(H) for _ in range(num_tasks)]
    for t, oracle in enumerate(oracles):
        oracle.weight.data = norm.weight_TH[t].data
        oracle.bias.data = norm.bias_TH[t].data
    for _ in range(3):
        h_TBH = 2 * torch.randn(num_tasks, B, H) + 1
        expected_TBH = torch.stack([o(h_TBH[t]) for t, o in enumerate(oracles)])
        torch.testing.assert_close(norm(h_TBH), expected_TBH)
    norm.eval()
    h_TBH = torch.randn(num_tasks, B, H)
    expected_TBH = torch.stack([o.eval()(h_TBH[t]) for t, o in enumerate(oracles)])
    torch.testing.assert_close(norm(h_TBH), expected_TBH)


def test_one_row_goes_by_the_running_averages_and_leaves_them_alone():
    norm = TaskBatchNorm(2, H)
    norm(torch.randn(2, B, H))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    h_T1H = torch.randn(2, 1, H)
    trained = norm(h_T1H)
    assert all(norm.state_dict()[name].equal(before[name]) for name in before)
    torch.testing.assert_close(trained, norm.eval()(h_T1H))


def test_an_mlp_is_layers_norms_and_relus():
    mlp = TaskMLP(D, (H, 3), num_tasks=2, batch_norm=True)
    h_TBH = x_TBD = torch.randn(2, B, D)
    for layer, norm in zip(mlp.layers, mlp.norms, strict=True):
        h_TBH = norm(layer(h_TBH)).relu()
    mlp_again = mlp(x_TBD)
    torch.testing.assert_close(mlp_again, h_TBH)
    assert (mlp_again >= 0).all()


def test_logits_read_their_own_task_and_start_where_told():
    last = TaskLogits(H, (1, 2, 1))
    start = [0.5, -1.0, 2.0, 3.0]
    last.start_at(start)
    h_TBH = torch.randn(3, B, H)
    for x, task in enumerate([0, 1, 1, 2]):
        expected_B = h_TBH[task] @ last.weight_XH[x] + start[x]
        torch.testing.assert_close(last(h_TBH)[:, x], expected_B)
