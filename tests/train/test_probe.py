"""That training is asked at every check, and goes on as if it had not been."""

import json

import pytest
import torch
from feature_tables import recipe

from recsys_mtl.config.model import ModelSpec
from recsys_mtl.data.sample import sample_rows
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.model.task_mlp import TaskBatchNorm
from recsys_mtl.train import train
from recsys_mtl.train.checkpoint import build
from recsys_mtl.train.probe import Probe
from recsys_mtl.train.shard import process_group, shard

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["rowwise_adagrad", "adam"])
def test_every_check_tells_the_cosines_of_all_pairs(tables, tmp_path, kind):
    spec = recipe(epochs=2, embedding_optimizer={"kind": kind})
    result = train(spec, tables, tmp_path)
    cosines = [check.gradient_cosines["click"]["stay"] for check in result.checks]
    assert all(-1 <= cosine <= 1 for cosine in cosines)
    assert cosines[0] != cosines[1]
    history = json.loads((tmp_path / "history.json").read_text())
    assert [c["gradient_cosines"]["click"]["stay"] for c in history] == cosines


@pytest.mark.parametrize("kind", ["rowwise_adagrad", "adam"])
def test_probing_changes_no_weight_and_no_state(tables, kind):
    spec = recipe(embedding_optimizer={"kind": kind})
    names = tuple(task.name for task in spec.tasks)
    with process_group(CPU):
        network = build(spec, FeatureManifest.load(tables), device=torch.device("meta"))
        model = shard(network, spec.train.embedding_optimizer, device=CPU, seed=0)
        model.train()

        def state():
            fused = model.fused_optimizer.state_dict()["state"]
            tensors = [*model.state_dict().values()]
            tensors += [v for of in fused.values() for v in of.values()]
            return [
                t.local_shards()[0].tensor.clone()
                if hasattr(t, "local_shards")
                else t.clone()
                for t in tensors
            ]

        before, random = state(), torch.get_rng_state()
        probe = Probe(tables, names, device=CPU)
        first = probe(model.module)
        assert all(map(torch.equal, before, state()))
        assert torch.equal(torch.get_rng_state(), random)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(module.training for module in model.modules())
        assert probe(model.module) == first


def test_probing_moves_no_running_statistic(tables):
    model = {
        "gating": {"kind": "home", "levels": [[6], [5]], "lora_rank": 2},
        "tower": {"kind": "mlp", "hidden": [4], "batch_norm": True},
    }
    spec = recipe().model_copy(update={"model": ModelSpec.model_validate(model)})
    names = tuple(task.name for task in spec.tasks)
    network = build(spec, FeatureManifest.load(tables), device=CPU).train()
    norms = [m for m in network.modules() if isinstance(m, TaskBatchNorm)]
    assert len(norms) >= 3

    def statistics():
        return [b.clone() for norm in norms for b in (norm.mean_TH, norm.var_TH)]

    before = statistics()
    Probe(tables, names, device=CPU)(network)
    assert all(map(torch.equal, before, statistics()))
    # A step of training on the same rows would have moved every one of them.
    rows = sample_rows(tables, "valid", tasks=names, limit=512)
    network(rows.batch(0, rows.num_rows))
    assert not any(map(torch.equal, before, statistics()))


def test_a_single_task_has_nothing_to_compare(tables, tmp_path):
    data = recipe(epochs=1).model_dump(mode="json")
    spec = type(recipe()).model_validate(data | {"tasks": data["tasks"][:1]})
    (check,) = train(spec, tables, tmp_path).checks
    assert check.gradient_cosines == {}
