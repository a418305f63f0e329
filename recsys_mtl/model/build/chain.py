"""Chain specs -> chains."""

from typing import assert_never

from recsys_mtl.config.chain import AITMSpec, ChainSpec, ESMMSpec, IndependentSpec
from recsys_mtl.model.chains import AITM, ESMM, AbstractChain, Independent

__all__ = ["build_chain"]


def build_chain(spec: ChainSpec, *, dim: int, tasks: tuple[str, ...]) -> AbstractChain:
    """Build the chain that ``spec`` names.

    Args:
        spec: Which tasks follow one another, and how they are tied.
        dim: Width of a task's hidden vector.
        tasks: Names, in order.
    """
    match spec:
        case IndependentSpec():
            return Independent()
        case ESMMSpec(steps=steps):
            return ESMM(tuple(map(tasks.index, steps)))
        case AITMSpec(steps=steps, dropout=dropout, calibrator_weight=weight):
            return AITM(
                dim,
                tuple(map(tasks.index, steps)),
                dropout=dropout,
                calibrator_weight=weight,
            )
        case _:
            assert_never(spec)
