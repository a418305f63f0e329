"""Everything an x-ray found, as figures: the contents of ``xray.json``."""

from typing import Literal

from recsys_mtl.features.schema import Artifact

__all__ = [
    "Agreement",
    "ExpertHealth",
    "FeatureImportance",
    "Finding",
    "GateHealth",
    "LevelHealth",
    "Subject",
    "TableHealth",
    "XRay",
]

Subject = Literal[
    "collapse", "degradation", "underfitting", "conflict", "tables", "features"
]


class ExpertHealth(Artifact):
    """What one expert says, over rows and units.

    Attributes:
        name: Unique in its level, as ``shared 2``.
        owner: ``shared``, ``group NAME`` or the task's name.
        zero_share: Share of its outputs that are exactly 0.
        dead_units: Share of its units that are 0 on every row.
        scale: Standard deviation of its outputs.
        relative_scale: That over the median of the level's other experts; ``None``
            if they say nothing or there are none.
        readers: Gates that see it and are no shared gate.
        users: Those of them that give it a weight worth the name.
    """

    name: str
    owner: str
    zero_share: float
    dead_units: float
    scale: float
    relative_scale: float | None
    readers: tuple[str, ...]
    users: tuple[str, ...]


class GateHealth(Artifact):
    """How one gate mixes.

    Attributes:
        reader: Who reads the mixture.
        visible: Number of experts that it sees.
        weights: Of each expert, mean over rows; they add up to 1.
        entropy: Of the weights in a row, mean over rows, as a share of the largest
            possible; ``None`` with a single expert.
    """

    reader: str
    visible: int
    weights: tuple[float, ...]
    entropy: float | None


class LevelHealth(Artifact):
    """One level of a gating.

    Attributes:
        name: As the gating has it.
        experts: Of the level.
        gates: Of the level.
        gradients: For each task the share of each expert in the norms of its
            gradient; a task without labels is left out.
        own_share: For each task that has experts of its own beside shared ones, the
            part of its gradient's norms that goes to its own.
        fair_share: For the same tasks, its own experts among those.
    """

    name: str
    experts: tuple[ExpertHealth, ...]
    gates: tuple[GateHealth, ...]
    gradients: dict[str, tuple[float, ...]]
    own_share: dict[str, float]
    fair_share: dict[str, float]


class Agreement(Artifact):
    """Cosines between tasks at one check of the training."""

    step: int
    cosines: dict[str, dict[str, float]]


class TableHealth(Artifact):
    """One embedding table, and how often training rows read it.

    Attributes:
        name: The first column that reads it.
        columns: Encoded columns that read it.
        rows: Vectors that it has.
        dim: Their width.
        lookups: How often training rows read a vector.
        untouched: Vectors of values that no training row has, those for missing and
            for unseen values left out.
        missing_lookups: How often the vector for missing values was read.
        unseen_lookups: How often that for unseen values was read.
        unseen_later: Unseen values among validation and test rows.
        norms: Mean norm of the vectors in tenths of those that were read, from the
            rarest tenth to the most frequent.
        untouched_norm: Mean norm of the untouched; ``None`` if there are none.
    """

    name: str
    columns: tuple[str, ...]
    rows: int
    dim: int
    lookups: int
    untouched: int
    missing_lookups: int
    unseen_lookups: int
    unseen_later: int
    norms: tuple[float, ...]
    untouched_norm: float | None


class FeatureImportance(Artifact):
    """What one task loses when one feature's values are dealt out to other rows.

    Attributes:
        feature: Name in the recipe.
        task: Name in the recipe.
        metric: ``auc``, of which it is the fall, or ``loss``, of which it is the rise.
        loss: Mean over shuffles.
        low: Lower end of the interval; see ``recsys_mtl.xray.importance``.
        high: Upper end.
        shuffles: Of each shuffle.
    """

    feature: str
    task: str
    metric: Literal["auc", "loss"]
    loss: float
    low: float
    high: float
    shuffles: tuple[float, ...]

    @property
    def matters(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low > 0


class Finding(Artifact):
    """One sentence about one part, with its threshold.

    Attributes:
        subject: Which question it answers.
        state: ``fine``, ``found``, or ``moot`` where the question does not arise.
        says: What was found.
        advice: What to change in the recipe; empty if nothing.
    """

    subject: Subject
    state: Literal["fine", "found", "moot"]
    says: str
    advice: str = ""


class XRay(Artifact):
    """All of it.

    Attributes:
        name: Of the recipe.
        bundle: Version of the bundle.
        split: Whose rows were read.
        rows: How many.
        tasks: Names.
        levels: Of the gating, from the input to the output.
        cosines: Between the tasks' gradients, over all rows read.
        history: The same at every check of the training, on 512 validation rows.
        tables: Embedding tables.
        features: By feature and task.
        baseline: AUC, or mean loss, of each task with no feature shuffled.
        findings: In words.
    """

    name: str
    bundle: str
    split: str
    rows: int
    tasks: tuple[str, ...]
    levels: tuple[LevelHealth, ...]
    cosines: dict[str, dict[str, float]]
    history: tuple[Agreement, ...]
    tables: tuple[TableHealth, ...]
    features: tuple[FeatureImportance, ...]
    baseline: dict[str, float]
    findings: tuple[Finding, ...]
