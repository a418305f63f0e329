"""What is known of users and items, by key, beside what a request says.

Takes keys; gives raw cells, which of them are present, and how old they are. It must
not know networks or HTTP, and has no clock of its own.
"""

from recsys_mtl.entities.schema import EntitySchema
from recsys_mtl.entities.store import (
    KINDS,
    AbstractEntityStore,
    Cells,
    Found,
    Kind,
    StoredRow,
)

__all__ = [
    "KINDS",
    "AbstractEntityStore",
    "Cells",
    "EntitySchema",
    "Found",
    "Kind",
    "StoredRow",
]
