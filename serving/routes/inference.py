"""The Open Inference Protocol v2: rows as tensors, a tensor a raw column.

References:
    KServe, Open Inference Protocol, specification/protocol/inference_rest.md; NVIDIA
    Triton, binary tensor data extension.
"""

import re
from dataclasses import replace
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from recsys_mtl import __version__
from recsys_mtl.rank.card import ModelCard
from recsys_mtl.rank.request import ScoreTable
from serving.body import decode, read_body
from serving.deadline import DEADLINE, deadline_of
from serving.fault import HttpFault, json_response
from serving.media import JSON, refuse_compressed
from serving.model_set import ServedModel
from serving.observability.record import stage
from serving.operation import BINARY, OF_A_BODY, Operation, Parameter, service_of
from serving.tensor_input import read_tensors
from serving.tensor_message import (
    Datatype,
    InferError,
    InferInput,
    InferRequest,
    InferResponse,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    RepositoryModel,
    ServerMetadata,
    TensorMetadata,
)
from serving.tensor_output import chosen_outputs, output_names, write_response

__all__ = ["INFERENCE"]

_OCTETS: Final = "application/octet-stream"
_JSON_LENGTH: Final = "inference-header-content-length"
_DATATYPES: Final[dict[str, Datatype]] = {
    "int": "INT64",
    "float": "FP64",
    "string": "BYTES",
}

_INFER = msgspec.json.Decoder(InferRequest)


async def _server(request: Request) -> Response:
    del request
    return json_response(
        ServerMetadata("recsys-mtl", __version__, ["binary_tensor_data"])
    )


async def _live(request: Request) -> Response:
    del request
    return json_response(Live(live=True))


async def _ready(request: Request) -> Response:
    _refuse_unready(request)
    return json_response(Ready(ready=True))


async def _model_ready(request: Request) -> Response:
    model = _model_of(request)
    _refuse_unready(request)
    return json_response(ModelReady(model.name, ready=True))


async def _model(request: Request) -> Response:
    card = _model_of(request).card
    return json_response(
        ModelMetadata(
            name=card.name,
            versions=[card.version],
            platform="recsys-mtl_pytorch",
            inputs=_inputs(card),
            outputs=[TensorMetadata(name, "FP64", [-1]) for name in output_names(card)],
        )
    )


async def _repository(request: Request) -> Response:
    service = service_of(request)
    told = [
        RepositoryModel(
            model.name,
            model.card.version,
            "READY" if service.ready else "UNAVAILABLE",
            "" if service.ready else "warming up",
        )
        for model in service.models.models
    ]
    return Response(msgspec.json.encode(told), media_type=JSON)


async def _infer(request: Request) -> Response:
    service, deadline_s = service_of(request), deadline_of(request)
    _model_of(request)
    refuse_compressed(request)
    with service.admitted(), service.holding() as hold:
        body = await read_body(request, service.settings.limits, hold)
        length = _json_length(request, len(body))
        asked = decode(body[:length], _INFER)
        card = _model_of(request).card  # it may be another one than before the body
        outputs = chosen_outputs(asked, card)
        with stage("decode"):
            table = read_tensors(
                asked.inputs,
                memoryview(body)[length:],
                card.signature,
                service.settings.limits,
            )
    names = output_names(card)
    if deadline_s is None and asked.parameters.timeout is not None:
        deadline_s = asked.parameters.timeout / 1e6
    response = await service.score(
        ScoreTable(
            request_id=asked.id,
            model=card.name,
            details=any(names[output.name][1] is not None for output in outputs),
            table=table,
            place="inputs",
        ),
        deadline_s=deadline_s,
        leaves=request.receive,
    )
    with stage("serialise"):
        told, json_length = write_response(
            response, outputs, card, binary=asked.parameters.binary_data_output
        )
    if json_length is None:
        return Response(told, media_type=JSON)
    return Response(told, media_type=_OCTETS, headers={_JSON_LENGTH: str(json_length)})


def _model_of(request: Request) -> ServedModel:
    model = service_of(request).model(request.path_params["name"])
    version = request.path_params.get("version")
    if version is not None and version != model.card.version:
        raise HttpFault(
            HTTPStatus.NOT_FOUND,
            "not_found",
            f"{model.name} has no version {version[:40]!r}; there is "
            f"{model.card.version!r}",
            "version",
        )
    return model


def _refuse_unready(request: Request) -> None:
    if not service_of(request).ready:
        raise HttpFault(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "not_ready",
            "warming up; ask again in a second",
        )


