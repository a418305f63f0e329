import torch

from recsys_mtl.model.bottoms.flat import FlatBottom

B, F, D, M = 5, 3, 4, 2


def test_lays_fields_side_by_side_and_numbers_last():
    bottom = FlatBottom(num_fields=F, dim=D, num_dense=M)
    fields_BFD, dense_BM = torch.randn(B, F, D), torch.randn(B, M)
    x_BSD = bottom(fields_BFD, dense_BM)
    assert x_BSD.shape == (B, 1, bottom.out_dim)
    for f in range(F):
        assert x_BSD[:, 0, f * D : (f + 1) * D].equal(fields_BFD[:, f])
    assert x_BSD[:, 0, F * D :].equal(dense_BM)


def test_dropout_acts_in_training_only():
    bottom = FlatBottom(num_fields=F, dim=D, num_dense=M, dropout=0.5)
    ones = torch.ones(B, F, D), torch.ones(B, M)
    assert set(bottom(*ones).unique().tolist()) == {0.0, 2.0}
    assert (bottom.eval()(*ones) == 1).all()
