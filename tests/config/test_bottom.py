"""Bottoms that do not fit the features of their recipe."""

import pytest
from pydantic import ValidationError

from recsys_mtl.config.recipe import Recipe


def recipe(features, **model):
    return Recipe.model_validate(
        {
            "name": "small",
            "data": {
                "interactions": {"kind": "parquet", "path": "a"},
                "keys": {"user": "u", "item": "i"},
                "timestamp": {"column": "t", "unit": "s"},
                "split": {"kind": "time"},
            },
            "features": features,
            "tasks": [{"kind": "binary", "name": "click", "label": "click"}],
            "model": model,
        }
    )


ITEM = {"kind": "categorical", "name": "item"}
PRICE = {"kind": "numeric", "name": "price"}


def history(pooling):
    seen = {"kind": "history", "name": "seen", "fields": ["item"]}
    return [ITEM, {**seen, "pooling": {"kind": pooling}}]


@pytest.mark.parametrize("pooling", ["mean", "din"])
def test_dtrn_pools_by_mean_or_attention(pooling):
    assert recipe(history(pooling), bottom={"kind": "dtrn"})


def test_a_pooling_that_encodes_events_itself_is_refused_under_dtrn():
    assert recipe(history("bert4rec"), bottom={"kind": "apem"})
    with pytest.raises(
        ValidationError,
        match=r"features\[1\]\.pooling\.kind: must be 'mean' or 'din' under "
        r"model\.bottom 'dtrn'.*history 'seen'.*got 'bert4rec'",
    ):
        recipe(history("bert4rec"), bottom={"kind": "dtrn"})


@pytest.mark.parametrize("kind", ["dtrn", "apem"])
def test_bottoms_of_vectors_refuse_numbers_alone(kind):
    assert recipe([PRICE], bottom={"kind": "flat"})
    linear = {"numeric": "linear"}
    assert recipe([PRICE], bottom={"kind": kind}, embedding=linear)
    assert recipe([PRICE, ITEM], bottom={"kind": kind})
    with pytest.raises(ValidationError, match=f"'{kind}' reads vectors, but all"):
        recipe([PRICE], bottom={"kind": kind})
