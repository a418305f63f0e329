"""Our engines and what might have become one, at the Criteo shape.

Run by ``forward.py``; prints one JSON line.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import torch
import torch.nn.functional as F
from contender_loop import Loop
from criteo_shaped import NUM_CATEGORICAL, NUM_NUMERIC, NUM_VALUES, recipe, schema
from fbgemm_gpu.split_embedding_configs import SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_inference import (
    IntNBitTableBatchedEmbeddingBagsCodegen,
)
from forward_clock import interleaved
from torch import Tensor, nn

from recsys_mtl.data.batch import to_batch
from recsys_mtl.data.request_batch import RequestBatch, SchemaSplit
from recsys_mtl.engine import EagerEngine
from recsys_mtl.engine.onnx import OnnxEngine, export_trunk
from recsys_mtl.features.manifest import TaskStats
from recsys_mtl.model.build import build_network
from recsys_mtl.model.embeddings import ByteRows, FloatRows, stacks_of
from recsys_mtl.model.network import Network
from recsys_mtl.model.request_network import RequestNetwork
from recsys_mtl.train.device import has_bf16

_DIM = 16
_STATS = TaskStats(rows=9, positives=4, mean=0.4, log_mean=0.7, log_std=0.5)


class Dense(nn.Module):
    """The hand-written loop without its tables."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.loop = loop

    def forward(self, x_BD: Tensor) -> Tensor:
        loop = self.loop
        num_experts, width = loop.second.shape[:2]
        h_BX = F.relu(loop.first(x_BD))
        h_EBH = h_BX.view(-1, num_experts, width).transpose(0, 1)
        h_EBH = F.relu(h_EBH @ loop.second + loop.second_bias)
        gate_BTE = loop.gates(x_BD).view(-1, 2, num_experts).softmax(-1)
        h_TBH = (gate_BTE @ h_EBH.transpose(0, 1)).transpose(0, 1)
        h_TBH = F.relu(h_TBH @ loop.tower + loop.tower_bias)
        logit_TB1 = h_TBH @ loop.last + loop.last_bias
        return logit_TB1.squeeze(2).t()


