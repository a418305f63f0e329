"""Scores -> tensors of an inference response."""

from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import UNSET

from recsys_mtl.errors import RequestError
from recsys_mtl.rank.card import ModelCard
from recsys_mtl.rank.column import unknown_name
from recsys_mtl.rank.request import ScoreResponse
from serving.tensor_message import (
    BinarySize,
    InferOutput,
    InferRequest,
    InferResponse,
    RequestedOutput,
)

__all__ = ["chosen_outputs", "output_names", "write_response"]

SCORE = "score"


def output_names(card: ModelCard) -> dict[str, tuple[str, str | None]]:
    """Give all outputs of a model, each with its task and its detail, if it is one.

    Predictions and the score come first; details are told to those who name them.
    """
    names: dict[str, tuple[str, str | None]] = {
        task.name: (task.name, None) for task in card.tasks
    }
    names[SCORE] = (SCORE, None)
    for task in card.tasks:
        for detail in task.details:
            names[f"{task.name}.{detail}"] = (task.name, detail)
    return names


def chosen_outputs(request: InferRequest, card: ModelCard) -> list[RequestedOutput]:
    """Give the outputs to tell: those named, or every task and the score.

    Raises:
        RequestError: There is none of that name, or it is named twice.
    """
    names = output_names(card)
    if request.outputs is None:
        return [RequestedOutput(name) for name, (_, of) in names.items() if of is None]
    seen: set[str] = set()
    for i, output in enumerate(request.outputs):
        field = f"outputs[{i}].name"
        if output.name not in names:
            raise unknown_name(field, output.name, names)
        if output.name in seen:
            raise RequestError(field, f"names {output.name!r} a second time")
        seen.add(output.name)
    return request.outputs


def write_response(
    response: ScoreResponse,
    outputs: Sequence[RequestedOutput],
    card: ModelCard,
    *,
    binary: bool,
) -> tuple[bytes, int | None]:
    """Write a response.

    Args:
        response: As the ranker gives it.
        outputs: Those to tell.
        card: Of the model that answered.
        binary: Whether outputs that do not say so themselves are binary.

    Returns:
        The body, and the length of its JSON if anything binary follows that.
    """
    names = output_names(card)
    told: list[InferOutput] = []
    behind: list[bytes] = []
    any_binary = False
    for output in outputs:
        numbers = _numbers(response, *names[output.name])
        wanted = output.parameters.binary_data
        if binary if wanted is None else wanted:
            any_binary = True
            packed = np.asarray(numbers, "<f8").tobytes()
            behind.append(packed)
            told.append(
                InferOutput(
                    output.name, "FP64", [len(numbers)], BinarySize(len(packed))
                )
            )
        else:
            told.append(
                InferOutput(output.name, "FP64", [len(numbers)], data=list(numbers))
            )
    parameters: dict[str, int | float | str] = {
        "unknown_users": len(response.unknown.users),
        "unknown_items": len(response.unknown.items),
    }
    if response.timestamp is not None and response.timestamp_from is not None:
        parameters["timestamp"] = response.timestamp
        parameters["timestamp_from"] = response.timestamp_from
    head = msgspec.json.encode(
        InferResponse(
            response.model, response.version, response.request_id, parameters, told
        )
    )
    return b"".join([head, *behind]), len(head) if any_binary else None


def _numbers(response: ScoreResponse, task: str, detail: str | None) -> list[float]:
    if detail is not None:
        assert response.details is not UNSET, "asked for with the request"
        return response.details[task][detail]
    return response.score if task == SCORE else response.predictions[task]
