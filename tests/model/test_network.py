def test_smoke(network, batches):
    batch = batches(16)
    logits = network(batch)
    loss, count = network.loss_T(logits, batch.label_BT)
    print([l.shape for l in logits], loss, count, network.predict(logits)[:3])
    loss.sum().backward()
    for n, p in network.named_parameters():
        print(n, tuple(p.shape), float(p.grad.abs().sum()))
