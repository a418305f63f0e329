"""The events of a history become one vector a field."""

from recsys_mtl.model.embeddings.pooling._base import (
    AbstractPooling,
    repeat_events,
    sum_events,
)
from recsys_mtl.model.embeddings.pooling.bert4rec import (
    Bert4Rec,
    EventEncoder,
    MaskedGuess,
)
from recsys_mtl.model.embeddings.pooling.din import TargetAttention
from recsys_mtl.model.embeddings.pooling.mean import MeanPooling

__all__ = [
    "AbstractPooling",
    "Bert4Rec",
    "EventEncoder",
    "MaskedGuess",
    "MeanPooling",
    "TargetAttention",
    "repeat_events",
    "sum_events",
]
