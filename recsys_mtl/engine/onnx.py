"""Lookups in PyTorch, everything behind the bottom in ONNX Runtime."""

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from recsys_mtl.data.request_batch import RequestBatch
from recsys_mtl.engine._base import AbstractEngine
from recsys_mtl.errors import ArtifactError
from recsys_mtl.model.chains import Logits
from recsys_mtl.model.request_network import RequestNetwork, TrunkInput

__all__ = ["OnnxEngine", "export_trunk"]


@final
class OnnxEngine(AbstractEngine):
    """Runs a program that ``export_trunk`` wrote, on one thread.

    More threads share one small product and gain little; replicas share nothing.

    Args:
        network: The one that was exported; it looks up and pools.
        program: Where the program lies.

    Raises:
        ArtifactError: ONNX Runtime cannot load the program.
    """

    kind = "onnx"

    def __init__(self, network: RequestNetwork, program: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                program, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no common class but this
            raise ArtifactError(
                f"{program} cannot be loaded by ONNX Runtime "
                f"{onnxruntime.__version__}: {error}; build the bundle again"
            ) from error
        self._network = network
        self._names = [node.name for node in self._session.get_inputs()]

    def score(self, batch: RequestBatch) -> Logits:
        if batch.num_rows == 0:
            return self._network.no_logits()
        return self.run(self._network.trunk_input(batch))

    def run(self, inputs: TrunkInput) -> Logits:
        """Run the program alone."""
        given = _read(inputs, self._names)
        arrays = self._session.run(
            None, {name: np.asarray(given[name]) for name in self._names}
        )
        return tuple(torch.from_numpy(array) for array in arrays)


def export_trunk(
    network: RequestNetwork, examples: Sequence[RequestBatch], path: Path
) -> None:
    """Write what follows the bottom as an ONNX program, weights and all.

    Requests and candidates may be of any number when it runs.

    Args:
        network: To export.
        examples: Requests with candidates, of which the program must say what the
            network says.
        path: Of the file.

    Raises:
        ArtifactError: The program differs from the network on an example.
        Exception: Whatever the exporter raises where it lacks an operator.
    """
    inputs = _traceable(network, network.trunk_input(examples[0]))
    with _quiet():
        program = torch.onnx.export(
            network.trunk,
            inputs,
            dynamo=True,
            input_names=_names(len(inputs)),
            dynamic_shapes=(_dynamic(network, inputs),),
        )
    assert program is not None
    program.save(path)
    engine = OnnxEngine(network, path)
    for batch in examples:
        for one, other in zip(engine.score(batch), network.score(batch), strict=True):
            worst = float((one - other).abs().max()) if len(one) else 0.0
            if not worst <= _TOLERANCE:
                raise ArtifactError(
                    f"the ONNX program of the network must give its logits to "
                    f"{_TOLERANCE}, got a difference of {worst:.2g}; set `export."
                    "engine` to eager"
                )


_TOLERANCE = 1e-4


def _names(count: int) -> list[str]:
    return [f"input{number}" for number in range(count)]


def _read(inputs: TrunkInput, names: Sequence[str]) -> dict[str, np.ndarray]:
    # The exporter leaves out what has no influence, as a part without columns.
    given = dict(zip(_names(len(inputs)), inputs, strict=True))
    return {name: given[name].numpy() for name in names}


def _traceable(network: RequestNetwork, inputs: TrunkInput) -> TrunkInput:
    """Repeat rows up to numbers that no size of the network equals by chance.

    Tracing would take a number of rows that equals, say, that of tasks for the same.
    """
    sizes = {size for p in network.trunk.parameters() for size in p.shape}
    num_requests, num_rows = itertools.islice(
        (n for n in itertools.count(11) if n not in sizes), 2
    )

    def resized(x: Tensor, count: int) -> Tensor:
        return x[torch.arange(count) % len(x)].clone()

    if network.trunk.columns is None:
        return tuple(resized(x, num_rows) for x in inputs)
    shared_RU, own_NI, _, *contexts = inputs
    request_N = torch.arange(num_rows) * num_requests // num_rows
    rest = (resized(context, num_rows) for context in contexts)
    return (
        resized(shared_RU, num_requests),
        resized(own_NI, num_rows),
        request_N,
        *rest,
    )


def _dynamic(
    network: RequestNetwork, inputs: Sequence[Tensor]
) -> tuple[dict[int, torch.export.Dim], ...]:
    # Zero requests or candidates are no input; one must not become a constant.
    rows = {0: torch.export.Dim("rows", min=1)}
    if network.trunk.columns is None:
        return (rows,) * len(inputs)
    requests = {0: torch.export.Dim("requests", min=1)}
    return (requests, *(rows,) * (len(inputs) - 1))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter has to say about its progress to itself."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
