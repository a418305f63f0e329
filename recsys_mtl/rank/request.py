"""What a caller may ask, and what is answered: the wire format as types."""

from typing import Annotated, Any, Literal

import pyarrow as pa
from msgspec import UNSET, Meta, Struct, UnsetType

from recsys_mtl.rank.card import Scoring

__all__ = [
    "Cell",
    "Explanation",
    "FeatureGaps",
    "Id",
    "ItemInput",
    "RankRequest",
    "RankResponse",
    "RankTable",
    "RankedItem",
    "RankedTable",
    "ScoreRequest",
    "ScoreResponse",
    "ScoreTable",
    "StoreUse",
    "UnknownIds",
    "UnknownRows",
    "UserInput",
]

Id = int | str | None
"""A user or an item; null where it has no id."""

# ``Any`` leaves the check of a cell to the bundle's signature, which knows the column's
# type and can name the column; the decoder knows neither.
Cell = Annotated[
    Any,
    Meta(
        extra_json_schema={
            "description": "a value of the column's type; null where missing",
            "anyOf": [
                {"type": "integer"},
                {"type": "number"},
                {"type": "string"},
                {"type": "array", "items": {"type": ["integer", "number", "string"]}},
                {"type": "null"},
            ],
        }
    ),
]
"""One raw value."""


ShortText = Annotated[str, Meta(max_length=256)]
"""A name or an id of a request: long enough for both, short enough for a log."""


class _Input(Struct, frozen=True, forbid_unknown_fields=True):
    """Closed to names it does not know."""


class UserInput(_Input, frozen=True):
    """Who is ranked for.

    Attributes:
        id: Looked up in the bundle's users; may be left out.
        features: Raw columns of the user; each wins over the looked-up one, unless
            it is null.
        histories: By history, lists of equal length, one entry an event, in any order:
            ``time`` in the unit of the timestamp, and raw columns of the history. A
            given history stands in for the looked-up one.
    """

    id: Id = None
    features: dict[str, Cell] = {}
    histories: dict[str, dict[str, list[Cell]]] = {}


class ItemInput(_Input, frozen=True):
    """One candidate.

    Attributes:
        id: Looked up in the bundle's items; may be left out.
        features: Raw columns of the item, or of the impression where they differ from
            item to item; each wins over the looked-up one and over the context, unless
            it is null.
    """

    id: Id = None
    features: dict[str, Cell] = {}


class RankRequest(_Input, frozen=True):
    """Order candidates for one user.

    Attributes:
        request_id: Comes back in the response; made by the server if left out.
        model: Name of a served model; the server's first if left out.
        user: Who is ranked for.
        context: Raw columns of the impression, the timestamp among them under its own
            name and in its own unit.
        items: Candidates with features; either this or ``item_ids``.
        item_ids: Candidates by id only.
        top_k: Length of the answer; all candidates if left out.
        tasks: Whose predictions to tell; all if left out. The score is unaffected.
        details: Whether to tell what a task has beside its prediction.
        explain: Whether to tell which features had gaps, and what took how long.
    """

    request_id: ShortText | None = None
    model: ShortText | None = None
    user: UserInput = UserInput()
    context: dict[str, Cell] = {}
    items: list[ItemInput] | None = None
    item_ids: list[Id] | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None
    tasks: Annotated[list[ShortText], Meta(max_length=1_000)] | None = None
    details: bool = False
    explain: bool = False


class ScoreRequest(_Input, frozen=True):
    """Score rows, in the order given.

    Columns are raw columns by name: keys, timestamp, features, and of histories
    ``<history>.time`` and ``<history>.<raw column>`` as lists.

    Attributes:
        request_id: Comes back in the response; made by the server if left out.
        model: Name of a served model; the server's first if left out.
        rows: One object a row; either this or ``columns``.
        columns: One list a column, all of one length.
        tasks: Whose predictions to tell; all if left out. The score is unaffected.
        details: Whether to tell what a task has beside its prediction.
    """

    request_id: ShortText | None = None
    model: ShortText | None = None
    rows: list[dict[str, Cell]] | None = None
    columns: dict[str, list[Cell]] | None = None
    tasks: Annotated[list[ShortText], Meta(max_length=1_000)] | None = None
    details: bool = False


class RankTable(RankRequest, frozen=True, kw_only=True):
    """A rank request whose candidates are a typed table, which JSON cannot be.

    Attributes:
        table: A row a candidate: the key column of items under its own name, and raw
            columns of the item, or of the impression where they differ from item to
            item. Null is as left out.
        place: What the caller calls the columns, for the fields of errors.
        as_table: Whether to answer with a ``RankedTable``.
    """

    table: pa.Table
    place: str = "columns"
    as_table: bool = False