def main() -> None:
    """Time all candidates."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = _network()
    lacking: dict[str, str] = {}
    figures: dict[int, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        made = _Made(network, Path(folder), lacking)
        for rows in (512, 1):
            calls = made.calls(_table(rows, seed=rows))
            figures[rows] = interleaved(calls, rounds=40 if rows > 1 else 200)
    print(json.dumps(figures | {"lacking": lacking}))


class _Made:
    """Everything prepared once."""

    def __init__(self, network: Network, folder: Path, lacking: dict[str, str]) -> None:
        self.network, self.lacking = network, lacking
        self.split = SchemaSplit.by_columns(schema(), ())
        (stack,) = stacks_of(network.embedding)
        rows = stack.rows(network.state_dict())
        self.prepared = RequestNetwork(network, self.split, [rows])
        examples = [RequestBatch.of_rows(self.split, _table(64, seed=0))]
        with torch.inference_mode(mode=False):
            export_trunk(self.prepared, examples, folder / "trunk.onnx")
        self.onnx = OnnxEngine(self.prepared, folder / "trunk.onnx")
        self.rounded = {}
        for name, part in (
            ("float16", FloatRows(rows.rows_VD.half())),
            ("int8", ByteRows.of(rows.rows_VD)),
        ):
            prepared = RequestNetwork(network, self.split, [part])
            self.rounded[name] = OnnxEngine(prepared, folder / "trunk.onnx")
        self.loop = Loop().eval()
        self.dense = Dense(self.loop)
        self.hand = self._hand_written(folder / "hand.onnx")
        self.tables = _tables(SparseType.FP32)
        self.small = _tables(SparseType.INT8)
        self.compiled = self._compiled()
        self.packed = self._packed()

    def calls(self, table: pa.Table) -> dict[str, Callable[[], object]]:
        """Give what is timed, by name; lookups included, encoding and reading not."""
        batch, requests = (
            to_batch(table, schema()),
            RequestBatch.of_rows(self.split, table),
        )
        rows = table.num_rows
        id_X = torch.from_numpy(
            np.concatenate([table[f"c{f}"].to_numpy() for f in range(NUM_CATEGORICAL)])
        ).long()
        offset_X = torch.arange(len(id_X) + 1)
        dense_BM = batch.dense_BM
        dense, hand = self.dense, self.hand
        id_I, offset_I = id_X.int(), offset_X.int()

        def looked_up() -> Tensor:
            return torch.cat([self.tables(id_I, offset_I), dense_BM], dim=1)

        def looked_up_small() -> Tensor:
            return torch.cat([self.small(id_I, offset_I), dense_BM], dim=1)

        name = hand.get_inputs()[0].name
        calls: dict[str, Callable[[], object]] = {
            "network, whole rows (TorchRec)": lambda: self.network(batch),
            "engine eager": lambda: EagerEngine(self.prepared).score(requests),
            "engine onnx": lambda: self.onnx.score(requests),
            "engine onnx, float16 tables": lambda: self.rounded["float16"].score(
                requests
            ),
            "engine onnx, int8 tables": lambda: self.rounded["int8"].score(requests),
            "by hand: FBGEMM, eager": lambda: dense(looked_up()),
            "by hand: FBGEMM, onnx": lambda: hand.run(
                None, {name: looked_up().numpy()}
            ),
            "by hand: FBGEMM int8, onnx": lambda: hand.run(
                None, {name: looked_up_small().numpy()}
            ),
        }
        if self.compiled is not None:
            compiled = self.compiled
            calls["by hand: FBGEMM, torch.compile"] = lambda: compiled(looked_up())
        if self.packed is not None:
            packed = self.packed
            calls["by hand: FBGEMM, packed weights"] = lambda: packed(looked_up())
        if has_bf16(torch.device("cpu")):
            bf16 = EagerEngine(self.prepared, bf16=True)
            calls["engine eager, bf16"] = lambda: bf16.score(requests)
        else:
            # It runs all the same, several times slower than float32.
            self.lacking["engine eager, bf16"] = "the processor has no bf16"
        assert rows == requests.num_rows
        return calls

    def _hand_written(self, path: Path) -> onnxruntime.InferenceSession:
        with torch.inference_mode(mode=False):
            program = torch.onnx.export(
                self.dense,
                (torch.randn(37, NUM_CATEGORICAL * _DIM + NUM_NUMERIC),),
                dynamo=True,
                verbose=False,
                dynamic_shapes=({0: torch.export.Dim("rows", min=1)},),
            )
        assert program is not None
        program.save(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(path, options)

    def _compiled(self) -> Callable[[Tensor], Tensor] | None:
        try:
            compiled = torch.compile(self.dense, dynamic=True)
            for rows in (512, 1):
                compiled(torch.randn(rows, NUM_CATEGORICAL * _DIM + NUM_NUMERIC))
        except Exception as error:  # noqa: BLE001  # a compiler raises anything
            self.lacking["torch.compile"] = repr(error).split("\\n")[0][:200]
            return None
        return compiled

    def _packed(self) -> Callable[[Tensor], Tensor] | None:
        """Weights of the first layer in oneDNN's own order, made once."""
        loop = self.loop
        try:
            packed = torch.ops.mkldnn._reorder_linear_weight(loop.first.weight, 512)
        except (AttributeError, RuntimeError, NotImplementedError) as error:
            self.lacking["packed weights"] = repr(error)[:200]
            return None

        def run(x_BD: Tensor) -> Tensor:
            first, loop.first.forward = (
                loop.first.forward,
                lambda x: torch.ops.mkldnn._linear_pointwise(
                    x, packed, loop.first.bias, "none", [], ""
                ),
            )
            try:
                return self.dense(x_BD)
            finally:
                loop.first.forward = first

        return run


def _network() -> Network:
    spec = recipe("fp32")
    return build_network(
        spec.model,
        spec.features,
        schema(),
        spec.tasks,
        {task.name: _STATS for task in spec.tasks},
        device=torch.device("cpu"),
    ).eval()


def _tables(kind: SparseType) -> IntNBitTableBatchedEmbeddingBagsCodegen:
    tables = IntNBitTableBatchedEmbeddingBagsCodegen(
        embedding_specs=[
            (f"c{f}", NUM_VALUES, _DIM, kind, EmbeddingLocation.HOST)
            for f in range(NUM_CATEGORICAL)
        ],
        device="cpu",
        output_dtype=SparseType.FP32,
    )
    tables.fill_random_weights()
    return tables


def _table(rows: int, *, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    ids = {
        f"c{f}": pa.array(rng.integers(0, NUM_VALUES, rows), pa.int32())
        for f in range(NUM_CATEGORICAL)
    }
    numbers = {
        f"n{m}": pa.array(rng.normal(size=rows), pa.float32())
        for m in range(NUM_NUMERIC)
    }
    return pa.table(ids | numbers)


if __name__ == "__main__":
    main()
