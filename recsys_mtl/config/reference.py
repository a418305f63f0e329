"""What no single spec can see: names that refer to nothing, options without effect."""

import difflib
from collections.abc import Iterable, Sequence

from recsys_mtl.config.bottom import BottomSpec, DTRNSpec, FlatSpec
from recsys_mtl.config.chain import AITMSpec, ChainSpec, ESMMSpec, IndependentSpec
from recsys_mtl.config.data import DataSpec
from recsys_mtl.config.feature import (
    AggregateFeature,
    AttentionPooling,
    Bert4RecPooling,
    CategoricalFeature,
    CrossFeature,
    FeatureSpec,
    HistoryFeature,
    ListFeature,
    MeanPooling,
    NumericFeature,
    QuantileFeature,
    TimePartFeature,
)
from recsys_mtl.config.score import ScoreSpec
from recsys_mtl.config.task import TaskSpec
from recsys_mtl.config.tower import FinalMLPSpec, TowerSpec, WideDeepSpec
from recsys_mtl.config.train import EarlyStopping, TrainSpec

__all__ = [
    "METRICS",
    "bottom_faults",
    "chain_faults",
    "feature_faults",
    "near",
    "pooling_faults",
    "task_faults",
    "tower_faults",
    "width_faults",
]

_FUSED_WIDTH = 4
"""FBGEMM's fused kernels read rows in blocks of so many numbers."""

METRICS = {
    "binary": ("auc", "gauc", "log_loss", "normalised_entropy"),
    "value": ("rmse", "mae", "rank_correlation"),
    "ordinal": ("mae", "kappa", "rank_correlation", "log_loss"),
    "survival": ("c_index", "c_index_uno", "integrated_brier", "ece"),
}
"""Metrics by kind of task that training may select its weights by."""


def feature_faults(
    data: DataSpec, features: Sequence[FeatureSpec], tasks: Sequence[TaskSpec]
) -> list[str]:
    """Find what is wrong between features and the rest, each as ``path: sentence``."""
    faults = _twice("features", [feature.name for feature in features])
    labels = {column: task.name for task in tasks for column in task.label_columns}
    events = [
        feature.name
        for feature in features
        if isinstance(feature, CategoricalFeature | QuantileFeature)
    ]
    read = {
        field
        for feature in features
        if isinstance(feature, HistoryFeature)
        for field in feature.fields
    }
    for i, feature in enumerate(features):
        where = f"features[{i}]"
        faults += _missing_keys(where, data, feature)
        faults += [
            f"{where}: feature {feature.name!r} reads {column!r}, which is the label "
            f"of task {labels[column]!r}; take it out, or read it in histories alone "
            "(history_only: true)"
            for column in _columns(feature)
            if column in labels
        ]
        if isinstance(feature, HistoryFeature):
            faults += [
                f"{where}.fields[{k}]: history {feature.name!r} reads {field!r}, which "
                f"is no categorical or quantile feature{near(field, events)}"
                for k, field in enumerate(feature.fields)
                if field not in events
            ]
            faults += [
                f"{where}.fields[{k}]: history {feature.name!r} names {field!r} twice; "
                "take one out"
                for k, field in enumerate(feature.fields)
                if field in feature.fields[:k]
            ]
            faults += _match_faults(where, feature, features)
            if feature.keep < feature.length:
                faults.append(
                    f"{where}.keep: must be at least length, got keep {feature.keep} "
                    f"and length {feature.length}"
                )
        elif getattr(feature, "history_only", False) and feature.name not in read:
            faults.append(
                f"{where}.history_only: has no effect, for no history reads "
                f"{feature.name!r}; name it in the fields of a history, or take it out"
            )
    return faults


def _match_faults(
    where: str, history: HistoryFeature, features: Sequence[FeatureSpec]
) -> Iterable[str]:
    own = [
        feature.name
        for feature in features
        if isinstance(feature, CategoricalFeature)
        and not feature.history_only
        and feature.name in history.fields
    ]
    for k, name in enumerate(history.match):
        if name not in own:
            yield (
                f"{where}.match[{k}]: history {history.name!r} matches {name!r}, which "
                f"must be one of its fields, categorical, and not history_only"
                f"{near(name, own)}"
            )


def task_faults(
    data: DataSpec,
    tasks: Sequence[TaskSpec],
    stopping: EarlyStopping,
    score: ScoreSpec | None,
) -> list[str]:
    """Find what is wrong between tasks and the rest, each as ``path: sentence``."""
    names = [task.name for task in tasks]
    faults = _twice("tasks", names)
    if "mean" in names:
        faults.append(
            f"tasks[{names.index('mean')}].name: must not be 'mean', which stands for "
            "all tasks in train.early_stopping.metric"
        )
    if score is not None:
        faults += [
            f"score.weights.{name}: weighs {name!r}, which is no task"
            f"{near(name, names)}"
            for name in score.weights
            if name not in names
        ]
    return faults + [
        f"train.early_stopping.metric: {sentence}"
        for sentence in _metric_faults(data, tasks, stopping.metric)
    ]


