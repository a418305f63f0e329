"""Messages of the Open Inference Protocol v2, as types.

References:
    KServe, Open Inference Protocol, specification/protocol/inference_rest.md; NVIDIA
    Triton, binary tensor data extension.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from recsys_mtl.rank.request import ShortText

__all__ = [
    "Datatype",
    "InferError",
    "InferInput",
    "InferOutput",
    "InferParameters",
    "InferRequest",
    "InferResponse",
    "InputParameters",
    "Live",
    "ModelMetadata",
    "ModelReady",
    "OutputParameters",
    "Ready",
    "RepositoryModel",
    "RequestedOutput",
    "ServerMetadata",
    "TensorMetadata",
]

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]

Size = Annotated[int, Meta(ge=0, le=2**31)]

TensorData = Annotated[
    list[Any],
    Meta(
        extra_json_schema={
            "description": "values in row-major order, flat or nested; null where "
            "missing",
            "items": {"type": ["boolean", "number", "string", "array", "null"]},
        }
    ),
]


class _Input(Struct, frozen=True, forbid_unknown_fields=True):
    """Closed to names it does not know."""


class InputParameters(_Input, frozen=True):
    """How an input is sent: ``binary_data_size`` bytes behind the JSON, if set."""

    binary_data_size: Size | None = None


class InferInput(_Input, frozen=True):
    """A raw column.

    Attributes:
        name: Of the column; ``<column>:present`` is a BOOL tensor of the same shape,
            false where a value is missing.
        shape: ``[rows]`` or ``[rows, 1]``; ``[rows, entries]`` for lists.
        datatype: Of the values.
        parameters: Where the values are.
        data: The values, unless they are binary.
    """

    name: ShortText
    shape: Annotated[list[Size], Meta(max_length=2)]
    datatype: Datatype
    parameters: InputParameters = InputParameters()
    data: TensorData | None = None


class OutputParameters(_Input, frozen=True):
    """How an output is wanted: binary or not; as the request says, if null."""

    binary_data: bool | None = None


class RequestedOutput(_Input, frozen=True):
    """An output by name: a task, ``score``, or ``<task>.<detail>``."""

    name: ShortText
    parameters: OutputParameters = OutputParameters()


class InferParameters(_Input, frozen=True):
    """What holds for a whole request.

    Attributes:
        binary_data_output: Whether outputs are wanted binary.
        timeout: Microseconds after which nobody waits for the answer.
    """

    binary_data_output: bool = False
    timeout: Annotated[int, Meta(ge=1, le=2**53)] | None = None


class InferRequest(_Input, frozen=True):
    """Score rows, a tensor a raw column.

    Attributes:
        id: Comes back in the response; made by the server if left out.
        parameters: What holds for all of it.
        inputs: Raw columns; those left out are looked up by key.
        outputs: Those wanted; every task and ``score`` if left out.
    """

    inputs: list[InferInput]
    id: ShortText | None = None
    parameters: InferParameters = InferParameters()
    outputs: list[RequestedOutput] | None = None


class BinarySize(Struct, frozen=True):
    """How many of the bytes behind the JSON are an output's."""

    binary_data_size: int


class InferOutput(Struct, frozen=True):
    """A task's predictions, the score, or a detail; ``data`` unless it is binary."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: BinarySize | UnsetType = UNSET
    data: list[float] | UnsetType = UNSET


class InferResponse(Struct, frozen=True):
    """Outputs, a number a row each.

    Attributes:
        model_name: Which model answered.
        model_version: Of the model.
        id: Of the request.
        parameters: ``unknown_users`` and ``unknown_items``: how many rows were scored
            with defaults; ``timestamp`` and ``timestamp_from`` where the model knows a
            time.
        outputs: In the order asked for.
    """

    model_name: str
    model_version: str
    id: str | None
    parameters: dict[str, int | float | str]
    outputs: list[InferOutput]


class InferError(Struct, frozen=True):
    """Body of every response under ``/v2`` that is no success."""

    error: str


class ServerMetadata(Struct, frozen=True):
    """What the server is, and which extensions of the protocol it speaks."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(Struct, frozen=True):
    """A tensor; -1 stands for any length."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(Struct, frozen=True):
    """A model; every input is optional."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(Struct, frozen=True):
    """The process lives."""

    live: bool


class Ready(Struct, frozen=True):
    """A warm-up request went through."""

    ready: bool


class ModelReady(Struct, frozen=True):
    """The model is loaded and warm."""

    name: str
    ready: bool


class RepositoryModel(Struct, frozen=True):
    """A served model."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str
