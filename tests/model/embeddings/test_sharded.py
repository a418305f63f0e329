"""The same network under TorchRec's DistributedModelParallel, in one process."""

import pytest
import torch
import torch.distributed as dist
from torchrec import EmbeddingBagCollection, EmbeddingCollection
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

from recsys_mtl.config.feature import Bert4RecPooling, MaskedLoss
from recsys_mtl.config.tower import WideDeepSpec

# TorchRec shards through interfaces of torch that warn of their age.
pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{module}(\..*)?")
    for module in ("torch", "torchrec")
] + [pytest.mark.filterwarnings("ignore:Please use DTensor instead")]

B = 9


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


TOWER = WideDeepSpec(kind="wide_deep", hidden=(5,))


@pytest.fixture
def sharded(group, network_of):
    network = network_of(tower=TOWER, device="meta")
    for module in network.embedding.modules():
        if isinstance(module, EmbeddingBagCollection | EmbeddingCollection):
            apply_optimizer_in_backward(
                RowWiseAdagrad, module.parameters(), {"lr": 0.1}
            )
    return DistributedModelParallel(network, device=torch.device("cpu"))


def whole(state):
    """State with the one shard in place of each sharded tensor."""
    return {
        name: value.local_shards()[0].tensor
        if hasattr(value, "local_shards")
        else value
        for name, value in state.items()
    }


def test_state_of_a_sharded_network_loads_into_a_plain_one(
    sharded, network_of, batches
):
    plain = network_of(tower=TOWER, init_std=0.1)
    plain.load_state_dict(whole(sharded.state_dict()))
    batch = batches(B)
    for one, other in zip(sharded(batch).logits, plain(batch).logits, strict=True):
        torch.testing.assert_close(one, other)


def test_events_that_read_one_another_may_have_sharded_tables(
    group, network_of, batches
):
    pooling = Bert4RecPooling(kind="bert4rec", dropout=0.0, masked_loss=MaskedLoss())
    network = network_of(pooling=pooling, device="meta")
    sharded = DistributedModelParallel(network, device=torch.device("cpu"))
    plain = network_of(pooling=pooling, init_std=0.1)
    plain.load_state_dict(whole(sharded.state_dict()))
    penalties = []
    for model in (sharded, plain):
        torch.manual_seed(0)
        logits, penalty = model(batches(B))
        (penalty + logits[0].sum()).backward()
        penalties.append(penalty)
    assert penalties[0] > 0
    torch.testing.assert_close(*penalties)
    for one, other in zip(
        network.embedding.histories.parameters(),
        plain.embedding.histories.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_step_moves_the_rows_that_were_read_and_no_others(sharded, batches):
    fields = "embedding.sequence.embeddings.id_item.weight"
    wide = "embedding.contexts.0.sequence.embeddings.context1_item.weight"
    before = {
        name: whole(sharded.state_dict())[name].clone() for name in (fields, wide)
    }
    batch = batches(B)
    loss_T, _ = sharded.module.loss_T(sharded(batch).logits, batch.label_BT)
    loss_T.sum().backward()
    columns = batch.sequence.to_dict()
    read = [columns[c].values() for c in columns if "item" in c]
    for name, ids in ((fields, torch.cat(read)), (wide, columns["item"].values())):
        moved = (whole(sharded.state_dict())[name] != before[name]).any(1).nonzero()
        assert moved[:, 0].tolist() == ids.unique().tolist()
