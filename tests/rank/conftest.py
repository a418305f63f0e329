"""Bundles with every kind of feature, for requests that are encoded in two ways."""

import pytest
from hypothesis import settings
from rich_bundle import OWN_FEATURES, SEEN, SHARED_FEATURES, Made, make, spec_of

# A busy machine is no fault of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def rich(tmp_path_factory) -> Made:
    """Text users, whole-number items, and tables of both."""
    spec = spec_of(
        [*SHARED_FEATURES, *OWN_FEATURES, SEEN],
        items={"source": {"kind": "parquet", "path": "unused"}},
    )
    return make(tmp_path_factory.mktemp("rich"), spec)


@pytest.fixture(scope="session")
def lean(tmp_path_factory) -> Made:
    """Users whose table has whole numbers where requests have text; no items.

    The time is read as a number too.
    """
    clock = {"kind": "numeric", "name": "clock", "column": "at"}
    items = [{"kind": "categorical", "name": "item_id"}]
    spec = spec_of([*SHARED_FEATURES, *items, clock, SEEN])
    return make(tmp_path_factory.mktemp("lean"), spec, whole_users=True)


@pytest.fixture(scope="session")
def alike(tmp_path_factory) -> Made:
    """Histories that keep only events of the candidate's brand, or of its position."""
    brand = SEEN | {"fields": ["brand", "clicked"], "match": ["brand"]}
    here = {"name": "here", "fields": ["position", "clicked"], "match": ["position"]}
    features = [f for f in OWN_FEATURES if f["name"] not in ("pair", "clicks")]
    spec = spec_of(
        [*SHARED_FEATURES, *features, brand, SEEN | here],
        items={"source": {"kind": "parquet", "path": "unused"}},
    )
    return make(tmp_path_factory.mktemp("alike"), spec)


@pytest.fixture(scope="session")
def bare(tmp_path_factory) -> Made:
    """Nothing of the user but the past, and nothing of the item but its id."""
    item = {"kind": "categorical", "name": "item_id", "history_only": True}
    hour = {"kind": "time_part", "name": "hour", "part": "hour"}
    history = SEEN | {"fields": ["item_id"]}
    (rate,) = (feature for feature in OWN_FEATURES if feature["name"] == "item_ctr")
    spec = spec_of(
        [item, hour, rate, history],
        items={"source": {"kind": "parquet", "path": "unused"}},
    )
    return make(tmp_path_factory.mktemp("bare"), spec)
