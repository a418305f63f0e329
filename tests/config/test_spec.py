"""Every spec of a recipe: it parses, it round-trips, and it has no idle options."""

import typing

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from recsys_mtl.config.bottom import BottomSpec
from recsys_mtl.config.calibration import CalibrationSpec
from recsys_mtl.config.chain import ChainSpec
from recsys_mtl.config.data import DataSpec, SplitSpec
from recsys_mtl.config.feature import EncoderSpec, FeatureSpec, PoolingSpec
from recsys_mtl.config.gating import GatingSpec
from recsys_mtl.config.model import ModelSpec
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.config.score import ScoreSpec
from recsys_mtl.config.source import EntitySource, InteractionSource
from recsys_mtl.config.task import TaskSpec
from recsys_mtl.config.tower import TowerSpec
from recsys_mtl.config.train import EmbeddingOptimizerSpec, ScheduleSpec

WHERE = {"column": "c", "equals": 1}

# One of every kind, by union.
KINDS = [
    (InteractionSource, {"kind": "parquet", "path": "a"}),
    (InteractionSource, {"kind": "arrow", "path": ["a", "b"]}),
    (InteractionSource, {"kind": "csv", "path": "a", "delimiter": "\t"}),
    (InteractionSource, {"kind": "simulator", "rows": 5, "num_users": 1}),
    (SplitSpec, {"kind": "time"}),
    (SplitSpec, {"kind": "hash", "column": "user"}),
    (SplitSpec, {"kind": "column", "column": "split"}),
    (SplitSpec, {"kind": "file", "train": "a", "valid": "b", "test": "c"}),
    (EncoderSpec, {"kind": "vocabulary", "min_count": 2}),
    (EncoderSpec, {"kind": "hash", "buckets": 3}),
    (FeatureSpec, {"kind": "categorical", "name": "x"}),
    (FeatureSpec, {"kind": "numeric", "name": "x", "transform": "log1p"}),
    (FeatureSpec, {"kind": "quantile", "name": "x", "num_buckets": 4}),
    (FeatureSpec, {"kind": "list", "name": "x", "separator": ","}),
    (FeatureSpec, {"kind": "time_part", "name": "x", "part": "hour"}),
    (FeatureSpec, {"kind": "cross", "name": "x", "columns": ["a", "b"], "buckets": 9}),
    (FeatureSpec, {"kind": "history", "name": "x", "fields": ["a"], "where": WHERE}),
    (FeatureSpec, {"kind": "aggregate", "name": "x", "by": "user", "rate_of": WHERE}),
    (PoolingSpec, {"kind": "mean"}),
    (PoolingSpec, {"kind": "din", "hidden": [4, 2]}),
    (PoolingSpec, {"kind": "bert4rec", "pool": "last", "masked_loss": {"weight": 1.0}}),
    (TaskSpec, {"kind": "binary", "name": "x", "label": WHERE, "sample_space": WHERE}),
    (TaskSpec, {"kind": "value", "name": "x", "label": "y", "loss": "squared"}),
    (TaskSpec, {"kind": "ordinal", "name": "x", "label": "y", "levels": ["a", "b"]}),
    (
        TaskSpec,
        {
            "kind": "survival",
            "name": "x",
            "time": "t",
            "event": "e",
            "bins": [1.0, 2.0],
        },
    ),
    (CalibrationSpec, {"kind": "none"}),
    (CalibrationSpec, {"kind": "platt"}),
    (CalibrationSpec, {"kind": "temperature"}),
    (CalibrationSpec, {"kind": "isotonic"}),
    (BottomSpec, {"kind": "flat", "dropout": 0.1}),
    (BottomSpec, {"kind": "dtrn", "width": 6, "num_heads": 3}),
    (BottomSpec, {"kind": "apem", "num_groups": 2}),
    (GatingSpec, {"kind": "direct"}),
    (GatingSpec, {"kind": "shared_bottom", "hidden": [3]}),
    (GatingSpec, {"kind": "mmoe", "num_experts": 3}),
    (GatingSpec, {"kind": "cgc", "num_shared": 0}),
    (GatingSpec, {"kind": "ple", "levels": [[3, 2], [4]]}),
    (GatingSpec, {"kind": "home", "groups": {"a": ["x"], "b": ["y", "z"]}}),
    (ChainSpec, {"kind": "independent"}),
    (ChainSpec, {"kind": "esmm", "steps": ["a", "b", "c"]}),
    (ChainSpec, {"kind": "aitm", "steps": ["a", "b"], "calibrator_weight": 0.0}),
    (TowerSpec, {"kind": "mlp", "batch_norm": True}),
    (TowerSpec, {"kind": "final_mlp", "first": {"context": ["x"]}, "num_heads": 5}),
    (TowerSpec, {"kind": "dcn_v2", "structure": "stacked"}),
    (TowerSpec, {"kind": "wide_deep", "wide": ["x", "y"]}),
    (EmbeddingOptimizerSpec, {"kind": "rowwise_adagrad"}),
    (EmbeddingOptimizerSpec, {"kind": "adam", "l2": 0.1}),
    (ScheduleSpec, {"kind": "constant"}),
    (ScheduleSpec, {"kind": "plateau", "factor": 0.5}),
    (ScoreSpec, {"kind": "sum", "weights": {"x": 1.0}}),
    (ScoreSpec, {"kind": "product", "weights": {"x": 2.0}}),
]


