"""Ranking candidates and scoring rows: the routes that a model answers."""

from typing import Final, TypeVar

import msgspec
import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response

from recsys_mtl.rank.request import (
    RankRequest,
    RankResponse,
    RankTable,
    ScoreRequest,
    ScoreResponse,
    ScoreTable,
)
from serving.arrow_answer import RESPONSE_KEY, rank_stream, score_stream
from serving.arrow_input import read_stream
from serving.body import decode, read_body
from serving.deadline import DEADLINE, deadline_of
from serving.fault import HttpFault, json_response
from serving.media import ARROW, JSON, sent_as, wanted_as
from serving.observability.record import stage
from serving.operation import BINARY, OF_A_BODY, Operation, service_of
from serving.settings import LimitSettings

__all__ = ["RANKING", "REQUEST_KEY"]

T = TypeVar("T", RankRequest, ScoreRequest)

REQUEST_KEY: Final = b"recsys-mtl.request"
"""Where the schema's metadata has, as JSON, all of a request that is no column."""

_RANK = msgspec.json.Decoder(RankRequest)
_SCORE = msgspec.json.Decoder(ScoreRequest)


async def _rank(request: Request) -> Response:
    service, deadline_s = service_of(request), deadline_of(request)
    sent, wanted = sent_as(request), wanted_as(request)
    with service.admitted(), service.holding() as hold:
        body = await read_body(request, service.settings.limits, hold)
        if sent == ARROW:
            rest, table = _arrow(body, _RANK, service.settings.limits)
            ask: RankRequest = RankTable(
                **msgspec.structs.asdict(rest), table=table, as_table=wanted == ARROW
            )
        else:
            ask = decode(body, _RANK)
    models = service.models  # those that answer; others may when the answer is there
    answer = await service.rank(ask, deadline_s=deadline_s, leaves=request.receive)
    if wanted == ARROW:
        card = models.named(answer.model).card
        with stage("serialise"):
            stream = rank_stream(answer, card, ask.tasks)
        return Response(stream, media_type=ARROW)
    return json_response(answer)


async def _score(request: Request) -> Response:
    service, deadline_s = service_of(request), deadline_of(request)
    sent, wanted = sent_as(request), wanted_as(request)
    with service.admitted(), service.holding() as hold:
        body = await read_body(request, service.settings.limits, hold)
        if sent == ARROW:
            rest, table = _arrow(body, _SCORE, service.settings.limits)
            ask: ScoreRequest = ScoreTable(**msgspec.structs.asdict(rest), table=table)
        else:
            ask = decode(body, _SCORE)
    answer = await service.score(ask, deadline_s=deadline_s, leaves=request.receive)
    if wanted == ARROW:
        with stage("serialise"):
            stream = score_stream(answer)
        return Response(stream, media_type=ARROW)
    return json_response(answer)


def _arrow(
    body: bytes, decoder: msgspec.json.Decoder[T], limits: LimitSettings
) -> tuple[T, pa.Table]:
    with stage("decode"):
        table = read_stream(body, limits)
    rest = (table.schema.metadata or {}).get(REQUEST_KEY, b"{}")
    key = f"metadata[{REQUEST_KEY.decode()}]"
    try:
        return decode(rest, decoder), table
    except HttpFault as fault:
        field = key if fault.field is None else f"{key}.{fault.field}"
        raise HttpFault(fault.status, fault.code, fault.message, field) from fault


_ARROW_INPUT = (
    f"As `{ARROW}`, {{what}}; the other fields of the request are a JSON object in the "
    f"schema's metadata under `{REQUEST_KEY.decode()}`. Where `Accept` asks for it, "
    "the answer is such a stream too, with all that is no column under "
    f"`{RESPONSE_KEY.decode()}`."
)


RANKING = (
    Operation(
        method="POST",
        path="/v1/rank",
        handle=_rank,
        access="rank",
        summary="Order candidates for one user",
        description=_ARROW_INPUT.format(
            what="a row is a candidate, with the key of items and columns of the item "
            "or the impression under their own names"
        ),
        takes={JSON: RankRequest, ARROW: BINARY},
        examples={JSON: lambda model: model.ranker.example()},
        answers={JSON: RankResponse, ARROW: BINARY},
        parameters=(DEADLINE,),
        faults=OF_A_BODY,
    ),
    Operation(
        method="POST",
        path="/v1/score",
        handle=_score,
        access="rank",
        summary="Score rows in the order given",
        description=_ARROW_INPUT.format(what="columns are raw columns by name"),
        takes={JSON: ScoreRequest, ARROW: BINARY},
        examples={JSON: lambda model: model.ranker.example_rows()},
        answers={JSON: ScoreResponse, ARROW: BINARY},
        parameters=(DEADLINE,),
        faults=OF_A_BODY,
    ),
)
