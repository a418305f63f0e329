"""The engine of a bundle: chosen and exported when it is written, found when loaded."""

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import torch

from recsys_mtl.data.request_batch import RequestBatch
from recsys_mtl.engine import AbstractEngine, EagerEngine
from recsys_mtl.errors import ArtifactError, EnvironmentFault
from recsys_mtl.features.schema import Artifact
from recsys_mtl.model.request_network import RequestNetwork
from recsys_mtl.train.device import has_bf16

__all__ = ["PROGRAM", "EngineInfo", "StartedEngine", "load_engine", "write_program"]

PROGRAM: Final = "trunk.onnx"
_WORTH_IT = 100_000
"""Weights behind the bottom below which eager PyTorch takes well under a millisecond
for 500 candidates, and writing a program takes longer than it will ever save."""

_log = logging.getLogger(__name__)


class EngineInfo(Artifact):
    """What runs everything behind the bottom.

    Attributes:
        kind: Of the engine.
        why: One sentence.
    """

    kind: Literal["eager", "onnx"] = "eager"
    why: str = "written before there was another engine"


def write_program(
    wanted: Literal["auto", "eager", "onnx"],
    network: RequestNetwork,
    examples: Sequence[RequestBatch],
    folder: Path,
) -> EngineInfo:
    """Export the network's trunk into ``folder``, if that is wanted and can be done.

    Args:
        wanted: As the recipe says.
        network: What is exported.
        examples: On which program and network must agree.
        folder: Of the bundle.

    Raises:
        ArtifactError: ``onnx`` was asked for, and cannot be exported.
        EnvironmentFault: ``onnx`` was asked for, and is not installed.
    """
    size = sum(weight.numel() for weight in network.trunk.parameters())
    if wanted == "eager":
        return EngineInfo(kind="eager", why="the recipe says so")
    if wanted == "auto" and size < _WORTH_IT:
        return EngineInfo(kind="eager", why=f"{size:,} weights gain nothing by another")
    missing = [n for n in ("onnx", "onnxscript", "onnxruntime") if not _installed(n)]
    if missing:
        if wanted == "onnx":
            raise EnvironmentFault(
                f"export.engine onnx needs {', '.join(missing)}; install it, or set "
                "export.engine to eager"
            )
        return _fallback(f"{', '.join(missing)} is not installed")
    from recsys_mtl.engine.onnx import export_trunk

    try:
        if not examples:
            raise ArtifactError("there are no training rows to trace it with")
        export_trunk(network, examples, folder / PROGRAM)
    except Exception as error:  # exporters raise anything
        (folder / PROGRAM).unlink(missing_ok=True)
        reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
        if wanted == "onnx":
            raise ArtifactError(
                f"the network must be exportable to ONNX for export.engine onnx, got: "
                f"{reason}; set it to auto or eager"
            ) from error
        return _fallback(f"the network could not be exported: {reason}")
    return EngineInfo(kind="onnx", why="the fastest measured; see docs/engines.md")


class StartedEngine(NamedTuple):
    """What runs a network in this process.

    Attributes:
        engine: Scores requests.
        precision: Of its products.
        why: Why this engine, in one sentence.
    """

    engine: AbstractEngine
    precision: Literal["fp32", "bf16"]
    why: str


def load_engine(
    info: EngineInfo,
    network: RequestNetwork,
    folder: Path,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> StartedEngine:
    """Start the engine of a bundle, or what comes nearest where that cannot be had.

    Args:
        info: The engine for products in fp32.
        network: What it runs.
        folder: Of the bundle.
        precision: bf16: by PyTorch, where the processor multiplies it.

    Raises:
        ArtifactError: The program is there and does not load.
    """
    if precision == "bf16":
        if has_bf16(torch.device("cpu")):
            why = "the recipe says bf16, and the processor has it"
            return StartedEngine(EagerEngine(network, bf16=True), "bf16", why)
        _log.warning(
            "serving will multiply in fp32, not in bf16: this processor has no "
            "AVX512-BF16 and no AMX"
        )
    engine, why = _fp32_engine(info, network, folder)
    return StartedEngine(engine, "fp32", why)


def _fp32_engine(
    info: EngineInfo, network: RequestNetwork, folder: Path
) -> tuple[AbstractEngine, str]:
    if info.kind == "eager":
        return EagerEngine(network), info.why
    if not _installed("onnxruntime"):
        return EagerEngine(network), _fallback("onnxruntime is not installed").why
    from recsys_mtl.engine.onnx import OnnxEngine

    return OnnxEngine(network, folder / PROGRAM), info.why


def _fallback(reason: str) -> EngineInfo:
    _log.warning("serving will run eager PyTorch, not ONNX Runtime: %s", reason)
    return EngineInfo(kind="eager", why=reason)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
