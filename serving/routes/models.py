"""What is served."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from recsys_mtl.rank.card import ModelCard, ModelList
from serving.fault import json_response
from serving.operation import Operation, Parameter, service_of

__all__ = ["MODELS"]


async def _models(request: Request) -> Response:
    models = service_of(request).models.models
    return json_response(ModelList([model.card for model in models]))


async def _model(request: Request) -> Response:
    return json_response(service_of(request).model(request.path_params["name"]).card)


MODELS = (
    Operation(
        method="GET",
        path="/v1/models",
        handle=_models,
        access="any",
        summary="Served models",
        answers={"application/json": ModelList},
    ),
    Operation(
        method="GET",
        path="/v1/models/{name}",
        handle=_model,
        access="any",
        summary="A served model",
        answers={"application/json": ModelCard},
        parameters=(
            Parameter("name", "path", "of the model", example=lambda model: model.name),
        ),
        faults=(HTTPStatus.NOT_FOUND,),
    ),
)
