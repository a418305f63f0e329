import torch

from recsys_mtl.model.gating.shared_bottom import SharedBottom

B, D, T = 5, 4, 3


def test_every_task_reads_the_same_mlp():
    gating = SharedBottom(D, (7, 6), num_tasks=T)
    x_B1D = torch.randn(B, 1, D)
    h = x_B1D[:, 0]
    for weight_1HD, bias_1H in zip(
        gating.experts.weights, gating.experts.biases, strict=True
    ):
        h = (h @ weight_1HD[0].T + bias_1H[0]).relu()
    for t in range(T):
        torch.testing.assert_close(gating(x_B1D)[:, t], h)
