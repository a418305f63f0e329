"""The routes of the app: a file a family, each a list of operations.

Takes bytes and headers, gives bytes and headers; must not know queues or clocks.
"""

from serving.operation import Operation
from serving.routes.documentation import DOCUMENTATION
from serving.routes.entities import ENTITIES
from serving.routes.health import HEALTH
from serving.routes.inference import INFERENCE
from serving.routes.models import MODELS
from serving.routes.observability import OBSERVABILITY
from serving.routes.ranking import RANKING

__all__ = ["OPERATIONS"]

OPERATIONS: tuple[Operation, ...] = (
    *RANKING,
    *INFERENCE,
    *ENTITIES,
    *MODELS,
    *OBSERVABILITY,
    *HEALTH,
    *DOCUMENTATION,
)
"""Every route, in the order of the documentation."""
