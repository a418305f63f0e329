"""Fits encoders on training rows, block by block."""

from typing import assert_never, final

import pyarrow as pa

from recsys_mtl.config.feature import (
    AggregateFeature,
    CategoricalFeature,
    CrossFeature,
    HashEncoder,
    HistoryFeature,
    ListFeature,
    NumericFeature,
    QuantileFeature,
    TimePartFeature,
    VocabularyEncoder,
)
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.errors import DataError
from recsys_mtl.features.cast import ARROW_TYPES, cast_column
from recsys_mtl.features.column import flat
from recsys_mtl.features.condition import holds
from recsys_mtl.features.contract import RawContract, column_of
from recsys_mtl.features.encoders.aggregate import AggregateFit
from recsys_mtl.features.encoders.hashed import HashIds
from recsys_mtl.features.encoders.numeric import MomentsFit
from recsys_mtl.features.encoders.quantile import QuantileFit
from recsys_mtl.features.encoders.vocabulary import VocabularyFit
from recsys_mtl.features.featurizer import Encoders, Featurizer
from recsys_mtl.features.hashing import seed_of
from recsys_mtl.features.schema import RawColumn

__all__ = ["FeaturizerFit"]

_Fit = VocabularyFit | QuantileFit | MomentsFit | AggregateFit


@final
class FeaturizerFit:
    """Gathers what encoders need to know of training rows.

    Blocks may be fitted in parallel and merged in any order: the outcome is that of
    fitting all rows at once. Memory grows with the distinct values of vocabulary
    columns and with nothing else.

    Args:
        recipe: Which features to fit.
        signature: Their raw columns.
    """

    def __init__(self, recipe: Recipe, signature: tuple[RawColumn, ...]) -> None:
        self.contract = RawContract.of(recipe, signature)
        self._fits: dict[str, _Fit] = {}
        for feature in self.contract.features:
            match feature:
                case CategoricalFeature() | ListFeature():
                    if isinstance(feature.encoder, VocabularyEncoder):
                        self._fits[feature.name] = VocabularyFit()
                case QuantileFeature():
                    self._fits[feature.name] = QuantileFit()
                case NumericFeature():
                    self._fits[feature.name] = MomentsFit(feature.transform)
                case AggregateFeature():
                    self._fits[feature.name] = AggregateFit()
                case TimePartFeature() | CrossFeature() | HistoryFeature():
                    pass
                case _:
                    assert_never(feature)

    def update(self, raw: pa.Table) -> None:
        """Add a block of training rows.

        Args:
            raw: Rows as of ``FeatureStore.join``, with the columns that only histories
                read and those that the conditions of aggregates read.

        Raises:
            DataError: A column is missing.
        """
        rows = self.contract.canonical(raw)
        for feature in self.contract.features:
            fit = self._fits.get(feature.name)
            if isinstance(feature, AggregateFeature):
                assert isinstance(fit, AggregateFit)
                answer = holds(feature.rate_of, rows)
                counted_B = answer.known_B
                if feature.where is not None:
                    counted_B = counted_B & holds(feature.where, rows).holds_B
                hits_B = answer.holds_B & counted_B
                fit.update(int(counted_B.sum()), int(hits_B.sum()))
            elif isinstance(
                feature,
                CategoricalFeature | QuantileFeature | NumericFeature | ListFeature,
            ):
                column = column_of(feature)
                if column not in rows.column_names:
                    raise DataError(
                        f"feature {feature.name!r} reads column {column!r}, which the "
                        f"training rows lack; there are {', '.join(rows.column_names)}"
                    )
                cells = flat(rows.column(column))
                if isinstance(feature, ListFeature):
                    cells = cells.flatten()
                if isinstance(fit, VocabularyFit):
                    fit.update(cells)
                elif isinstance(fit, QuantileFit | MomentsFit):
                    fit.update(cast_column(cells, "float").array)

    def merge(self, other: "FeaturizerFit") -> None:
        """Add the training rows that another fit has seen."""
        for name, fit in self._fits.items():
            theirs = other._fits[name]
            match fit, theirs:
                case VocabularyFit(), VocabularyFit():
                    fit.merge(theirs)
                case QuantileFit(), QuantileFit():
                    fit.merge(theirs)
                case MomentsFit(), MomentsFit():
                    fit.merge(theirs)
                case AggregateFit(), AggregateFit():
                    fit.merge(theirs)
                case _:
                    raise AssertionError((name, fit, theirs))

    def finish(self) -> Featurizer:
        """Fix the encoders."""
        encoders = Encoders()
        for feature in self.contract.features:
            fit = self._fits.get(feature.name)
            match feature, fit:
                case ((CategoricalFeature() | ListFeature()), _):
                    spec = feature.encoder
                    if isinstance(spec, HashEncoder):
                        seed = seed_of(feature.name)
                        encoders.ids[feature.name] = HashIds(spec.buckets, seed)
                    else:
                        assert isinstance(fit, VocabularyFit)
                        kind = ARROW_TYPES[self.contract.type_of(column_of(feature))]
                        if isinstance(feature, ListFeature):
                            kind = kind.value_type
                        encoders.ids[feature.name] = fit.finish(spec, kind)
                case QuantileFeature(), QuantileFit():
                    encoders.ids[feature.name] = fit.finish(feature.num_buckets)
                case _, MomentsFit():
                    encoders.scales[feature.name] = fit.finish()
                case AggregateFeature(), AggregateFit():
                    encoders.aggregates[feature.name] = fit.finish(feature.prior_rows)
                case _:
                    pass
        return Featurizer(self.contract, encoders)
