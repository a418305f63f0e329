"""What a ranker says of itself."""

from typing import Literal

from msgspec import Struct

__all__ = ["EngineCard", "InputColumn", "ModelCard", "ModelList", "Scoring", "TaskCard"]


class InputColumn(Struct, frozen=True):
    """A raw column that a request may give.

    Attributes:
        name: As in the recipe; of histories, ``<history>.<raw column>``.
        type: What its values are.
        origin: Whose it is: the user's, the item's, or the impression's (context).
        role: Why it is read: a key to look things up by, the time of the impression, a
            feature, or events of a history.
        unit: Of times; null otherwise.
    """

    name: str
    type: str
    origin: Literal["context", "user", "item"]
    role: Literal["key", "timestamp", "feature", "history"]
    unit: str | None = None


class TaskCard(Struct, frozen=True):
    """A task.

    Attributes:
        name: As in the recipe.
        kind: ``binary`` predicts a probability, ``value`` an amount, ``ordinal`` the
            expected level, ``survival`` the expected time.
        details: What there is to tell beside the prediction.
    """

    name: str
    kind: str
    details: list[str] = []


class Scoring(Struct, frozen=True):
    """How predictions become the score that items are sorted by.

    Attributes:
        version: Changes whenever weights or a calibrator do.
        kind: ``sum``: weights times predictions; ``product``: predictions to the power
            of their weights.
        weights: By task; those not named count for nothing.
        calibration: By task that has any, the steps from the network's prediction to
            the one told, joined by ``+``.
    """

    version: str
    kind: Literal["sum", "product"]
    weights: dict[str, float]
    calibration: dict[str, str]


class EngineCard(Struct, frozen=True):
    """What runs a network, see docs/engines.md.

    Attributes:
        kind: ``eager`` is PyTorch alone, ``onnx`` ONNX Runtime behind the lookups.
        why: One sentence.
        tables: Numbers of the embedding tables.
        precision: Of products: ``fp32``, or ``bf16`` where the processor has it.
    """

    kind: str
    why: str
    tables: str
    precision: str


class ModelCard(Struct, frozen=True):
    """A served model.

    Attributes:
        name: To ask for it by.
        version: Changes whenever the bundle does.
        created: When the bundle was written, ISO 8601.
        description: The recipe's.
        tasks: In the order of the recipe.
        scoring: How predictions become the score.
        signature: What a request may give.
        metrics: By task, as the evaluation found them.
        engine: What runs the network.
    """

    name: str
    version: str
    created: str
    description: str
    tasks: list[TaskCard]
    scoring: Scoring
    signature: list[InputColumn]
    metrics: dict[str, dict[str, float]]
    engine: EngineCard


class ModelList(Struct, frozen=True):
    """All served models; the first answers requests that name none."""

    models: list[ModelCard]