def _json_length(request: Request, size: int) -> int:
    given = request.headers.get(_JSON_LENGTH)
    if given is None:
        return size
    if not re.fullmatch("[0-9]{1,12}", given) or int(given) > size:
        raise HttpFault(
            HTTPStatus.BAD_REQUEST,
            "malformed_body",
            f"must be the length of the JSON in a body of {size:,} bytes, got "
            f"{given[:40]!r}",
            _JSON_LENGTH,
        )
    return int(given)


def _inputs(card: ModelCard) -> list[TensorMetadata]:
    return [
        TensorMetadata(
            column.name,
            _DATATYPES[column.type.removesuffix("_list")],
            [-1, -1] if column.type.endswith("_list") else [-1],
        )
        for column in card.signature
    ]


def _example(model: ServedModel) -> InferRequest:
    """The rows of the ranker's own example."""
    columns: dict[str, list[object]] = {}
    rows = model.ranker.example_rows().rows or []
    for row in rows:
        for name, cell in row.items():
            columns.setdefault(name, []).append(cell)
    kinds = {column.name: column.type for column in model.card.signature}
    return InferRequest(
        inputs=[
            InferInput(name, [len(rows)], _DATATYPES[kinds[name]], data=cells)
            for name, cells in columns.items()
        ]
    )


_NAME = Parameter("name", "path", "of the model", example=lambda model: model.name)
_VERSION = Parameter(
    "version", "path", "of the model", example=lambda model: model.card.version
)
_LENGTH = Parameter(
    _JSON_LENGTH,
    "header",
    "length of the JSON, where tensors stand behind it as bytes",
    schema={"type": "integer", "minimum": 0},
)


def _of_a_model() -> tuple[Operation, ...]:
    return (
        Operation(
            method="GET",
            path="/v2/models/{name}",
            handle=_model,
            access="any",
            summary="Tensors of a model (Open Inference Protocol)",
            answers={JSON: ModelMetadata},
            parameters=(_NAME,),
            faults=(HTTPStatus.NOT_FOUND,),
            fault=InferError,
        ),
        Operation(
            method="GET",
            path="/v2/models/{name}/ready",
            handle=_model_ready,
            access="any",
            summary="A model is ready",
            answers={JSON: ModelReady},
            parameters=(_NAME,),
            faults=(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
            fault=InferError,
        ),
        Operation(
            method="POST",
            path="/v2/models/{name}/infer",
            handle=_infer,
            access="rank",
            summary="Score rows given as tensors",
            description="A tensor a raw column, each of them optional: what is left "
            "out is looked up by key. Where single values are missing, a BOOL tensor "
            "`<column>:present` says so. Tensors may be binary both ways.",
            takes={JSON: InferRequest, _OCTETS: BINARY},
            examples={JSON: _example},
            answers={JSON: InferResponse, _OCTETS: BINARY},
            headers={_JSON_LENGTH: "length of the JSON, if any output is binary"},
            parameters=(_NAME, _LENGTH, DEADLINE),
            faults=OF_A_BODY,
            fault=InferError,
        ),
    )


def _versioned(operation: Operation) -> Operation:
    return replace(
        operation,
        path=operation.path.replace("{name}", "{name}/versions/{version}"),
        parameters=(*operation.parameters, _VERSION),
    )


INFERENCE = (
    Operation(
        method="GET",
        path="/v2",
        handle=_server,
        access="any",
        summary="What the server speaks (Open Inference Protocol)",
        answers={JSON: ServerMetadata},
        fault=InferError,
    ),
    Operation(
        method="GET",
        path="/v2/health/live",
        handle=_live,
        access="open",
        summary="The process lives",
        answers={JSON: Live},
    ),
    Operation(
        method="GET",
        path="/v2/health/ready",
        handle=_ready,
        access="open",
        summary="A warm-up request went through",
        answers={JSON: Ready},
        faults=(HTTPStatus.SERVICE_UNAVAILABLE,),
        fault=InferError,
    ),
    *_of_a_model(),
    *map(_versioned, _of_a_model()),
    Operation(
        method="POST",
        path="/v2/repository/index",
        handle=_repository,
        access="rank",
        summary="Served models, as Triton's clients ask for them",
        answers={
            JSON: {
                "type": "array",
                "items": {"$ref": "#/components/schemas/RepositoryModel"},
            }
        },
        fault=InferError,
        uses=(RepositoryModel,),
    ),
)
