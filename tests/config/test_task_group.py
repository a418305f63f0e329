# ruff: noqa: E501 - sentences stand whole
"""Groups of tasks that cannot be."""

import pytest
from pydantic import ValidationError

from recsys_mtl.config.recipe import Recipe


def recipe(groups):
    names = ("click", "like", "watch")
    return Recipe.model_validate(
        {
            "name": "small",
            "data": {
                "interactions": {"kind": "parquet", "path": "log.parquet"},
                "keys": {"user": "user", "item": "item"},
                "split": {"kind": "hash", "column": "user"},
            },
            "features": [{"kind": "categorical", "name": "item"}],
            "tasks": [{"kind": "binary", "label": "y", "name": n} for n in names],
            "model": {"gating": {"kind": "home", "groups": groups}},
        }
    )


@pytest.mark.parametrize(
    "groups", [None, {"a": ["click", "like", "watch"]}, {"a": ["like"], "b": ["watch", "click"]}]
)  # fmt: skip
def test_groups_that_hold_every_task_once_are_fine(groups):
    assert recipe(groups).model.gating.kind == "home"


BAD = [
    (
        {"a": ["clik", "like"], "b": ["click", "watch"]},
        r"model.gating.groups.a\[0\]: names 'clik', which is no task; did you mean 'click'\? Allowed: click, like, watch",
    ),
    (
        {"a": ["click", "like"], "b": ["watch", "like"]},
        r"model.gating.groups.b\[1\]: task 'like' is in group 'a' already; put each task in one group",
    ),
    (
        {"a": ["click", "click", "like", "watch"]},
        r"model.gating.groups.a\[1\]: task 'click' is in group 'a' already",
    ),
    (
        {"a": ["click"], "b": ["watch"]},
        "model.gating.groups: must hold every task, got none for like; add to a or b, or to a new group",
    ),
    ({"a": []}, "at least 1 item"),
    ({}, "at least 1 item"),
]


@pytest.mark.parametrize(("groups", "message"), BAD)
def test_groups_that_do_not_divide_the_tasks_are_refused(groups, message):
    with pytest.raises(ValidationError, match=message):
        recipe(groups)
