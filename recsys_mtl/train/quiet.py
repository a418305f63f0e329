"""TorchRec and its parts, heard only by those who ask for detail."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

_LOUD = ("torchrec", "torch.fx._symbolic_trace", "torch.distributed", "fbgemm_gpu")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' warnings inside the block, unless debugging is on.

    They warn of choices that are ours (the planner's topology, a tensor type that the
    checkpoint needs), hundreds of lines a run. ``--verbose`` sets the level of our own
    logger to debug, and then everything is heard.
    """
    if logging.getLogger("recsys_mtl").isEnabledFor(logging.DEBUG):
        yield
        return
    before = {name: logging.getLogger(name).level for name in _LOUD}
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module in ("torch", "torchrec", "fbgemm_gpu"):
                warnings.filterwarnings("ignore", module=rf"{module}(\..*)?$")
            # Blamed on whoever touches the tensor.
            warnings.filterwarnings("ignore", message="Please use DTensor instead")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