def tower_faults(
    tower: TowerSpec, numeric: str, features: Sequence[FeatureSpec]
) -> list[str]:
    """Find what is wrong between a model and the columns it reads."""
    numbers = [column for feature in features for column in _numbers(feature)]
    ids = [
        feature.name
        for feature in features
        if not isinstance(feature, NumericFeature | AggregateFeature | HistoryFeature)
        and not getattr(feature, "history_only", False)
    ]
    named: dict[str, tuple[str, ...]] = {}
    if isinstance(tower, FinalMLPSpec):
        named["model.tower.first.context"] = tower.first.context
        named["model.tower.second.context"] = tower.second.context
    elif isinstance(tower, WideDeepSpec):
        named["model.tower.wide"] = tower.wide
    faults: list[str] = []
    for where, columns in named.items():
        for k, column in enumerate(columns):
            if column not in (*ids, *numbers):
                faults.append(
                    f"{where}[{k}]: names {column!r}, which is no column of the scored "
                    f"row{near(column, [*ids, *numbers])}"
                )
            elif column in columns[:k]:
                faults.append(f"{where}[{k}]: {column!r} is named twice; take one out")
    if numeric == "linear" and not numbers:
        faults.append(
            "model.embedding.numeric: has no effect, for no feature is a number; take "
            "it out"
        )
    return faults


def _numbers(feature: FeatureSpec) -> tuple[str, ...]:
    """Encoded columns of numbers that a feature gives."""
    if isinstance(feature, AggregateFeature):
        return f"{feature.name}.count", f"{feature.name}.rate"
    return (feature.name,) if isinstance(feature, NumericFeature) else ()


def width_faults(dim: int, train: TrainSpec) -> list[str]:
    """Find what is wrong between the width of embeddings and their optimizer."""
    kind = train.embedding_optimizer.kind
    if kind != "rowwise_adagrad" or dim % _FUSED_WIDTH == 0:
        return []
    above = dim + _FUSED_WIDTH - dim % _FUSED_WIDTH
    return [
        f"model.embedding.dim: must be a multiple of {_FUSED_WIDTH} for "
        f"train.embedding_optimizer {kind!r}, got {dim}; take {above}, or the "
        "optimizer 'adam'"
    ]


def bottom_faults(
    bottom: BottomSpec, numeric: str, features: Sequence[FeatureSpec]
) -> list[str]:
    """Find what is wrong between bottom and features, each as ``path: sentence``."""
    if isinstance(bottom, FlatSpec):
        return []
    faults: list[str] = []
    if numeric == "raw" and all(
        isinstance(feature, NumericFeature | AggregateFeature) for feature in features
    ):
        faults.append(
            f"model.bottom.kind: {bottom.kind!r} reads vectors, but all features are "
            "numbers; add a feature with vectors, as a categorical one, set "
            "model.embedding.numeric to 'linear', or take the bottom 'flat'"
        )
    if isinstance(bottom, DTRNSpec):
        faults += [
            f"features[{i}].pooling.kind: must be 'mean' or 'din' under model.bottom "
            f"'dtrn', which lets the events of history {feature.name!r} read each "
            f"other itself, got {feature.pooling.kind!r}; take one of the two, or the "
            "bottom 'flat'"
            for i, feature in enumerate(features)
            if isinstance(feature, HistoryFeature)
            and not isinstance(feature.pooling, MeanPooling | AttentionPooling)
        ]
    return faults


def pooling_faults(dim: int, features: Sequence[FeatureSpec]) -> list[str]:
    """Find histories whose events do not fit their pooling."""
    faults: list[str] = []
    for i, feature in enumerate(features):
        if isinstance(feature, HistoryFeature) and isinstance(
            feature.pooling, Bert4RecPooling
        ):
            count = len(feature.fields) + feature.gaps
            if count * dim % feature.pooling.num_heads:
                faults.append(
                    f"features[{i}].pooling.num_heads: must divide the width of an "
                    f"event, {count} vectors of model.embedding.dim {dim}, "
                    f"{count * dim} in all; got {feature.pooling.num_heads}"
                )
    return faults


