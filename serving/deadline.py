"""How long a caller waits, from the header of its request."""

import math
import re
from http import HTTPStatus

from starlette.requests import Request

from serving.fault import HttpFault
from serving.operation import Parameter

__all__ = ["DEADLINE", "deadline_of"]

_HEADER = "x-request-timeout-seconds"  # as Ray Serve calls it

# float() alone would take "nan", "1_0" and digits of other scripts. Each digit matches
# in one way only: of tens of thousands, not every division must be tried.
_PLAIN = re.compile(r"\s*(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")

DEADLINE = Parameter(
    _HEADER,
    "header",
    "time after which nobody waits for the answer, in seconds; late ones get 504",
    schema={"type": "number", "exclusiveMinimum": 0},
)


def deadline_of(request: Request) -> float | None:
    """Read how many seconds the caller waits, if it says so.

    Raises:
        HttpFault: 422 for what is no number of seconds above 0.
    """
    given = request.headers.get(_HEADER)
    if given is None:
        return None
    seconds = float(given) if _PLAIN.fullmatch(given) else math.nan
    if not 0.0 < seconds < math.inf:
        raise HttpFault(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "invalid",
            f"must be a number of seconds above 0, as in 0.25, got {given[:40]!r}",
            _HEADER,
        )
    return seconds
