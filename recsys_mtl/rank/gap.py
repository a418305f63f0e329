"""How many values of each feature were missing or unseen."""

from dataclasses import dataclass
from typing import final

import pyarrow as pa

from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.join import FeatureStore
from recsys_mtl.rank.explain import gaps_by_feature

__all__ = ["GapCount", "gap_counts"]


@final
@dataclass(frozen=True)
class GapCount:
    """Rows of a feature.

    Attributes:
        rows: That were looked at.
        missing: Those without a value; of histories and aggregates, without events.
        unseen: Those with a value that training did not have (often enough).
    """

    rows: int
    missing: int
    unseen: int


def gap_counts(
    featurizer: Featurizer, store: FeatureStore, raw: pa.Table
) -> dict[str, GapCount]:
    """Count gaps in raw rows.

    Args:
        featurizer: Of the bundle.
        store: Of the bundle.
        raw: Raw rows, as ``Ranker.score`` takes them.

    Returns:
        By feature.
    """
    assembled = store.assemble(raw)
    encoded = featurizer.encode(assembled.raw, assembled.histories)
    return {
        name: GapCount(len(missing_B), int(missing_B.sum()), int(unseen_B.sum()))
        for name, missing_B, unseen_B in gaps_by_feature(
            featurizer, assembled.raw, encoded
        )
    }
