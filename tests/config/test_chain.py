# ruff: noqa: E501 - sentences stand whole
"""Chains of tasks that cannot be."""

import pytest
from pydantic import ValidationError

from recsys_mtl.config.recipe import Recipe

CLICKED = {"column": "is_click", "equals": 1}
BINARY = {"kind": "binary", "label": "y"}


def recipe(chain, **sample_spaces):
    """Tasks click, cart and order, each with a sample space if one is given."""
    tasks = [
        BINARY | {"name": name, "sample_space": sample_spaces.get(name)}
        for name in ("click", "cart", "order")
    ]
    return Recipe.model_validate(
        {
            "name": "small",
            "data": {
                "interactions": {"kind": "parquet", "path": "log.parquet"},
                "keys": {"user": "user", "item": "item"},
                "split": {"kind": "hash", "column": "user"},
            },
            "features": [{"kind": "categorical", "name": "item"}],
            "tasks": [*tasks, {"kind": "value", "name": "watch", "label": "watch_s"}],
            "model": {"chain": chain},
        }
    )


def esmm(*steps):
    return {"kind": "esmm", "steps": steps}


def aitm(*steps, **options):
    return {"kind": "aitm", "steps": steps, **options}


GOOD = [
    (esmm("click", "order"), {}),
    (esmm("click", "cart", "order"), {}),
    (aitm("click", "cart", "order"), {}),
    (aitm("click", "order"), {"click": CLICKED, "order": CLICKED}),
    (aitm("click", "order", calibrator_weight=0), {"order": CLICKED}),
]

BAD = [
    (esmm("click", "oder"), {}, "model.chain.steps[1]: names 'oder', which is no task; did you mean 'order'? Allowed: click, cart, order"),
    (esmm("click", "watch"), {}, "model.chain.steps[1]: must be a binary task, for a step happens or does not; got value task 'watch'; allowed: click, cart, order"),
    (aitm("click", "cart", "click"), {}, "model.chain.steps[2]: 'click' is a step already; name each task once"),
    (esmm("click", "order"), {"order": CLICKED}, "model.chain.steps[1]: step 'order' must exist on all rows, for 'esmm' learns its probability over the entire space; got a sample_space; take it out of the task, with a label of 0 where the step before did not happen"),
    (esmm("click", "order"), {"click": CLICKED}, "model.chain.steps[0]: step 'click' must exist on all rows"),
    (aitm("click", "order"), {"order": CLICKED}, "model.chain.steps[1]: step 'order' must exist on the same rows as step 'click', for the calibrator holds it to be no likelier; got another sample_space; take it out of the task, with a label of 0 where the step before did not happen, or set model.chain.calibrator_weight to 0"),
]  # fmt: skip


@pytest.mark.parametrize(("chain", "spaces"), GOOD)
def test_chains_of_binary_tasks_on_the_same_rows_are_fine(chain, spaces):
    made = recipe(chain, **spaces)
    assert Recipe.model_validate(made.model_dump()) == made


@pytest.mark.parametrize(("chain", "spaces", "sentence"), BAD)
def test_other_chains_are_refused(chain, spaces, sentence):
    with pytest.raises(ValidationError) as caught:
        recipe(chain, **spaces)
    assert sentence in str(caught.value)


def test_a_chain_of_one_is_refused():
    with pytest.raises(ValidationError, match="at least 2 items"):
        recipe(esmm("click"))
