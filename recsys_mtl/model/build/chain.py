"""Chain specs -> chains."""

from recsys_mtl.config.chain import ChainSpec, IndependentSpec
from recsys_mtl.model.chains import AbstractChain, Independent

__all__ = ["build_chain"]


def build_chain(
    spec: ChainSpec,
    *,
    dim: int,  # noqa: ARG001
    tasks: tuple[str, ...],  # noqa: ARG001
) -> AbstractChain:
    """Build the chain that ``spec`` names.

    Args:
        spec: Which tasks follow one another, and how they are tied.
        dim: Width of a task's hidden vector.
        tasks: Names, in order.
    """
    match spec:
        case IndependentSpec():
            return Independent()
