"""What is stored of users and items: written, read and removed by key."""

import asyncio
import time
from http import HTTPStatus
from typing import Any, Final, Literal, cast

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from recsys_mtl.entities import KINDS, AbstractEntityStore, Cells, EntitySchema, Kind
from recsys_mtl.entities.row import EntityInput, EntityRow, read_rows, read_table
from recsys_mtl.entities.snapshot import SnapshotStore
from recsys_mtl.errors import EnvironmentFault
from recsys_mtl.rank.column import unknown_name
from serving.arrow_input import read_stream
from serving.body import decode, read_body
from serving.entity_settings import SnapshotSettings
from serving.fault import HttpFault, json_response
from serving.media import ARROW, JSON, refuse_compressed
from serving.operation import BINARY, Operation, Parameter, service_of

__all__ = ["ENTITIES", "EntityAnswer", "EntityCount"]

LINES: Final = "application/x-ndjson"

_INPUT = msgspec.json.Decoder(EntityInput)
_LINE = msgspec.json.Decoder(EntityRow)


class EntityCount(Struct, frozen=True):
    """How many rows were stored or removed."""

    rows: int


class EntityAnswer(Struct, frozen=True):
    """What is known of a user or item.

    Attributes:
        id: Of the user or item.
        source: Where it is from: the store, or the users and items of the first served
            model's bundle, which is asked where the store has nothing.
        age_s: Seconds since it was written.
        cells: Raw values by column; of histories under ``<history>.<column>``.
    """

    id: str
    source: Literal["store", "bundle"]
    age_s: float
    cells: dict[str, Any]


async def _put(request: Request) -> Response:
    kind, key = _kind(request), request.path_params["id"]
    store, body = await _write(request)
    row = decode(body, _INPUT)
    schemas = _schemas(request)
    rows = read_rows(kind, [row], [key], schemas, "")
    return await _stored(store, kind, rows, schemas)


async def _post(request: Request) -> Response:
    kind = _kind(request)
    store, body = await _write(request)
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    schemas = _schemas(request)
    # In a thread: many rows take a while, and others wait for the event loop.
    if sent == ARROW:
        limits = service_of(request).settings.limits
        # The bytes of the body are the bound here.
        many = limits.model_copy(update={"max_items": len(body)})
        rows = await asyncio.to_thread(
            lambda: read_table(kind, read_stream(body, many), schemas)
        )
    elif sent in (LINES, JSON, ""):
        rows = await asyncio.to_thread(_read_lines, kind, body, schemas)
    else:
        raise HttpFault(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported",
            f"the body must be {LINES} or {ARROW}, got {sent[:80]!r}",
            "content-type",
        )
    return await _stored(store, kind, rows, schemas)


async def _get(request: Request) -> Response:
    kind, key = _kind(request), request.path_params["id"]
    service, now_us = service_of(request), time.time_ns() // 1_000
    snapshot = SnapshotStore(service.models.models[0].ranker.bundle)
    sources: tuple[
        tuple[Literal["store", "bundle"], AbstractEntityStore | None], ...
    ] = (("store", service.entities.store), ("bundle", snapshot))
    for source, store in sources:
        if store is None:
            continue
        found = await _reached(store.get_many, kind, [key], now_us=now_us)
        row = found.rows[0]
        if row is not None:
            age_s = float(found.age_s[0])
            return json_response(EntityAnswer(key, source, age_s, dict(row.cells)))
    raise HttpFault(
        HTTPStatus.NOT_FOUND, "not_found", f"nothing is stored of {kind} {key!r}", "id"
    )


async def _delete(request: Request) -> Response:
    kind, key = _kind(request), request.path_params["id"]
    count = await _reached(_writable(request).delete_many, kind, [key])
    return json_response(EntityCount(count))


def _kind(request: Request) -> Kind:
    kind = request.path_params["kind"]
    if kind in KINDS:
        return cast(Kind, kind)
    fault = unknown_name("kind", kind, KINDS)
    raise HttpFault(HTTPStatus.NOT_FOUND, "not_found", fault.message, fault.field)


def _schemas(request: Request) -> list[EntitySchema]:
    service = service_of(request)
    return [service.entities.schema(model) for model in service.models.models]