def identify(case):
    return case["kind"] if isinstance(case, dict) else None


@pytest.mark.parametrize(("union", "raw"), KINDS, ids=identify)
def test_every_kind_round_trips(union, raw):
    adapter = TypeAdapter(union)
    spec = adapter.validate_python(raw)
    assert adapter.validate_python(spec.model_dump()) == spec
    assert adapter.validate_json(adapter.dump_json(spec)) == spec
    for name, value in raw.items():
        dumped = spec.model_dump(mode="json")[name]
        assert dumped == value or dumped.items() >= value.items()


@pytest.mark.parametrize(("union", "raw"), KINDS, ids=identify)
def test_every_kind_is_closed_and_immutable(union, raw):
    spec = TypeAdapter(union).validate_python(raw)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        TypeAdapter(union).validate_python({**raw, "no_such_option": 1})
    with pytest.raises(ValidationError, match="frozen"):
        spec.kind = "other"


def specs_below(annotation, found):
    """Collect all spec classes that a type mentions."""
    is_spec = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    if is_spec and annotation not in found:
        found.add(annotation)
        for field in annotation.model_fields.values():
            specs_below(field.annotation, found)
    for inner in typing.get_args(annotation):
        specs_below(inner, found)
    return found


def test_no_kind_is_forgotten_in_this_file():
    tested = {type(TypeAdapter(union).validate_python(raw)) for union, raw in KINDS}
    with_kinds = {s for s in specs_below(Recipe, set()) if "kind" in s.model_fields}
    alone = {"FlatSpec", "IndependentSpec", "SimulatedEntities"}
    assert {s.__name__ for s in with_kinds - tested} <= alone


def test_every_spec_says_what_it_is():
    for spec in specs_below(Recipe, set()):
        assert spec.__doc__, spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamp": None}, "split: by time needs data.timestamp"),
        ({"keys": {"item": "i"}}, "users: needs data.keys.user"),
        (
            {"users": {"source": {"kind": "simulator"}}},
            "users.source: is the simulator, but data.interactions.kind is 'parquet'",
        ),
    ],
)
def test_tables_that_do_not_fit_together_are_refused(change, message):
    source = {"kind": "parquet", "path": "a"}
    good = {
        "interactions": source,
        "users": {"source": source},
        "keys": {"user": "u", "item": "i"},
        "timestamp": {"column": "t", "unit": "s"},
        "split": {"kind": "time"},
    }
    assert DataSpec.model_validate(good)
    with pytest.raises(ValidationError, match=message):
        DataSpec.model_validate({**good, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bins": [1, 3, 3]}, "bins must rise, got 3.0 before 3.0"),
        ({"bins": [0, 3]}, "greater than 0"),
        ({"horizons": [4, 2]}, "horizons must rise, got 4.0 before 2.0"),
        ({"bins": [1, 3], "horizons": [4]}, "at most the last edge of bins, got .* 4"),
    ],
)
def test_times_that_cannot_be_are_refused(change, message):
    good = {"kind": "survival", "name": "x", "time": "t", "event": "e", "horizons": [9]}
    assert TypeAdapter(TaskSpec).validate_python(good).label_columns == ("t", "e")
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(TaskSpec).validate_python({**good, **change})


def test_a_bound_of_times_is_no_label():
    raw = {"kind": "survival", "name": "x", "time": "t", "event": {"before": "long"}}
    spec = TypeAdapter(TaskSpec).validate_python(raw)
    assert (spec.label_columns, spec.end_column) == (("t",), "long")


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (1, "greater than or equal to 2"),
        (["a"], "at least 2, got 1"),
        (["a", "b", "a"], "must differ, got 'a' twice"),
        (["a", 1], "all text or all numbers, got both"),
    ],
)
def test_levels_that_are_no_scale_are_refused(levels, message):
    raw = {"kind": "ordinal", "name": "x", "label": "y", "levels": levels}
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(TaskSpec).validate_python(raw)


def test_more_rows_than_users_can_hold_are_refused():
    with pytest.raises(ValidationError, match="at most 65536 x num_users"):
        TypeAdapter(InteractionSource).validate_python(
            {"kind": "simulator", "rows": 200_000, "num_users": 3}
        )


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValidationError, match="num_heads must divide width, got 3 and"):
        TypeAdapter(BottomSpec).validate_python(
            {"kind": "dtrn", "width": 8, "num_heads": 3}
        )


def test_entities_and_models_have_defaults():
    assert EntitySource.model_validate({"source": {"kind": "simulator"}}).key is None
    assert ModelSpec().gating.kind == "mmoe"
