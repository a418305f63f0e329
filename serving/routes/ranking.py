"""Ranking candidates and scoring rows: the routes that a model answers."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from recsys_mtl.rank.request import (
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
)
from serving.body import decode, read_body
from serving.deadline import DEADLINE, deadline_of
from serving.fault import json_response
from serving.operation import OF_A_BODY, Operation, service_of

__all__ = ["RANKING"]

_RANK = msgspec.json.Decoder(RankRequest)
_SCORE = msgspec.json.Decoder(ScoreRequest)


async def _rank(request: Request) -> Response:
    service, deadline_s = service_of(request), deadline_of(request)
    with service.admitted(), service.holding() as hold:
        body = await read_body(request, service.settings.limits, hold)
        ask = decode(body, _RANK)
    return json_response(
        await service.rank(ask, deadline_s=deadline_s, leaves=request.receive)
    )


async def _score(request: Request) -> Response:
    service, deadline_s = service_of(request), deadline_of(request)
    with service.admitted(), service.holding() as hold:
        body = await read_body(request, service.settings.limits, hold)
        ask = decode(body, _SCORE)
    return json_response(
        await service.score(ask, deadline_s=deadline_s, leaves=request.receive)
    )


RANKING = (
    Operation(
        method="POST",
        path="/v1/rank",
        handle=_rank,
        summary="Order candidates for one user",
        takes={"application/json": RankRequest},
        examples={"application/json": lambda model: model.ranker.example()},
        answers={"application/json": RankResponse},
        parameters=(DEADLINE,),
        faults=OF_A_BODY,
    ),
    Operation(
        method="POST",
        path="/v1/score",
        handle=_score,
        summary="Score rows in the order given",
        takes={"application/json": ScoreRequest},
        examples={"application/json": lambda model: model.ranker.example_rows()},
        answers={"application/json": ScoreResponse},
        parameters=(DEADLINE,),
        faults=OF_A_BODY,
    ),
)
