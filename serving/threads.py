"""How the threads of a process that scores share it."""

import sys
from typing import Final

import torch

__all__ = ["set_threads"]

_SWITCH_S: Final = 0.0005


def set_threads(compute: int) -> None:
    """Prepare a process in which one thread talks and another one scores.

    Both need Python's lock. The one that scores gives it up in every call of a kernel,
    and by default waits up to 5 ms to have it back from a busy event loop, as long as
    a whole batch takes: under load that costs a third of what is served.

    Args:
        compute: Threads of a kernel.
    """
    torch.set_num_threads(compute)
    sys.setswitchinterval(_SWITCH_S)
