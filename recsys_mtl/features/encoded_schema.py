"""What features become: the names and kinds of their encoded columns."""

from collections.abc import Iterable, Mapping
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
from recsys_mtl.features.encoders.time_part import TIME_PARTS
from recsys_mtl.features.schema import GAP, FeatureSchema, HistoryField, IdField

__all__ = ["encoded_columns", "encoded_schema"]


def encoded_columns(feature: FeatureSpec) -> tuple[str, ...]:
    """Name the columns that a feature becomes, unless it is for histories only.

    Example:
        >>> clicks = HistoryFeature(kind="history", name="clicks", fields=("item",))
        >>> encoded_columns(clicks)
        ('clicks.item', 'clicks.gap')
    """
    match feature:
        case AggregateFeature():
            return f"{feature.name}.count", f"{feature.name}.rate"
        case HistoryFeature():
            fields = (*feature.fields, GAP) if feature.gaps else feature.fields
            return tuple(f"{feature.name}.{field}" for field in fields)
        case _:
            return (feature.name,)


def encoded_schema(
    features: Iterable[FeatureSpec], sizes: Mapping[str, int]
) -> FeatureSchema:
    """Describe the columns of all features, in their order.

    Args:
        features: Of a recipe.
        sizes: Number of ids by fitted feature.
    """
    ids, dense, histories = [], [], []
    for feature in features:
        name = feature.name
        match feature:
            case CategoricalFeature() | QuantileFeature():
                only = feature.history_only
                ids.append(IdField(name=name, size=sizes[name], history_only=only))
            case ListFeature():
                ids.append(IdField(name=name, size=sizes[name], multi=True))
            case TimePartFeature():
                ids.append(IdField(name=name, size=2 + TIME_PARTS[feature.part]))
            case CrossFeature():
                ids.append(IdField(name=name, size=2 + feature.buckets))
            case NumericFeature():
                dense.append(name)
            case AggregateFeature():
                dense += encoded_columns(feature)
            case HistoryFeature():
                histories.append(
                    HistoryField(
                        name=name,
                        fields=feature.fields,
                        gaps=feature.gaps,
                        length=feature.length,
                    )
                )
            case _:
                assert_never(feature)
    return FeatureSchema(ids=tuple(ids), dense=tuple(dense), histories=tuple(histories))
