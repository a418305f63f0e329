import math

import torch

from recsys_mtl.data.batch import to_batch

B = 12


def test_logits_are_as_wide_as_each_head_wants(network, batches, tasks):
    logits = network(batches(B)).logits
    assert [tuple(x_BC.shape) for x_BC in logits] == [(B, 1), (B, 2), (B, 1)]
    assert network.predict(logits).shape == (B, len(tasks))


def test_loss_is_each_heads_mean_over_labelled_rows(network, batches):
    batch = batches(B)
    batch.label_BT[::2, 1] = math.nan
    logits = network(batch).logits
    loss_T, count_T = network.loss_T(logits, batch.label_BT)
    assert count_T.tolist() == [B, B // 2, B]
    for t, head in enumerate(network.heads):
        rows = ~batch.label_BT[:, t].isnan()
        expected = head.loss(logits[t][rows], batch.label_BT[rows, t]).mean()
        torch.testing.assert_close(loss_T[t], expected)


def test_a_row_without_label_gives_no_gradient(network, batches):
    batch = batches(B)
    batch.label_BT[3] = math.nan
    logits = tuple(x_BC.detach().requires_grad_() for x_BC in network(batch).logits)
    network.loss_T(logits, batch.label_BT)[0].sum().backward()
    for x_BC in logits:
        assert x_BC.grad[3].abs().sum() == 0
        assert (x_BC.grad[torch.arange(B) != 3].abs().sum(1) > 0).all()


def test_a_task_without_labels_loses_nothing_and_teaches_nothing(network, batches):
    batch = batches(B)
    batch.label_BT[:, 2] = math.nan
    loss_T, count_T = network.loss_T(network(batch).logits, batch.label_BT)
    assert (loss_T[2].item(), count_T[2].item()) == (0.0, 0)
    loss_T[2].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is None or parameter.grad.eq(0).all(), name


def test_labels_are_no_input(network, batches):
    batch, unlabelled = batches(B), batches(B)
    unlabelled.label_BT = None
    for one, other in zip(
        network(batch).logits, network(unlabelled).logits, strict=True
    ):
        assert one.equal(other)


def test_permuting_tasks_permutes_outputs(network, network_of, batches, tasks):
    batch = batches(B)
    order = [2, 0, 1]
    other = network_of(tasks=tuple(tasks[t] for t in order))
    embedded = network.embedding(batch)[:4]
    trunk, permuted = network.trunk, other.trunk
    permuted.gating, permuted.tower = trunk.gating, trunk.tower
    before = trunk(*embedded)
    with torch.no_grad():
        for parameter in (
            trunk.gating.gates_TED,
            *trunk.tower.mlp.parameters(),
        ):
            parameter.copy_(parameter[order])
        last = list(trunk.tower.logits)
        permuted.tower.logits = torch.nn.ModuleList(last[t] for t in order)
    for t, logits_BC in zip(order, permuted(*embedded), strict=True):
        torch.testing.assert_close(logits_BC, before[t])


def test_rows_do_not_see_each_other(network, encoded, schema):
    table = encoded(B)
    together = network(to_batch(table, schema)).logits
    for b in range(B):
        alone = network(to_batch(table.slice(b, 1), schema)).logits
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_[b])


def test_autocast_leaves_embeddings_and_logits_in_float32(network, batches):
    batch = batches(B)
    exact = network(batch).logits
    with torch.autocast("cpu", torch.bfloat16):
        assert network.embedding(batch).fields_BFD.dtype == torch.float32
        logits = network(batch).logits
    for rough, sharp in zip(logits, exact, strict=True):
        assert rough.dtype == torch.float32
        assert not rough.equal(sharp)
        torch.testing.assert_close(rough, sharp, rtol=0.1, atol=0.2)


def test_a_few_steps_fit_the_labels(network, batches):
    batch = batches(B)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss_T, _ = network.loss_T(network(batch).logits, batch.label_BT)
        loss_T.sum().backward()
        optimizer.step()
        losses.append(loss_T.detach())
    assert (losses[-1] < losses[0]).all()
    prediction_BT = network.predict(network(batch).logits)
    clicked_B = batch.label_BT[:, 0] == 1
    assert prediction_BT[clicked_B, 0].min() > prediction_BT[~clicked_B, 0].max()


def test_rows_of_weight_2_count_twice(network, batches):
    logits, batch = network(batches(B)).logits, batches(B)
    weight_BT = torch.ones_like(batch.label_BT)
    weight_BT[:5] = 2.0
    loss_T, mass_T = network.loss_T(logits, batch.label_BT, weight_BT)
    twice = tuple(torch.cat([x_BC, x_BC[:5]]) for x_BC in logits)
    label_BT = torch.cat([batch.label_BT, batch.label_BT[:5]])
    expected_T, count_T = network.loss_T(twice, label_BT)
    torch.testing.assert_close(loss_T, expected_T)
    torch.testing.assert_close(mass_T, count_T)


def test_rows_of_weight_0_give_no_gradient(network, batches):
    batch = batches(B)
    logits = tuple(x_BC.detach().requires_grad_() for x_BC in network(batch).logits)
    weight_BT = torch.ones_like(batch.label_BT)
    weight_BT[:, 1] = 0.0
    loss_T, _ = network.loss_T(logits, batch.label_BT, weight_BT)
    assert loss_T[1] == 0.0
    loss_T.sum().backward()
    assert (logits[1].grad == 0).all()
    assert (logits[0].grad != 0).all()
