"""Counts against those of Prometheus' own client."""

import numpy as np
import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.observability.bins import FloatBins
from serving.observability.family import (
    AMOUNT_EDGES,
    FAMILIES,
    PROBABILITY_EDGES,
    labels_of,
)
from serving.observability.ledger import Ledger, TaskHistograms

OF = ("m", "1", "click")


def told(collectable):
    registry = prometheus_client.CollectorRegistry()
    registry.register(collectable)
    text = prometheus_client.generate_latest(registry).decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


EXTREMES = {
    "recsys_predicted_probability": [0.0, 1.0, 1e-40, 1e-9],
    "recsys_predicted_amount": [-1e9, -1e-30, -0.0, 0.0, 1e-40, 1e-3, 1e30],
}


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("name", EXTREMES)
def test_a_histogram_counts_as_prometheus_does(name, at_once):
    family = FAMILIES[name]
    edges = np.asarray(family.edges, np.float32)
    registry = prometheus_client.CollectorRegistry()
    oracle = prometheus_client.Histogram(
        name, family.help, family.labels, buckets=family.edges, registry=registry
    )
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [
            rng.beta(0.3, 3.0, 500),
            np.exp(rng.normal(0.0, 5.0, 500)),
            # Edges themselves, and their neighbours, are where bins go wrong.
            *(edges, np.nextafter(edges, np.float32(9e9)), np.nextafter(edges, 0.0)),
            EXTREMES[name],
        ]
    ).astype(np.float32)
    ledger = Ledger()
    for value in values.tolist():
        oracle.labels(*OF).observe(value)
    if at_once:
        histograms = [ledger.histogram(name, *OF), ledger.histogram(name, "other")]
        del ledger.histograms[name]["other",]
        together = TaskHistograms(histograms, FloatBins(family.edges))
        pair = np.stack([values, values[::-1]], axis=1)
        for part in (pair[:300], pair[300:]):
            together.observe(part, part.sum(axis=0, dtype=np.float64))
        np.testing.assert_array_equal(histograms[0].counts, histograms[1].counts)
    else:
        for value in values.tolist():
            ledger.observe(name, *OF, value=value)
    got, wanted = told(ledger), told(oracle)
    assert {key for key in got if key[0].startswith(name)} == wanted.keys()
    for key, value in wanted.items():
        assert got[key] == pytest.approx(value, rel=1e-12), key


def test_bins_are_half_a_logit_and_a_quarter_of_a_decade_wide():
    edges = np.asarray(PROBABILITY_EDGES)
    np.testing.assert_allclose(np.diff(np.log(edges / (1 - edges))), 0.5, atol=0.02)
    assert AMOUNT_EDGES[0] == 0.0
    np.testing.assert_allclose(np.diff(np.log10(AMOUNT_EDGES[1:])), 0.25, atol=1e-5)


def test_counters_grow_and_gauges_are_set():
    ledger = Ledger()
    ledger.add("recsys_deadline_missed_total", "/v1/rank")
    ledger.add("recsys_deadline_missed_total", "/v1/rank", by=2.0)
    ledger.set("recsys_queue_rows", to=7.0)
    key = ("recsys_deadline_missed_total", ("route", "/v1/rank"))
    assert told(ledger)[key] == 3.0
    assert told(ledger)["recsys_queue_rows",] == 7.0
    ledger.clear_gauges()
    assert ("recsys_queue_rows",) not in told(ledger)
    assert told(ledger)[key] == 3.0


def test_a_series_tells_its_labels():
    assert labels_of("recsys_batch_rows_count") == ("model",)
    assert labels_of("recsys_batch_rows") is None
    assert labels_of("recsys_requests_total") == (
        "route",
        "model",
        "version",
        "status",
    )
    assert labels_of("recsys_requests") is None
    assert labels_of("recsys_queue_rows_bucket") is None


def test_no_label_can_hold_an_id():
    allowed = {
        *("route", "model", "version", "status", "stage", "reason", "kind", "task"),
        *("feature", "outcome", "created", "scoring", "calibrator", "release"),
        "fault",
    }
    assert {label for f in FAMILIES.values() for label in f.labels} == allowed
