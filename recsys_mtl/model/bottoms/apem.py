"""Adaptive pattern extraction for many tasks (APEM)."""

import math
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.bottoms._base import AbstractBottom
from recsys_mtl.model.embeddings import EventSequence

__all__ = ["APEM", "GroupTransformer", "PatternSelector"]


@final
class GroupTransformer(nn.Module):
    r"""Lets fields read each other in groups, each through a few inducing vectors.

    In group :math:`a`, inducing vectors :math:`I_a` read the fields and the fields read
    them, :math:`Y_a = \mathrm{att}(X, \mathrm{att}(I_a, X))`: a cost that grows with
    the number of fields, not its square. A squeeze and excitation weighs the groups by
    the mean :math:`s` of each, :math:`e = \sigma(V \phi(W s))`, and
    :math:`X \leftarrow \mathrm{LayerNorm}(X + \sum_a e_a Y_a)`.

    Args:
        dim: Width of a field.
        num_groups: Groups.
        num_inducing: Inducing vectors of a group.

    Shape:
        - x_BFD: ``(batch, fields, dim)``
        - return: the same

    Deviations:
        See ``APEM``.
    """

    def __init__(self, dim: int, *, num_groups: int, num_inducing: int) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.inducing_AID = nn.Parameter(torch.empty(num_groups, num_inducing, dim))
        nn.init.normal_(self.inducing_AID)
        # Key, value and query of every field in every group: one product.
        self.project = nn.Linear(dim, 3 * num_groups * dim, bias=False)
        self.summary_ADX = nn.Parameter(torch.empty(num_groups, dim, 2 * dim))
        for weight_DX in self.summary_ADX:
            nn.init.xavier_uniform_(weight_DX)
        self.squeeze = nn.Linear(num_groups, num_groups)
        self.excite = nn.Linear(num_groups, num_groups)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, x_BFD: Float[Tensor, "batch fields dim"]
    ) -> Float[Tensor, "batch fields dim"]:
        rows, fields, dim = x_BFD.shape
        projected = self.project(x_BFD).view(rows, fields, 3, self.num_groups, dim)
        key, value, query = projected.permute(2, 0, 3, 1, 4).unbind()
        inducing = self.inducing_AID.to(key.dtype).expand(rows, -1, -1, -1)
        summary_BAID = F.scaled_dot_product_attention(inducing, key, value)
        summary_BAIX = torch.einsum("baid,adx->baix", summary_BAID, self.summary_ADX)
        key, value = summary_BAIX.to(query.dtype).chunk(2, dim=3)
        y_BAFD = F.scaled_dot_product_attention(query, key, value)
        mean_BA = y_BAFD.mean((2, 3))
        weight_BA = self.excite(self.squeeze(mean_BA).relu()).sigmoid()
        mixed_BFD = torch.einsum("ba,bafd->bfd", weight_BA, y_BAFD)
        normed_BFD: Tensor = self.norm(x_BFD + mixed_BFD)
        return normed_BFD


