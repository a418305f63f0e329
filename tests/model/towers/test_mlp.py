import pytest
import torch

from recsys_mtl.model.towers.mlp import MLPTower

B, T, D = 5, 3, 4
NUM_LOGITS = (1, 2, 1)


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return MLPTower(D, (7, 6), num_logits=NUM_LOGITS)


def test_each_task_is_an_mlp_of_its_own(tower):
    h_BTH = torch.randn(B, T, D)
    for t, logits_BC in enumerate(tower(h_BTH)):
        h = h_BTH[:, t]
        for layer in tower.mlp.layers:
            h = (h @ layer.weight_THG[t].T + layer.bias_TH[t]).relu()
        last = tower.logits[t]
        torch.testing.assert_close(logits_BC, h @ last.weight.T + last.bias)


def test_a_task_sees_no_other_tasks_input(tower):
    h_BTH = torch.randn(B, T, D)
    other = h_BTH.clone()
    other[:, 1] += 1.0
    one, two = tower(h_BTH), tower(other)
    assert one[0].equal(two[0])
    assert one[2].equal(two[2])
    assert not one[1].equal(two[1])


def test_starts_where_it_is_told(tower):
    start = ((0.5,), (1.0, -2.0), (3.0,))
    tower.start_at(start)
    for logits_BC, expected in zip(tower(torch.zeros(B, T, D)), start, strict=True):
        torch.testing.assert_close(logits_BC, torch.tensor(expected).expand(B, -1))


def test_batch_normalisation_undoes_the_scale_of_the_input():
    tower = MLPTower(D, (7,), num_logits=(1,), batch_norm=True)
    h_BTH = torch.randn(B, 1, D)
    torch.testing.assert_close(
        tower(h_BTH)[0], tower(100 * h_BTH)[0], rtol=1e-3, atol=1e-3
    )


def test_dropout_acts_in_training_only():
    tower = MLPTower(D, (32,), num_logits=(1,), dropout=0.5)
    h_BTH = torch.randn(B, 1, D)
    assert not tower(h_BTH)[0].equal(tower(h_BTH)[0])
    tower.eval()
    assert tower(h_BTH)[0].equal(tower(h_BTH)[0])
