from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.features.encoders.time_part import TIME_PARTS, time_part_ids
from recsys_mtl.features.time import NEVER

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PARTS = {
    "hour": lambda t: t.hour,
    "weekday": lambda t: t.weekday(),
    "day_of_month": lambda t: t.day - 1,
    "month": lambda t: t.month - 1,
}


@pytest.mark.parametrize("part", TIME_PARTS)
@given(
    moment=st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),
    offset=st.sampled_from([0.0, 8.0, -9.5, 5.75]),
)
def test_parts_are_those_of_the_calendar(part, moment, offset):
    moment = moment.replace(tzinfo=UTC)
    micros = (moment - EPOCH) // timedelta(microseconds=1)
    ids = time_part_ids(np.array([micros]), part, offset)
    assert ids.tolist() == [2 + PARTS[part](moment + timedelta(hours=offset))]
    assert ids[0] < 2 + TIME_PARTS[part]


@pytest.mark.parametrize("part", TIME_PARTS)
def test_no_time_has_no_part(part):
    assert time_part_ids(np.array([NEVER]), part, 8.0).tolist() == [0]