def _writable(request: Request) -> AbstractEntityStore:
    store = service_of(request).entities.store
    if store is None:
        raise HttpFault(
            HTTPStatus.CONFLICT,
            "read_only",
            "this server has the users and items of its bundles alone, which cannot be "
            "written; start it with `entities: {kind: lmdb, ...}` or `{kind: redis, "
            "...}`",
        )
    return store


async def _write(request: Request) -> tuple[AbstractEntityStore, bytes]:
    store, service = _writable(request), service_of(request)
    refuse_compressed(request)
    settings = service.settings.entities
    assert not isinstance(settings, SnapshotSettings), "which has no store"
    limits = service.settings.limits.model_copy(
        update={"max_body_bytes": settings.max_body_bytes}
    )
    with service.holding() as hold:
        return store, await read_body(request, limits, hold)


def _read_lines(
    kind: Kind, body: bytes, schemas: list[EntitySchema]
) -> list[tuple[str, Cells]]:
    rows: list[EntityRow] = []
    for i, line in enumerate(body.split(b"\n")):
        if not line.strip():
            continue
        try:
            rows.append(decode(line, _LINE))
        except HttpFault as fault:
            field = f"[{i}]" if fault.field is None else f"[{i}].{fault.field}"
            raise HttpFault(fault.status, fault.code, fault.message, field) from fault
    return read_rows(kind, rows, [row.id for row in rows], schemas, "[{i}].")


async def _stored(
    store: AbstractEntityStore,
    kind: Kind,
    rows: list[tuple[str, Cells]],
    schemas: list[EntitySchema],
) -> Response:
    names = {name for _, cells in rows for name in cells}
    # Whoever reads them for a model of these very columns need not check again.
    first = schemas[0]
    checked = first.version if names <= first.columns[kind].keys() else ""
    now_us = time.time_ns() // 1_000
    await _reached(store.put_many, kind, rows, now_us=now_us, checked=checked)
    return json_response(EntityCount(len(rows)))


async def _reached(call: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return await asyncio.to_thread(call, *arguments, **options)
    except EnvironmentFault as fault:
        raise HttpFault(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "store_unavailable",
            f"{fault}; nothing was changed, ask again later",
        ) from fault


_KIND = Parameter(
    "kind",
    "path",
    "`users` or `items`",
    schema={"type": "string", "enum": list(KINDS)},
    example=lambda _: "users",
)
_ID = Parameter(
    "id",
    "path",
    "of the user or item; one with a slash in it goes by `POST /v1/entities/{kind}`",
    example=lambda _: "user-1",
)
_OF_A_STORE = (HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
_OF_A_WRITE = (
    HTTPStatus.CONFLICT,
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    *_OF_A_STORE,
)

ENTITIES = (
    Operation(
        method="PUT",
        path="/v1/entities/{kind}/{id}",
        handle=_put,
        access="admin",
        summary="Store what is known of a user or item",
        description="Takes the place of all that was stored of it; requests read it "
        "from then on. Columns are those of the served models' signatures.",
        takes={JSON: EntityInput},
        examples={JSON: lambda _: EntityInput()},
        answers={JSON: EntityCount},
        parameters=(_KIND, _ID),
        faults=_OF_A_WRITE,
    ),
    Operation(
        method="POST",
        path="/v1/entities/{kind}",
        handle=_post,
        access="admin",
        summary="Store many rows: all of them, or none",
        description=f"As `{LINES}`, a JSON object a line, with its `id`; as `{ARROW}`, "
        "a column `id` and raw columns by name.",
        takes={LINES: EntityRow, ARROW: BINARY},
        examples={LINES: lambda _: EntityRow(id="user-1")},
        answers={JSON: EntityCount},
        parameters=(_KIND,),
        faults=_OF_A_WRITE,
    ),
    Operation(
        method="GET",
        path="/v1/entities/{kind}/{id}",
        handle=_get,
        access="admin",
        summary="What is known of a user or item, and since when",
        answers={JSON: EntityAnswer},
        parameters=(_KIND, _ID),
        faults=_OF_A_STORE,
    ),
    Operation(
        method="DELETE",
        path="/v1/entities/{kind}/{id}",
        handle=_delete,
        access="admin",
        summary="Remove what is stored of a user or item",
        description="What the bundle knows stays.",
        answers={JSON: EntityCount},
        parameters=(_KIND, _ID),
        faults=(HTTPStatus.CONFLICT, *_OF_A_STORE),
    ),
)
