"""What a feature-table folder says of itself."""

import hashlib
import json
from pathlib import Path
from typing import Any, final

from pydantic import ConfigDict, Field, ValidationError

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.config.task import AFTER_TRAINING
from recsys_mtl.errors import ArtifactError
from recsys_mtl.features.schema import Artifact, FeatureSchema, RawColumn

__all__ = [
    "FeatureManifest",
    "InputCounts",
    "SplitFiles",
    "TaskStats",
    "recipe_digest",
]

_FORMAT = 1
_FILE = "manifest.json"


class TaskStats(Artifact):
    """A task's labels in one split.

    Attributes:
        rows: Rows on which the task exists.
        positives: Rows with a label above 0; of a survival task, with an event.
        mean: Mean label; 0 without rows. Of a survival task, the mean time watched.
        log_mean: Mean of ``log(1 + label)``, likewise.
        log_std: Standard deviation of ``log(1 + label)``, likewise.
        positive_log_mean: Mean of ``log(label)`` over labels above 0.
        positive_log_std: Standard deviation of it.
        level_rows: Of an ordinal task, rows of each level.
        edges: Of a survival task in the training split, upper edges of its bins.
        hazards: Share of those who enter a bin whose event falls into it.
        weight_mean: Mean row weight over rows that have one; ``None`` for tasks
            without row weights.
        missing_weights: Rows without a row weight, which count as the mean.
    """

    rows: int
    positives: int
    mean: float
    log_mean: float
    log_std: float
    positive_log_mean: float = 0.0
    positive_log_std: float = 0.0
    level_rows: tuple[int, ...] = ()
    edges: tuple[float, ...] = ()
    hazards: tuple[float, ...] = ()
    weight_mean: float | None = None
    missing_weights: int = 0


class SplitFiles(Artifact):
    """The rows of one split.

    Attributes:
        rows: How many.
        parts: Names of the files inside the split's folder, in order.
        part_rows: Rows of each part.
    """

    rows: int
    parts: tuple[str, ...]
    part_rows: tuple[int, ...] = ()


class InputCounts(Artifact):
    """What was odd about the raw tables. Only bad lines and keyless rows are lost.

    Attributes:
        rows: Rows of the log that could be read.
        untimed: Rows of the log without a readable time.
        duplicates: Rows of the log that repeat user, item and time; they are kept.
        bad_lines: Lines of text that were skipped: too many or too few values.
        first_bad_lines: Where the first few stand.
        duplicate_entities: By table, rows that a later row of the same key replaced.
        keyless_entities: By table, rows without a key.
    """

    rows: int = 0
    untimed: int = 0
    duplicates: int = 0
    bad_lines: int = 0
    first_bad_lines: tuple[str, ...] = ()
    duplicate_entities: dict[str, int] = Field(default_factory=dict)
    keyless_entities: dict[str, int] = Field(default_factory=dict)


@final
class FeatureManifest(Artifact):
    """The table of contents of a feature-table folder.

    Attributes:
        format_version: Layout of the folder.
        recipe: The recipe that made it, as data.
        recipe_digest: See ``recipe_digest``.
        build_digest: The recipe's digest together with its input files'.
        feature_schema: The encoded columns; ``schema`` in the file.
        signature: The raw columns.
        splits: By split, its files.
        tasks: By task and split, its labels.
        counts: By split, then by feature, what was missing, unseen or unreadable.
        dropped: Rows that are in no split, counted by reason.
        input: What was odd about the raw tables.
    """

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    format_version: int = _FORMAT
    recipe: dict[str, Any]
    recipe_digest: str
    build_digest: str = ""
    # pydantic has an old method of the shorter name.
    feature_schema: FeatureSchema = Field(alias="schema")
    signature: tuple[RawColumn, ...]
    splits: dict[str, SplitFiles]
    tasks: dict[str, dict[str, TaskStats]]
    counts: dict[str, dict[str, dict[str, int]]] = Field(default_factory=dict)
    dropped: dict[str, int] = Field(default_factory=dict)
    input: InputCounts = InputCounts()

    @property
    def schema(self) -> FeatureSchema:  # type: ignore[override]
        """The encoded columns."""
        return self.feature_schema

    def save(self, folder: Path) -> None:
        """Write ``manifest.json``."""
        text = self.model_dump_json(indent=1)
        (folder / _FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "FeatureManifest":
        """Read ``manifest.json``.

        Raises:
            ArtifactError: It is missing, damaged, or of another format.
        """
        path = folder / _FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{path} cannot be read ({error}); build the feature tables first"
            ) from error
        version = data.get("format_version") if isinstance(data, dict) else None
        if version != _FORMAT:
            raise ArtifactError(
                f"{path} has format {version!r}, this version reads {_FORMAT}; rebuild "
                "the feature tables"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ArtifactError(
                f"{path} is damaged ({error}); rebuild the feature tables"
            ) from error


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256 of what shapes feature tables: data, features and tasks.

    A change of model, training or calibration leaves the tables as they are.
    """
    parts = recipe.model_dump(mode="json", include={"data", "features", "tasks"})
    for task in parts["tasks"]:
        for name in AFTER_TRAINING:
            task.pop(name, None)
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
