"""The page on observability against the code."""

import re
from pathlib import Path

import msgspec

from serving.observability.family import AMOUNT_EDGES, FAMILIES, PROBABILITY_EDGES
from serving.observability.feedback import FeedbackRequest
from serving.observability.settings import LogSettings, ObservabilitySettings

PAGE = Path(__file__).parents[3].joinpath("docs/observability.md").read_text("utf-8")


def test_the_table_of_metrics_is_the_registry():
    told = re.findall(r"^\| `(recsys_\w+)` \| (.*) \| (.*) \| (.*) \|$", PAGE, re.M)
    modes = {"livesum": "gauge, sum", "livemax": "gauge, largest"}
    assert told == [
        (
            family.name,
            modes[family.mode] if family.kind == "gauge" else family.kind,
            ", ".join(f"`{label}`" for label in family.labels),
            family.help,
        )
        for family in FAMILIES.values()
    ]


def test_the_bins_are_those_of_the_code():
    first, second, last = re.search(r"\((\S+), (\S+), \.\.\. (\S+)\)", PAGE).groups()
    assert PROBABILITY_EDGES[:2] == (float(first), float(second))
    assert PROBABILITY_EDGES[-1] == float(last)
    assert (AMOUNT_EDGES[1], AMOUNT_EDGES[-1]) == (0.001, 1_000_000.0)


def test_settings_are_called_what_the_page_calls_them():
    for name in ObservabilitySettings.model_fields:
        assert re.search(rf"`(observability\.)?{name}|`{name}\.", PAGE), name
    rows = re.findall(r"^\| `(\w+)` \| (\d*) \| [^`|]*", PAGE, re.M)
    told = {name: default for name, default in rows if name in LogSettings.model_fields}
    assert {"request_rate": "0", "slow_request_s": "1"}.items() <= told.items()
    defaults = LogSettings()
    assert (defaults.request_rate, defaults.slow_request_s) == (0, 1)


def test_the_example_of_feedback_is_one():
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    (event,) = msgspec.json.decode(example, type=FeedbackRequest).events
    assert event.predictions is not None