def chain_faults(chain: ChainSpec, tasks: Sequence[TaskSpec]) -> list[str]:
    """Find what is wrong between chain and tasks, each as ``path: sentence``."""
    if isinstance(chain, IndependentSpec):
        return []
    by_name = {task.name: task for task in tasks}
    binary = [task.name for task in tasks if task.kind == "binary"]
    faults: list[str] = []
    for k, name in enumerate(chain.steps):
        where = f"model.chain.steps[{k}]"
        task = by_name.get(name)
        if name in chain.steps[:k]:
            faults.append(f"{where}: {name!r} is a step already; name each task once")
        elif task is None:
            faults.append(
                f"{where}: names {name!r}, which is no task{near(name, binary)}"
            )
        elif task.kind != "binary":
            faults.append(
                f"{where}: must be a binary task, for a step happens or does not; got "
                f"{task.kind} task {name!r}{near(name, binary)}"
            )
        else:
            before = by_name.get(chain.steps[k - 1]) if k else None
            faults += _space_faults(where, chain, before, task)
    return faults


def _space_faults(
    where: str, chain: ESMMSpec | AITMSpec, before: TaskSpec | None, task: TaskSpec
) -> Iterable[str]:
    if isinstance(chain, ESMMSpec):
        if task.sample_space is not None:
            yield (
                f"{where}: step {task.name!r} must exist on all rows, for 'esmm' "
                "learns its probability over the entire space; got a sample_space; "
                "take it out of the task, with a label of 0 where the step before did "
                "not happen"
            )
    elif (
        before is not None
        and chain.calibrator_weight > 0.0
        and task.sample_space != before.sample_space
    ):
        yield (
            f"{where}: step {task.name!r} must exist on the same rows as step "
            f"{before.name!r}, for the calibrator holds it to be no likelier; got "
            "another sample_space; take it out of the task, with a label of 0 where "
            "the step before did not happen, or set model.chain.calibrator_weight to 0"
        )


def _metric_faults(
    data: DataSpec, tasks: Sequence[TaskSpec], metric: str
) -> Iterable[str]:
    task_name, dot, name = metric.partition(".")
    names = [task.name for task in tasks]
    if not dot:
        yield f"must be TASK.METRIC or mean.METRIC, got {metric!r}"
        return
    if task_name not in (*names, "mean"):
        yield (
            f"names {task_name!r}, which is neither 'mean' nor a task"
            f"{near(task_name, [*names, 'mean'])}"
        )
        return
    of = [task.kind for task in tasks if task_name in ("mean", task.name)]
    allowed = [metric for kind in dict.fromkeys(of) for metric in METRICS[kind]]
    if name not in allowed:
        owner = "any task" if task_name == "mean" else f"{of[0]} task {task_name!r}"
        yield f"names {name!r}, which is no metric of {owner}{near(name, allowed)}"
    elif name == "gauc" and data.keys.user is None:
        yield "gauc groups by data.keys.user, which is left out"


def _missing_keys(where: str, data: DataSpec, feature: FeatureSpec) -> Iterable[str]:
    needs: list[str] = []
    if isinstance(feature, TimePartFeature | HistoryFeature | AggregateFeature):
        needs += ["data.timestamp"] if data.timestamp is None else []
    if isinstance(feature, HistoryFeature) and data.keys.user is None:
        needs.append("data.keys.user")
    if isinstance(feature, AggregateFeature):
        key = data.keys.user if feature.by == "user" else data.keys.item
        needs += [f"data.keys.{feature.by}"] if key is None else []
    for need in needs:
        yield (
            f"{where}: feature {feature.name!r} of kind {feature.kind!r} needs {need}, "
            "which is left out"
        )


def _columns(feature: FeatureSpec) -> tuple[str, ...]:
    """Raw columns that a feature reads of the row that is scored."""
    if isinstance(feature, CategoricalFeature | QuantileFeature):
        return () if feature.history_only else (feature.column or feature.name,)
    if isinstance(feature, NumericFeature | ListFeature):
        return (feature.column or feature.name,)
    return feature.columns if isinstance(feature, CrossFeature) else ()


def _twice(where: str, names: list[str]) -> list[str]:
    return [
        f"{where}[{i}].name: {name!r} is taken by {where}[{names.index(name)}]; names "
        "must differ"
        for i, name in enumerate(names)
        if names.index(name) < i
    ]


def near(got: str, allowed: Sequence[str]) -> str:
    """End a sentence with the nearest valid name and with all of them.

    Example:
        >>> near("clik", ["click", "like"])
        "; did you mean 'click'? Allowed: click, like"
    """
    close = difflib.get_close_matches(got, allowed, n=1)
    hint = f"; did you mean {close[0]!r}? A" if close else "; a"
    return f"{hint}llowed: {', '.join(dict.fromkeys(allowed)) or 'none'}"
