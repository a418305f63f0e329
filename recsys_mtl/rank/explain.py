"""Which features of which candidates were missing or unknown."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_mtl.config.feature import AggregateFeature, HistoryFeature, NumericFeature
from recsys_mtl.data.request_batch import SchemaSplit
from recsys_mtl.export.bundle import Bundle
from recsys_mtl.export.encoded import split_of
from recsys_mtl.features.column import absent, filled, flat
from recsys_mtl.features.contract import aggregate_columns, column_of
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.join import FeatureStore
from recsys_mtl.features.schema import MISSING, UNSEEN
from recsys_mtl.rank.observation import Observation
from recsys_mtl.rank.request import Explanation, FeatureGaps

__all__ = ["explained", "feature_gaps", "gaps_by_feature"]

_Bools = npt.NDArray[np.bool_]


def feature_gaps(
    featurizer: Featurizer, store: FeatureStore, split: SchemaSplit, raw: pa.Table
) -> tuple[FeatureGaps, list[FeatureGaps]]:
    """Name features that had no value, or one that training did not have.

    A history or an aggregate is missing where there are no earlier events. A list is
    unknown if any of its values is.

    Args:
        featurizer: Of the bundle.
        store: Of the bundle.
        split: Which columns candidates share.
        raw: Raw rows, as ``Ranker.score`` takes them.

    Returns:
        Gaps of the user and the context, and those of each row. A shared feature that
        rows differ in, since each gave its own, is told by row.
    """
    assembled = store.assemble(raw)
    encoded = featurizer.encode(assembled.raw, assembled.histories)
    shared = FeatureGaps([], [])
    rows = [FeatureGaps([], []) for _ in range(encoded.num_rows)]
    shared_names = {column.split(".")[0] for column in split.shared}
    for name, missing_B, unknown_B in gaps_by_feature(
        featurizer, assembled.raw, encoded
    ):
        for found_B, kind in ((missing_B, "missing"), (unknown_B, "unknown")):
            if name in shared_names and len(found_B) and found_B.all():
                getattr(shared, kind).append(name)
                continue
            for i in np.flatnonzero(found_B).tolist():
                getattr(rows[i], kind).append(name)
    return shared, rows


def explained(
    bundle: Bundle,
    best: pa.Table,
    network: list[dict[str, float]],
    watched: Observation,
    answered: int,
) -> Explanation:
    """Explain an answer.

    Args:
        bundle: That gave it.
        best: Raw rows of the candidates returned, in their order.
        network: Of each what the network predicted.
        watched: What it took so far.
        answered: How many requests were answered together.
    """
    split = split_of(bundle.featurizer, bundle.store)
    shared, items = feature_gaps(bundle.featurizer, bundle.store, split, best)
    stage_ms = {str(stage): 1e3 * s for stage, s in watched.seconds().items()}
    return Explanation(shared, items, network, stage_ms, answered)


def gaps_by_feature(
    featurizer: Featurizer, raw: pa.Table, encoded: pa.Table
) -> Iterator[tuple[str, _Bools, _Bools]]:
    """Say of each feature in which rows it was missing, and in which unknown.

    Args:
        featurizer: Of the bundle.
        raw: Joined rows.
        encoded: The same rows encoded.
    """
    nowhere_B = np.zeros(encoded.num_rows, bool)
    for feature in featurizer.contract.features:
        name = feature.name
        if getattr(feature, "history_only", False):
            continue
        if isinstance(feature, NumericFeature):
            # As encoded, a missing number looks like the training mean.
            yield name, absent(flat(raw.column(column_of(feature)))), nowhere_B
        elif isinstance(feature, AggregateFeature):
            seen = flat(raw.column(aggregate_columns(name)[0]))
            yield name, filled(seen, 0.0) == 0.0, nowhere_B
        elif isinstance(feature, HistoryFeature):
            first = flat(encoded.column(f"{name}.{feature.fields[0]}"))
            yield name, first.value_lengths().to_numpy() == 0, nowhere_B
        else:
            cells = flat(encoded.column(name))
            if not pa.types.is_list(cells.type):
                ids_B = cells.to_numpy()
                yield name, ids_B == MISSING, ids_B == UNSEEN
                continue
            length_B = cells.value_lengths().to_numpy()
            unseen = cells.flatten().to_numpy() == UNSEEN
            row = np.repeat(np.arange(len(cells)), length_B)
            yield (
                name,
                length_B == 0,
                np.bincount(row[unseen], minlength=len(cells)) > 0,
            )
