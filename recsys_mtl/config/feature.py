"""What a model reads of a row: one spec per feature, told apart by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recsys_mtl.config._base import Fraction, Name, Rate, Spec, Widths
from recsys_mtl.config.condition import Condition

__all__ = [
    "AggregateFeature",
    "AttentionPooling",
    "Bert4RecPooling",
    "CategoricalFeature",
    "CrossFeature",
    "EncoderSpec",
    "FeatureSpec",
    "HashEncoder",
    "HistoryFeature",
    "ListFeature",
    "MaskedLoss",
    "MeanPooling",
    "NumericFeature",
    "PoolingSpec",
    "QuantileFeature",
    "TimePartFeature",
    "VocabularyEncoder",
]


class VocabularyEncoder(Spec):
    """One id per value seen at least ``min_count`` times in the training split."""

    kind: Literal["vocabulary"] = "vocabulary"
    min_count: PositiveInt = 1
    max_size: PositiveInt | None = Field(
        None, description="keep only the most frequent; ties by value"
    )


class HashEncoder(Spec):
    """Values fall into ``buckets`` ids by a stable hash; nothing is fitted."""

    kind: Literal["hash"]
    buckets: PositiveInt


EncoderSpec = Annotated[VocabularyEncoder | HashEncoder, Field(discriminator="kind")]

_HistoryOnly = Annotated[
    bool,
    Field(
        description="read only by histories; never of the row that is scored. For "
        "columns known after the impression, as the dwell time"
    ),
]


class CategoricalFeature(Spec):
    """One value out of many: an id, a category, a level."""

    kind: Literal["categorical"]
    name: Name
    column: str | None = Field(None, description="raw column; `name` if left out")
    encoder: EncoderSpec = VocabularyEncoder()
    history_only: _HistoryOnly = False


class NumericFeature(Spec):
    """A number, read as a number. Missing counts as the training mean."""

    kind: Literal["numeric"]
    name: Name
    column: str | None = None
    transform: Literal["identity", "standardise", "log1p"] = Field(
        "standardise",
        description="log1p: sign(x) log(1 + |x|), then standardised",
    )


class QuantileFeature(Spec):
    """A number cut at training quantiles into ids."""

    kind: Literal["quantile"]
    name: Name
    column: str | None = None
    num_buckets: Annotated[int, Field(ge=2, le=65_536)] = 32
    history_only: _HistoryOnly = False


class ListFeature(Spec):
    """Several values in one cell; their embeddings are averaged."""

    kind: Literal["list"]
    name: Name
    column: str | None = None
    encoder: EncoderSpec = VocabularyEncoder()
    max_length: PositiveInt = 50
    separator: str | None = Field(
        None, description="splits text cells; left out where cells are lists"
    )


class TimePartFeature(Spec):
    """A part of the impression's timestamp."""

    kind: Literal["time_part"]
    name: Name
    part: Literal["hour", "weekday", "day_of_month", "month"]
    utc_offset_hours: Annotated[float, Field(ge=-14, le=14)] = 0.0


class CrossFeature(Spec):
    """The combination of several columns, hashed into ``buckets`` ids."""

    kind: Literal["cross"]
    name: Name
    columns: Annotated[tuple[str, ...], Field(min_length=2)]
    buckets: PositiveInt


class MeanPooling(Spec):
    """The mean of the events' embeddings."""

    kind: Literal["mean"] = "mean"


class AttentionPooling(Spec):
    """DIN: events weigh by a small network that compares them with the candidate."""

    kind: Literal["din"]
    hidden: Widths = (32,)
    dropout: Rate = 0.0


class MaskedLoss(Spec):
    """Some events are hidden while training, and their ids guessed from the others."""

    weight: PositiveFloat = Field(0.1, description="factor of the mean loss of a guess")
    share: Fraction = Field(0.2, description="probability of an event to be hidden")


class Bert4RecPooling(Spec):
    """BERT4Rec: events read one another, then become one."""

    kind: Literal["bert4rec"]
    num_layers: PositiveInt = 2
    num_heads: PositiveInt = Field(
        2, description="divides the width of an event, model.embedding.dim a field"
    )
    dropout: Rate = 0.1
    pool: Literal["mean", "last", "target"] = Field(
        "mean",
        description="mean of the events; the newest alone; target: events weigh by how "
        "they compare with the candidate",
    )
    masked_loss: MaskedLoss | None = Field(
        None, description="a loss besides those of the tasks; none if left out"
    )


PoolingSpec = Annotated[
    MeanPooling | AttentionPooling | Bert4RecPooling, Field(discriminator="kind")
]


class HistoryFeature(Spec):
    """The user's newest earlier events, as they stood at the impression.

    Strictly earlier by timestamp; several rows of one instant do not see each other.
    """

    kind: Literal["history"]
    name: Name
    fields: Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        description="categorical or quantile features, whose ids make up an event"
    )
    where: Condition | None = Field(None, description="which rows are events; all")
    length: PositiveInt = Field(50, description="newest events used")
    match: tuple[Name, ...] = Field(
        (),
        description="fields, categorical, in which an event must have the value of the "
        "row that is scored; of the newest `length` events the others are left out",
    )
    keep: PositiveInt = Field(
        1_000, description="newest events kept for each user for requests by id only"
    )
    gaps: bool = Field(True, description="also embed the time since the event")
    pooling: PoolingSpec = MeanPooling()


class AggregateFeature(Spec):
    """How often something happened before, for this user or this item.

    Two numbers as they stood at the impression: ``<name>.rate``, the log-odds of the
    share of earlier rows for which ``rate_of`` holds, drawn towards the training mean
    as by ``prior_rows`` more rows, above the log-odds of that mean; ``<name>.count``,
    the log of one plus the rows counted, in units of that of ``prior_rows``. Strictly
    earlier by timestamp, as in a history.
    """

    kind: Literal["aggregate"]
    name: Name
    by: Literal["user", "item"]
    rate_of: Condition
    where: Condition | None = Field(None, description="which rows are counted; all")
    length: PositiveInt = Field(1_000, description="newest earlier rows counted")
    keep: PositiveInt = Field(
        1_000,
        description="newest rows kept for each user or item for requests by id only, "
        "`length` at least: those of the past need older rows",
    )
    prior_rows: PositiveFloat = 10.0


FeatureSpec = Annotated[
    CategoricalFeature
    | NumericFeature
    | QuantileFeature
    | ListFeature
    | TimePartFeature
    | CrossFeature
    | HistoryFeature
    | AggregateFeature,
    Field(discriminator="kind"),
]
