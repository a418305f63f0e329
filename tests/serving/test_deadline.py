"""The header that says how long a caller waits."""

import pytest
from starlette.requests import Request

from serving.deadline import DEADLINE, deadline_of
from serving.fault import HttpFault


def request(value):
    header = (DEADLINE.name.encode(), value.encode())
    return Request({"type": "http", "headers": [header]})


def test_a_caller_that_does_not_say_waits_any_time():
    assert deadline_of(Request({"type": "http", "headers": []})) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2), ("0.25", 0.25), (".5", 0.5), (" 1e-2 ", 0.01), ("12.50E+1", 125)],
)
def test_seconds_are_read(value, seconds):
    assert deadline_of(request(value)) == seconds


@pytest.mark.parametrize(
    "value",
    ["", "0", "-1", "1.", "1_0", "nan", "inf", "1e999", "0x1", "1 2", "soon", "\u0661"],
)
def test_all_else_is_refused(value):
    header = (DEADLINE.name.encode(), value.encode("utf-8"))
    with pytest.raises(HttpFault, match="a number of seconds above 0") as caught:
        deadline_of(Request({"type": "http", "headers": [header]}))
    assert caught.value.field == DEADLINE.name


def test_a_million_digits_that_end_in_a_letter_are_refused_like_any():
    # If digits could be divided in more ways than one, this would take hours.
    with pytest.raises(HttpFault, match="a number of seconds above 0"):
        deadline_of(request("1" * 1_000_000 + "x"))
