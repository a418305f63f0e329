"""A bundle -> its model card."""

from typing import Literal

from recsys_mtl.config.feature import HistoryFeature
from recsys_mtl.export.bundle import Bundle
from recsys_mtl.rank.card import EngineCard, InputColumn, ModelCard, Scoring, TaskCard

__all__ = ["card_of"]


def card_of(bundle: Bundle, scoring: Scoring) -> ModelCard:
    """Describe a bundle that is served with this scoring."""
    recipe, info = bundle.recipe, bundle.info
    return ModelCard(
        name=recipe.name,
        version=bundle.version,
        created=info.created,
        description=recipe.description,
        tasks=[
            TaskCard(task.name, task.kind, list(details))
            for task, details in zip(
                recipe.tasks, bundle.heads.detail_names, strict=True
            )
        ],
        scoring=scoring,
        signature=_signature(bundle),
        metrics=info.metrics,
        engine=EngineCard(
            kind=bundle.engine.kind,
            why=bundle.files.started.why,
            tables=info.tables.kind,
            precision=bundle.files.started.precision,
        ),
    )


def _signature(bundle: Bundle) -> list[InputColumn]:
    """Say why each raw column is read; leave out what a caller cannot know yet."""
    data = bundle.recipe.data
    histories = tuple(
        f"{feature.name}."
        for feature in bundle.recipe.features
        if isinstance(feature, HistoryFeature)
    )
    columns = []
    for column in bundle.signature:
        if column.history_only:
            continue
        role: Literal["key", "timestamp", "feature", "history"] = "feature"
        unit, origin = None, column.origin
        # Impressions have both keys, and each says whose it is.
        if column.name == data.keys.user:
            role, origin = "key", "user"
        elif column.name == data.keys.item:
            role, origin = "key", "item"
        elif data.timestamp is not None and column.name == data.timestamp.column:
            role, unit = "timestamp", data.timestamp.unit
        elif column.name.startswith(histories):
            role = "history"
            if data.timestamp is not None and column.name.endswith(".time"):
                unit = data.timestamp.unit
        columns.append(InputColumn(column.name, column.type, origin, role, unit))
    return columns
