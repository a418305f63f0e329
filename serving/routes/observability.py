"""Metrics out, and feedback in."""

from http import HTTPStatus
from typing import Final

import msgspec
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

from serving.body import decode, read_body
from serving.fault import json_response
from serving.media import refuse_compressed
from serving.observability.feedback import (
    FeedbackEvent,
    FeedbackRequest,
    FeedbackResponse,
)
from serving.observability.observer import Observer
from serving.operation import Operation, service_of, text

__all__ = ["OBSERVABILITY"]

_FEEDBACK: Final = msgspec.json.Decoder(FeedbackRequest)


async def _metrics(request: Request) -> Response:
    told = await _observer(request).metrics()
    return Response(told, media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _feedback(request: Request) -> Response:
    service = service_of(request)
    refuse_compressed(request)
    with service.holding() as hold:
        body = await read_body(request, service.settings.limits, hold)
        events = decode(body, _FEEDBACK)
    return json_response(_observer(request).feedback(events))


def _observer(request: Request) -> Observer:
    observer: Observer = request.app.state.observer
    return observer


OBSERVABILITY = (
    Operation(
        method="POST",
        path="/v1/feedback",
        handle=_feedback,
        access="feedback",
        summary="Tell what became of predictions",
        description="Events that come twice count once, as far as the replica that "
        "gets them remembers; all events of a request count, or none.",
        takes={"application/json": FeedbackRequest},
        examples={
            "application/json": lambda model: FeedbackRequest(
                [
                    FeedbackEvent(
                        event_id="click-81",
                        request_id="request-17",
                        item_id=3,
                        labels={model.card.tasks[0].name: 1.0},
                        model=model.name,
                        version=model.card.version,
                        predictions={model.card.tasks[0].name: 0.5},
                    )
                ]
            )
        },
        answers={"application/json": FeedbackResponse},
        faults=(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.INTERNAL_SERVER_ERROR,
        ),
    ),
    Operation(
        method="GET",
        path="/metrics",
        handle=_metrics,
        access="any",
        summary="Metrics of the node's replicas, as Prometheus reads them",
        answers=text("text/plain"),
        page="metrics",
    ),
)
