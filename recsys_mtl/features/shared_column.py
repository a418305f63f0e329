"""Which encoded columns all candidates of a request share."""

from collections.abc import Collection
from typing import assert_never

from recsys_mtl.config.feature import (
    AggregateFeature,
    CategoricalFeature,
    CrossFeature,
    FeatureSpec,
    HistoryFeature,
    ListFeature,
    NumericFeature,
    QuantileFeature,
    TimePartFeature,
)
from recsys_mtl.features.contract import RawContract, column_of
from recsys_mtl.features.encoded_schema import encoded_columns
from recsys_mtl.features.schema import FeatureSchema

__all__ = ["shared_columns"]


def shared_columns(
    schema: FeatureSchema, contract: RawContract, item_columns: Collection[str] = ()
) -> frozenset[str]:
    """Tell encoded columns apart by where their raw columns come from.

    A column is shared if every raw column behind it is of the user or the context (the
    time of the request included) and the table of items cannot fill it. Histories are
    too, unless they keep only events that are like the item. All others are the
    candidate's own.

    Args:
        schema: As fitted.
        contract: What the features read.
        item_columns: Columns of the table of items. One that the log has too is filled
            from there, so a feature of it is the candidate's.
    """
    varying = frozenset(item_columns) | {
        column.name for column in contract.signature if column.origin == "item"
    }
    if contract.keys.item is not None:
        varying |= {contract.keys.item}
    shared = {
        column
        for feature in contract.features
        if _is_shared(feature, contract, varying)
        for column in encoded_columns(feature)
    }
    return frozenset(schema.columns) & shared


def _is_shared(
    feature: FeatureSpec, contract: RawContract, varying: frozenset[str]
) -> bool:
    match feature:
        case (
            CategoricalFeature() | NumericFeature() | QuantileFeature() | ListFeature()
        ):
            return column_of(feature) not in varying
        case CrossFeature():
            return varying.isdisjoint(feature.columns)
        case HistoryFeature():
            return varying.isdisjoint(contract.match_types(feature))
        case TimePartFeature():
            return True
        case AggregateFeature():
            return feature.by == "user"
        case _:
            assert_never(feature)
