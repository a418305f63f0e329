"""What embedding tables learned from, and how long their vectors have become."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingCollection

from recsys_mtl.data.sample import read_groups
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.features.schema import MISSING, UNSEEN
from recsys_mtl.progress import OnProgress, Progress, silent
from recsys_mtl.xray.result import TableHealth

__all__ = ["NUM_TENTHS", "examine_tables"]

NUM_TENTHS = 10

_Counts = Int[np.ndarray, " vectors"]


class _Table(NamedTuple):
    name: str
    columns: tuple[str, ...]
    weight_VD: Tensor


def examine_tables(
    network: nn.Module, folder: Path, *, on_progress: OnProgress = silent
) -> tuple[TableHealth, ...]:
    """Count how often training rows read every vector, and measure the vectors.

    All training rows are read, one row group after the other. A vector that none of
    them reads is as it started: it has learned nothing, whatever its norm.

    Args:
        network: Not spread over workers.
        folder: The feature tables that it was trained on.
        on_progress: Told of training rows read.

    Raises:
        ArtifactError: A part cannot be read.
    """
    manifest = FeatureManifest.load(folder)
    tables = list(_tables(network))
    sizes: dict[str, int] = {}
    for table in tables:
        for column in table.columns:
            sizes[column] = max(sizes.get(column, 0), len(table.weight_VD))
    counts = _count(folder / "train", sizes, on_progress)
    later = Counter[str]()
    for split in ("valid", "test"):
        for column, replaced in manifest.counts.get(split, {}).items():
            later[column] += replaced.get("unseen", 0)
    return tuple(
        _health(
            table,
            np.sum([counts[c] for c in table.columns], axis=0),
            unseen_later=sum(later[column] for column in table.columns),
        )
        for table in tables
    )


def _tables(network: nn.Module) -> Iterator[_Table]:
    names = Counter[str]()
    for module in network.modules():
        if isinstance(module, EmbeddingBagCollection):
            configs, weights = module.embedding_bag_configs(), module.embedding_bags
        elif isinstance(module, EmbeddingCollection):
            configs, weights = module.embedding_configs(), module.embeddings
        else:
            continue
        for config in configs:
            columns = tuple(config.feature_names)
            name, weight_VD = columns[0], weights[config.name].weight.detach()
            names[name] += 1
            if names[name] > 1:  # a tower's own, over the same columns
                name = f"{name} ({names[name]})"
            yield _Table(name, columns, weight_VD)


def _count(
    split: Path, sizes: Mapping[str, int], on_progress: OnProgress
) -> dict[str, _Counts]:
    counts = {column: np.zeros(size, np.int64) for column, size in sizes.items()}
    rows = 0
    for table in read_groups(split, list(sizes)) if sizes else ():
        for column, count_V in counts.items():
            ids = table.column(column)
            if pa.types.is_list(ids.type):
                ids = pa.chunked_array([c.flatten() for c in ids.chunks], pa.int32())
            # Not bincount: a large table would cost its size in every row group.
            read, times = np.unique(ids.to_numpy(), return_counts=True)
            count_V[read] += times
        rows += table.num_rows
        on_progress(Progress("embedding tables", rows, None))
    on_progress(Progress("embedding tables", rows, rows))
    return counts


def _health(table: _Table, count_V: _Counts, *, unseen_later: int) -> TableHealth:
    norm_V = table.weight_VD.norm(dim=1).double().numpy()
    untouched_V = (np.arange(len(count_V)) > UNSEEN) & (count_V == 0)
    read = np.flatnonzero(count_V)
    by_frequency = read[np.argsort(count_V[read], kind="stable")]
    tenths = [part for part in np.array_split(by_frequency, NUM_TENTHS) if len(part)]
    return TableHealth(
        name=table.name,
        columns=table.columns,
        rows=len(count_V),
        dim=table.weight_VD.shape[1],
        lookups=int(count_V.sum()),
        untouched=int(untouched_V.sum()),
        missing_lookups=int(count_V[MISSING : MISSING + 1].sum()),
        unseen_lookups=int(count_V[UNSEEN : UNSEEN + 1].sum()),
        unseen_later=unseen_later,
        norms=tuple(_mean(norm_V[part]) for part in tenths),
        untouched_norm=_mean(norm_V[untouched_V]) if untouched_V.any() else None,
    )


def _mean(norms: Float[np.ndarray, " vectors"]) -> float:
    return float(norms.mean())