@final
class PatternSelector(nn.Module):
    r"""Picks, for every task, what it needs of the fields' patterns.

    Indicator :math:`q_{t,p}` of task :math:`t` adapts to the row by a gate of the mean
    pattern :math:`\bar y`, and selects:
    :math:`z_{t,p} = \sum_f \mathrm{softmax}_f(\langle q_{t,p} \odot 2 \sigma(G \bar y),
    K y_f \rangle / \sqrt{d}) \, V y_f`.

    Args:
        dim: Width of a field.
        num_tasks: Number of tasks.
        num_indicators: Indicators of a task; each gives ``dim`` numbers.

    Shape:
        - y_BFD: ``(batch, fields, dim)``
        - return: ``(batch, tasks, num_indicators * dim)``

    Deviations:
        See ``APEM``.
    """

    def __init__(self, dim: int, *, num_tasks: int, num_indicators: int) -> None:
        super().__init__()
        self.indicator_TPD = nn.Parameter(torch.empty(num_tasks, num_indicators, dim))
        nn.init.normal_(self.indicator_TPD)
        self.gate = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)

    def forward(
        self, y_BFD: Float[Tensor, "batch fields dim"]
    ) -> Float[Tensor, "batch tasks _"]:
        rows, _, dim = y_BFD.shape
        num_tasks, num_indicators, _ = self.indicator_TPD.shape
        gate_BFD = 2 * self.gate(y_BFD.mean(1)).sigmoid()[:, None]
        key_BFD, value_BFD = self.key_value(y_BFD).chunk(2, dim=2)
        # The gate acts on keys: the same product, and far fewer of them.
        indicator_XD = self.indicator_TPD.flatten(0, 1) / math.sqrt(dim)
        logit_BXF = F.linear(key_BFD * gate_BFD, indicator_XD).transpose(1, 2)
        z_BXD = torch.bmm(logit_BXF.softmax(2).to(value_BFD.dtype), value_BFD)
        return z_BXD.reshape(rows, num_tasks, num_indicators * dim)


@final
class APEM(AbstractBottom):
    """Finds patterns among fields once, and selects those of each task.

    Fields pass ``GroupTransformer`` layers, then a ``PatternSelector``; the numbers
    follow what it selects.

    Args:
        dim: Width of a vector.
        num_dense: Numbers of a row.
        num_tasks: Number of tasks.
        num_layers: Layers of group transformers.
        num_groups: Groups of a layer.
        num_inducing: Inducing vectors of a group.
        num_indicators: Indicators of a task.

    Shape:
        - fields_BFD: ``(batch, fields, dim)``, at least one field
        - dense_BM: ``(batch, num_dense)``
        - return: ``(batch, tasks, num_indicators * dim + num_dense)``

    Deviations:
        Meant is version 3 of the preprint, whose abstract names a "DeepAuto Group
        Transformer" and a "Pattern Selector"; version 2 under the same number is
        another method (TAFE). The equations were not at hand. From the abstract are:
        a modified set attention with a squeeze and excitation over the fields, and a
        selection by adaptive task indicators. The rest is our reading: one inducing
        set attention a group without a feed-forward layer, a squeeze over groups, a
        softmax over fields, several indicators a task, a gate that adapts them to the
        row, and numbers that are no patterns. The sequential dependence of steps is
        left to the chain.

    References:
        "Adaptive Pattern Extraction Multi-Task Learning for Multi-Step Conversion
        Estimations", 2023, arXiv:2301.02494v3. Lee et al., "Set Transformer",
        ICML 2019, arXiv:1810.00825.

    Example:
        >>> bottom = APEM(dim=4, num_dense=2, num_tasks=3, num_indicators=5)
        >>> bottom(torch.randn(6, 7, 4), torch.randn(6, 2)).shape
        torch.Size([6, 3, 22])
    """

    def __init__(
        self,
        dim: int,
        *,
        num_dense: int,
        num_tasks: int,
        num_layers: int = 1,
        num_groups: int = 4,
        num_inducing: int = 4,
        num_indicators: int = 8,
    ) -> None:
        super().__init__()
        self.out_dim = num_indicators * dim + num_dense
        self.layers = nn.Sequential(
            *(
                GroupTransformer(dim, num_groups=num_groups, num_inducing=num_inducing)
                for _ in range(num_layers)
            )
        )
        self.selector = PatternSelector(
            dim, num_tasks=num_tasks, num_indicators=num_indicators
        )

    def forward(
        self,
        fields_BFD: Float[Tensor, "batch fields dim"],
        dense_BM: Float[Tensor, "batch dense"],
        sequences: tuple[EventSequence, ...] = (),  # noqa: ARG002
    ) -> Float[Tensor, "batch sharing out"]:
        z_BTX = self.selector(self.layers(fields_BFD))
        dense_BTM = dense_BM[:, None].expand(-1, z_BTX.shape[1], -1)
        return torch.cat([z_BTX, dense_BTM], dim=2)
