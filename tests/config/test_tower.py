# ruff: noqa: E501 - sentences stand whole
"""Towers: what they may read, and options without effect."""

import pytest
from pydantic import ValidationError

from recsys_mtl.config.recipe import Recipe

FEATURES = [
    {"kind": "categorical", "name": "user"},
    {"kind": "categorical", "name": "seen", "history_only": True},
    {"kind": "numeric", "name": "price"},
    {"kind": "history", "name": "clicks", "fields": ["seen"]},
    {"kind": "aggregate", "name": "past", "by": "user", "rate_of": {"column": "label", "equals": 1}},
]  # fmt: skip
CONTEXT = {"kind": "final_mlp", "first": {"context": ["user", "price", "past.rate"]}}


def recipe(tower, features=FEATURES, **embedding):
    return Recipe.model_validate(
        {
            "name": "small",
            "data": {
                "interactions": {"kind": "parquet", "path": "a"},
                "keys": {"user": "user"},
                "timestamp": {"column": "time", "unit": "s"},
                "split": {"kind": "time"},
            },
            "features": features,
            "tasks": [{"kind": "binary", "name": "click", "label": "label"}],
            "model": {"embedding": {"dim": 8, **embedding}, "tower": tower},
        }
    )


def test_contexts_may_be_ids_and_numbers():
    first = recipe(CONTEXT, numeric="linear").model.tower.first
    assert first.context == ("user", "price", "past.rate")


BAD = [
    (
        {"kind": "final_mlp", "second": {"context": ["usr"]}},
        r"model.tower.second.context\[0\]: names 'usr', which is no column of the scored row; did you mean 'user'\? Allowed: user, price, past.count, past.rate",
    ),
    (
        {"kind": "wide_deep", "wide": ["user", "seen"]},
        r"model.tower.wide\[1\]: names 'seen', which is no column",
    ),
    (
        {"kind": "wide_deep", "wide": ["user", "user"]},
        r"model.tower.wide\[1\]: 'user' is named twice",
    ),
    (
        {"kind": "final_mlp", "first": {"hidden": [400]}, "second": {"hidden": [100]}, "num_heads": 3},
        "num_heads: must divide the last widths of both streams, got 3 for 400 and 100",
    ),
    (
        {**CONTEXT, "feature_selection": False},
        "first.context: has no effect, for feature_selection is false",
    ),
    (
        {"kind": "final_mlp", "gate_hidden": [7], "feature_selection": False},
        "gate_hidden: has no effect, for feature_selection is false",
    ),
    (
        {"kind": "final_mlp", "first": {"context": ["user"]}, "second": {"context": ["user"]}, "context_init_std": 0.1},
        "context_init_std: has no effect, for both streams have a context",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("tower", "message"), BAD)
def test_what_does_not_fit_is_refused(tower, message):
    with pytest.raises(ValidationError, match=message):
        recipe(tower)


def test_linear_numbers_need_numbers():
    with pytest.raises(ValidationError, match=r"embedding.numeric: has no effect"):
        recipe({"kind": "mlp"}, FEATURES[:1], numeric="linear")