class ScoreTable(ScoreRequest, frozen=True, kw_only=True):
    """A score request whose rows are a typed table.

    Attributes:
        table: Raw columns by name.
        place: What the caller calls the columns, for the fields of errors.
    """

    table: pa.Table
    place: str = "columns"


class RankedItem(Struct, frozen=True):
    """A candidate with its prediction a task and the score it is sorted by.

    Attributes:
        id: As it was given.
        score: What candidates are sorted by.
        predictions: By task.
        details: By task that has any, then by name; only if asked for.
    """

    id: Id
    score: float
    predictions: dict[str, float]
    details: dict[str, dict[str, float]] | UnsetType = UNSET


class FeatureGaps(Struct, frozen=True):
    """Features that were not what the model was trained on.

    Attributes:
        missing: Without a value; of histories and aggregates, without earlier events.
        unknown: With a value that training did not have (often enough).
    """

    missing: list[str]
    unknown: list[str]


class Explanation(Struct, frozen=True):
    """How an answer came about.

    Attributes:
        shared: Gaps of the user and the context, which all candidates share.
        items: Gaps of each returned candidate, in their order.
        network: By returned candidate and task, what the network predicted, before
            calibration.
        stage_ms: Milliseconds a stage (``read``, ``encode``, ``forward``, ``fuse``) of
            all requests that were answered together, up to this explanation.
        answered_together: How many requests that were.
    """

    shared: FeatureGaps
    items: list[FeatureGaps]
    network: list[dict[str, float]]
    stage_ms: dict[str, float]
    answered_together: int


class UnknownIds(Struct, frozen=True):
    """Ids that the bundle does not know; they were scored with defaults."""

    user: bool
    items: list[Id]


class UnknownRows(Struct, frozen=True):
    """Numbers of rows, from 0, whose user or item the bundle does not know."""

    users: list[int]
    items: list[int]


class StoreUse(Struct, frozen=True):
    """What a store beside the bundle had for a request.

    Attributes:
        users: How many of its users.
        items: How many of its items.
        oldest_s: Age of the oldest of these rows in seconds; null if there are none.
    """

    users: int
    items: int
    oldest_s: float | None


class RankResponse(Struct, frozen=True):
    """Candidates, best first; those of equal score in the order of the request.

    Attributes:
        request_id: Of the request.
        model: Which model answered.
        version: Of the model.
        items: Candidates, best first.
        unknown: Which ids were scored with defaults.
        timestamp: When the impression was taken to happen, as a raw value.
        timestamp_from: Who said so; null if the model knows no time.
        scoring: How predictions became the score.
        chosen_by: Why that model: the request named it, the server shares its traffic
            and the user fell to it, or it is the one that answers what names none.
        explain: How the answer came about; only if asked for.
        degraded: Whether the bundle's values and defaults stood in for a store that was
            slow or down.
        stored: What that store had; only where one was asked.
    """

    request_id: str | None
    model: str
    version: str
    items: list[RankedItem]
    unknown: UnknownIds
    timestamp: int | float | str | None
    timestamp_from: Literal["request", "server"] | None
    scoring: Scoring
    chosen_by: Literal["request", "traffic", "default"] = "default"
    explain: Explanation | UnsetType = UNSET
    degraded: bool = False
    stored: StoreUse | UnsetType = UNSET


class RankedTable(RankResponse, frozen=True, kw_only=True):
    """A rank response of which the candidates are columns; ``items`` is empty.

    Attributes:
        table: Best first: ``id``, ``score``, ``prediction.<task>`` and, if asked for,
            ``detail.<task>.<name>``.
    """

    table: pa.Table


class ScoreResponse(Struct, frozen=True):
    """One number a row and task, and one score a row, in the order of the request.

    Attributes:
        request_id: Of the request.
        model: Which model answered.
        version: Of the model.
        predictions: By task.
        score: One number a row to sort by.
        unknown: Which rows were scored with defaults.
        timestamp: Taken for all rows where the request had no column of times.
        timestamp_from: Who said when; null if the model knows no time.
        scoring: How predictions became the score.
        details: By task that has any, then by name; only if asked for.
        chosen_by: Why that model: the request named it, the server shares its traffic
            and the user fell to it, or it is the one that answers what names none.
        degraded: Whether the bundle's values and defaults stood in for a store that was
            slow or down.
        stored: What that store had; only where one was asked.
    """

    request_id: str | None
    model: str
    version: str
    predictions: dict[str, list[float]]
    score: list[float]
    unknown: UnknownRows
    timestamp: int | float | str | None
    timestamp_from: Literal["request", "server"] | None
    scoring: Scoring
    details: dict[str, dict[str, list[float]]] | UnsetType = UNSET
    chosen_by: Literal["request", "traffic", "default"] = "default"
    degraded: bool = False
    stored: StoreUse | UnsetType = UNSET
