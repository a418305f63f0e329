"""Typed answers -> Arrow IPC streams."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
from msgspec import UNSET

from recsys_mtl.rank.card import ModelCard
from recsys_mtl.rank.request import RankedTable, RankResponse, ScoreResponse

__all__ = ["RESPONSE_KEY", "rank_stream", "score_stream"]

RESPONSE_KEY: Final = b"recsys-mtl.response"
"""Where the schema's metadata has, as JSON, all of a response that is no column."""


def rank_stream(
    response: RankResponse, card: ModelCard, tasks: Sequence[str] | None
) -> bytes:
    """Write candidates, best first.

    Columns are ``id``, ``score``, ``prediction.<task>`` and, where details were asked
    for, ``detail.<task>.<name>``.

    Args:
        response: As the ranker gives it.
        card: Of the model that answered: it knows the tasks even where no candidate
            does.
        tasks: Those asked for; all if ``None``.
    """
    if isinstance(response, RankedTable):
        return _stream(response.table, response, {"items", "table"})
    items = response.items
    chosen = [task for task in card.tasks if tasks is None or task.name in tasks]
    columns: dict[str, Any] = {
        "id": _ids([item.id for item in items], card),
        "score": pa.array([item.score for item in items], pa.float64()),
    }
    for task in chosen:
        columns[f"prediction.{task.name}"] = pa.array(
            [item.predictions[task.name] for item in items], pa.float64()
        )
    if items and items[0].details is not UNSET:
        for task in chosen:
            for name in task.details:
                columns[f"detail.{task.name}.{name}"] = pa.array(
                    [_detail(item.details, task.name, name) for item in items],
                    pa.float64(),
                )
    return _stream(pa.table(columns), response, {"items"})


def score_stream(response: ScoreResponse) -> bytes:
    """Write rows in their order; columns as of candidates, without ``id``."""
    columns = {"score": pa.array(response.score, pa.float64())}
    for task, numbers in response.predictions.items():
        columns[f"prediction.{task}"] = pa.array(numbers, pa.float64())
    if response.details is not UNSET:
        for task, of in response.details.items():
            for name, numbers in of.items():
                columns[f"detail.{task}.{name}"] = pa.array(numbers, pa.float64())
    return _stream(pa.table(columns), response, {"score", "predictions", "details"})


def _detail(
    details: Mapping[str, Mapping[str, float]] | msgspec.UnsetType, task: str, name: str
) -> float:
    assert details is not UNSET, "asked for once, they are told of every candidate"
    return details[task][name]


def _ids(ids: Sequence[int | str | None], card: ModelCard) -> pa.Array:
    kinds = {
        column.type
        for column in card.signature
        if column.role == "key" and column.origin == "item"
    }
    if kinds <= {"int"} and not any(isinstance(i, str) for i in ids):
        return pa.array([None if i is None else int(i) for i in ids], pa.int64())
    return pa.array([None if i is None else str(i) for i in ids], pa.string())


def _stream(table: pa.Table, response: msgspec.Struct, apart: set[str]) -> bytes:
    rest = {
        name: value
        for name, value in msgspec.structs.asdict(response).items()
        if name not in apart and value is not UNSET
    }
    table = table.replace_schema_metadata({RESPONSE_KEY: msgspec.json.encode(rest)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
