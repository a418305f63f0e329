"""What is served, and what shall be."""

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from recsys_mtl.config.document import path_text
from recsys_mtl.config.fault import describe
from recsys_mtl.errors import EnvironmentFault, RecsysError
from recsys_mtl.rank.card import ModelCard, ModelList
from serving.body import decode, read_body
from serving.fault import HttpFault, json_response
from serving.media import JSON, refuse_compressed
from serving.model_set import ServedModel
from serving.operation import Operation, Parameter, service_of
from serving.settings import ServedModels

__all__ = ["MODELS", "ModelInput", "ModelsInput", "ScoreInput"]


class ScoreInput(Struct, frozen=True, forbid_unknown_fields=True):
    """How predictions become the score, instead of how the recipe has it.

    Attributes:
        weights: By task; those not named count for nothing.
        kind: ``sum``: weights times predictions; ``product``: predictions to the power
            of their weights.
    """

    weights: dict[str, float]
    kind: Literal["sum", "product"] = "sum"


class ModelInput(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A model, as in the settings of a server.

    Attributes:
        bundle: Absolute path of its folder, where the server runs.
        name: To ask for it by; the recipe's name if left out.
        traffic: Share of the requests that name no model.
        score: Stands in for the recipe's.
    """

    bundle: str
    name: str | None = None
    traffic: float | None = None
    score: ScoreInput | None = None


class ModelsInput(Struct, frozen=True, forbid_unknown_fields=True):
    """All models that are to be served from now on."""

    models: list[ModelInput]


_INPUT = msgspec.json.Decoder(ModelsInput)


async def _models(request: Request) -> Response:
    models = service_of(request).models.models
    return json_response(ModelList([model.card for model in models]))


async def _model(request: Request) -> Response:
    return json_response(service_of(request).model(request.path_params["name"]).card)


async def _replace(request: Request) -> Response:
    service = service_of(request)
    refuse_compressed(request)
    body = await read_body(request, service.settings.limits)
    wanted = _wanted(decode(body, _INPUT))
    try:
        # A caller that leaves does not leave a swap half done.
        await asyncio.shield(service.swap_to(wanted))
    except EnvironmentFault as fault:
        raise HttpFault(
            HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", str(fault)
        ) from fault
    except RecsysError as fault:
        raise HttpFault(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "refused",
            f"{fault}; the models that were served go on",
            "models",
        ) from fault
    return await _models(request)


def _wanted(sent: ModelsInput) -> ServedModels:
    if not sent.models:
        raise _invalid("models", "must name one bundle or more, got none")
    for i, model in enumerate(sent.models):
        if not Path(model.bundle).is_absolute():
            raise _invalid(
                f"models[{i}].bundle",
                f"must be an absolute path, got {model.bundle[:200]!r}",
            )
    data = msgspec.to_builtins(sent)
    try:
        return ServedModels.model_validate(data).resolved()
    except ValidationError as error:
        first = describe(ServedModels, data, error)[0]
        raise _invalid(path_text(first.key), first.sentence) from error


def _invalid(field: str, message: str) -> HttpFault:
    return HttpFault(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", message, field or None)


def _example(model: ServedModel) -> ModelsInput:
    folder = model.ranker.bundle.folder
    return ModelsInput([ModelInput(str(folder), model.name, traffic=1.0)])


MODELS = (
    Operation(
        method="GET",
        path="/v1/models",
        handle=_models,
        access="any",
        summary="Served models",
        answers={JSON: ModelList},
    ),
    Operation(
        method="PUT",
        path="/v1/models",
        handle=_replace,
        access="admin",
        summary="Serve other models",
        description="Bundles are verified, loaded and tried out with recent requests "
        "while the models before answer; then all replicas switch. Where anything is "
        "wrong, nothing changes. Sent again with what was served before, it is the way "
        "back.",
        takes={JSON: ModelsInput},
        examples={JSON: _example},
        answers={JSON: ModelList},
        faults=(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    ),
    Operation(
        method="GET",
        path="/v1/models/{name}",
        handle=_model,
        access="any",
        summary="A served model",
        answers={JSON: ModelCard},
        parameters=(
            Parameter("name", "path", "of the model", example=lambda model: model.name),
        ),
        faults=(HTTPStatus.NOT_FOUND,),
    ),
)
