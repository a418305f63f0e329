"""Near the limit: FBGEMM's kernel by hand, experts as batched products, no reader.

Run by ``train.py``; prints one JSON line.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from criteo_shaped import NUM_CATEGORICAL, NUM_NUMERIC, NUM_VALUES, TASKS, arrays
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    EmbeddingLocation,
    PoolingMode,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn

from recsys_mtl.evaluate.metric import binary_metrics

_BATCH, _DIM, _EXPERTS, _HIDDEN, _TOWER = 4096, 16, 4, (256, 128), 64


class Loop(nn.Module):
    """MMoE written out for exactly this benchmark."""

    def __init__(self) -> None:
        super().__init__()
        place = (NUM_VALUES, _DIM, EmbeddingLocation.HOST, ComputeDevice.CPU)
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            [place] * NUM_CATEGORICAL,
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=0.05,
            pooling_mode=PoolingMode.SUM,
        )
        for weight in self.tables.split_embedding_weights():
            weight.data.normal_(std=0.01)
        width, num_tasks = NUM_CATEGORICAL * _DIM + NUM_NUMERIC, len(TASKS)
        self.first = nn.Linear(width, _EXPERTS * _HIDDEN[0])
        self.second = nn.Parameter(_xavier(_EXPERTS, _HIDDEN[0], _HIDDEN[1]))
        self.second_bias = nn.Parameter(torch.zeros(_EXPERTS, 1, _HIDDEN[1]))
        self.gates = nn.Linear(width, num_tasks * _EXPERTS, bias=False)
        self.tower = nn.Parameter(_xavier(num_tasks, _HIDDEN[1], _TOWER))
        self.tower_bias = nn.Parameter(torch.zeros(num_tasks, 1, _TOWER))
        self.last = nn.Parameter(_xavier(num_tasks, _TOWER, 1))
        self.last_bias = nn.Parameter(torch.zeros(num_tasks, 1, 1))

    def dense_parameters(self) -> list[nn.Parameter]:
        return [p for n, p in self.named_parameters() if not n.startswith("tables")]

    def forward(self, id_X: Tensor, offset_X: Tensor, dense_BM: Tensor) -> Tensor:
        x_BD = torch.cat([self.tables(id_X, offset_X), dense_BM], dim=1)
        h_BX = F.relu_(self.first(x_BD))
        # Contiguous for oneDNN, which copies slowly in bf16; free in fp32.
        h_EBH = h_BX.view(-1, _EXPERTS, _HIDDEN[0]).transpose(0, 1).contiguous()
        h_EBH = F.relu_(torch.baddbmm(self.second_bias, h_EBH, self.second))
        gate_BTE = self.gates(x_BD).view(-1, len(TASKS), _EXPERTS).softmax(-1)
        h_BTH = torch.bmm(gate_BTE, h_EBH.transpose(0, 1))
        h_TBH = h_BTH.transpose(0, 1)
        h_TBH = F.relu_(torch.baddbmm(self.tower_bias, h_TBH, self.tower))
        logit_TB1 = torch.baddbmm(self.last_bias, h_TBH, self.last)
        return logit_TB1.squeeze(2).t().float()


def _xavier(*shape: int) -> Tensor:
    weight = torch.empty(shape)
    for matrix in weight:
        nn.init.xavier_uniform_(matrix)
    return weight


def main(folder: Path, precision: str) -> None:
    """Train one epoch, then test."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bf16 = precision == "bf16"
    model = Loop()
    optimizer = torch.optim.Adam(model.dense_parameters(), lr=1e-3, fused=True)
    id_FN, dense_NM, label_NT = arrays(folder, "train")
    base_T = torch.from_numpy(label_NT.mean(0))
    model.last_bias.data[:, 0, 0] = base_T.logit()
    # What a loop over data in memory would be given: batches cut beforehand.
    order = np.random.default_rng(0).permutation(len(dense_NM))
    id_FN, dense_NM, label_NT = id_FN[:, order], dense_NM[order], label_NT[order]
    wall, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(order), _BATCH):
        logit_BT = _logits(model, id_FN, dense_NM, first, bf16)
        target_BT = torch.from_numpy(label_NT[first : first + _BATCH])
        loss = F.binary_cross_entropy_with_logits(logit_BT, target_BT) * len(TASKS)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = len(order)
    id_FN, dense_NM, label_NT = arrays(folder, "test")
    with torch.no_grad():
        prob_NT = np.concatenate(
            [
                _logits(model, id_FN, dense_NM, first, bf16).sigmoid().numpy()
                for first in range(0, len(dense_NM), _BATCH)
            ]
        )
    auc = [binary_metrics(label_NT[:, t], prob_NT[:, t])["auc"] for t in range(2)]
    figures = {"rows": rows, "wall_s": wall, "cpu_s": cpu, "rss_mb": rss, "auc": auc}
    print(json.dumps(figures))


def _logits(
    model: Loop, id_FN: np.ndarray, dense_NM: np.ndarray, first: int, bf16: bool
) -> Tensor:
    id_FB = id_FN[:, first : first + _BATCH]
    id_X = torch.from_numpy(id_FB.astype(np.int64).reshape(-1))
    offset_X = torch.arange(len(id_X) + 1)
    dense_BM = torch.from_numpy(dense_NM[first : first + _BATCH])
    with torch.autocast("cpu", torch.bfloat16, bf16):
        return model(id_X, offset_X, dense_BM)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
