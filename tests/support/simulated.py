"""The ``data`` section of a recipe that reads simulated rows."""

from typing import Any

__all__ = ["simulated"]


def simulated(*, rows: int, users: int, items: int, **split: float) -> dict[str, Any]:
    """Interactions, users and items of one simulation.

    Args:
        rows: How many interactions.
        users: How many there are.
        items: Likewise.
        **split: Shares of the rows, as ``valid`` and ``test``; the default's if left
            out.
    """
    return {
        "interactions": {
            "kind": "simulator",
            "rows": rows,
            "num_users": users,
            "num_items": items,
        },
        "users": {"source": {"kind": "simulator"}},
        "items": {"source": {"kind": "simulator"}},
        "keys": {"user": "user_id", "item": "item_id"},
        "timestamp": {"column": "time_ms", "unit": "ms"},
        "split": {"kind": "time"} | split,
    }
