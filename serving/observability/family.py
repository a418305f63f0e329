"""Every metric of a server: name, kind, meaning, labels and bins."""

import math
from dataclasses import dataclass
from typing import Final, Literal, final

__all__ = [
    "AMOUNT_EDGES",
    "FAMILIES",
    "PROBABILITY_EDGES",
    "Family",
    "GaugeMode",
    "labels_of",
]

Kind = Literal["counter", "gauge", "histogram"]
GaugeMode = Literal["livesum", "livemax"]

STAGE_EDGES: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02),
    *(0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0),
)
"""Seconds."""
CANDIDATE_EDGES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
CANDIDATE_EDGES_LONG: Final = (*CANDIDATE_EDGES, 2000.0, 5000.0)
REQUEST_EDGES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)

PROBABILITY_EDGES: Final = tuple(
    float(f"{1.0 / (1.0 + math.exp(-k / 2.0)):.6g}") for k in range(-20, 15)
)
"""Bins a half wide on the logit scale, -10 to 7, written as probabilities.

Fixed for ever, so that any two windows of any two models have the same bins: their
population stability index is exact, and replicas add up.
"""
AMOUNT_EDGES: Final = (
    0.0,
    *(float(f"{10.0 ** (k / 4.0):.6g}") for k in range(-12, 25)),
)
"""Bins a quarter of a decade wide, .001 to 1,000,000; one for all that is not above 0.

Fixed for ever like those of probabilities.
"""


@final
@dataclass(frozen=True)
class Family:
    """A metric.

    Attributes:
        name: As Prometheus has it; counters end in ``_total``.
        kind: What it does.
        help: What it counts, in a sentence.
        labels: Names of its labels.
        edges: Upper ends of a histogram's bins, the last one, infinity, left out.
        mode: How the gauges of a node's replicas become one: their sum, or the largest.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    mode: GaugeMode = "livesum"


def _counter(name: str, help: str, *labels: str) -> Family:
    assert name.endswith("_total"), name
    return Family(name, "counter", help, labels)


def _gauge(name: str, help: str, *labels: str, mode: GaugeMode = "livesum") -> Family:
    return Family(name, "gauge", help, labels, mode=mode)


def _histogram(name: str, help: str, edges: tuple[float, ...], *labels: str) -> Family:
    return Family(name, "histogram", help, labels, edges)


_MODEL = ("model", "version")

FAMILIES: Final = {
    family.name: family
    for family in (
        _counter(
            "recsys_requests_total",
            "Requests by what became of them; 499: the client left. The model is empty "
            "where none was chosen.",
            *("route", *_MODEL, "status"),
        ),
        _histogram(
            "recsys_stage_seconds",
            "Time of a request by stage. Requests that are scored together all have "
            "the time of their batch.",
            STAGE_EDGES,
            *("route", "stage"),
        ),
        _histogram(
            "recsys_candidates",
            "Candidates or rows of a request.",
            CANDIDATE_EDGES_LONG,
            *("route", "model"),
        ),
        _histogram(
            "recsys_batch_requests",
            "Requests scored together.",
            REQUEST_EDGES,
            "model",
        ),
        _histogram(
            "recsys_batch_rows",
            "Candidates scored together.",
            CANDIDATE_EDGES_LONG,
            "model",
        ),
        _gauge("recsys_queue_requests", "Requests that wait for the model."),
        _gauge("recsys_queue_rows", "Candidates that wait for the model."),
        _gauge(
            "recsys_queue_wait_seconds",
            "Estimate of how long a request that came now would wait, of the replica "
            "where it is longest.",
            mode="livemax",
        ),
        _counter(
            "recsys_shed_total",
            "Requests refused with 429, by reason.",
            *("route", "reason"),
        ),
        _counter(
            "recsys_deadline_missed_total",
            "Requests dropped or answered with 504 because nobody waited any more.",
            "route",
        ),
        _counter(
            "recsys_clients_left_total",
            "Requests whose client left before the answer.",
            "route",
        ),
        _counter(
            "recsys_degraded_total",
            "Answers made with defaults because a store of features was slow or down.",
            *("route", *_MODEL),
        ),
        _counter(
            "recsys_entity_lookups_total",
            "Requests that wanted users or items of the store, by what became of it: "
            "found (the store answered), too_slow, failed, or left_alone after such.",
            "outcome",
        ),
        _histogram(
            "recsys_entity_lookup_seconds",
            "Time that requests waited for the store; those that left it alone did "
            "not.",
            STAGE_EDGES,
        ),
        _counter(
            "recsys_entity_keys_total",
            "Keys that the store was asked for and answered, by kind.",
            "kind",
        ),
        _counter(
            "recsys_entity_misses_total",
            "Those of them that it did not have, or had too old or damaged.",
            "kind",
        ),
        _counter(
            "recsys_entity_faults_total",
            "Rows of the store that could not be read (damaged), and columns of rows "
            "that did not fit the model (misfit).",
            "fault",
        ),
        _counter(
            "recsys_swaps_total",
            "Times that a replica took other models (switched), or kept those it had "
            "because the others could not be used (refused).",
            "outcome",
        ),
        _counter(
            "recsys_slow_requests_total",
            "Requests that took longer than observability.slow_request_s.",
            "route",
        ),
        _counter(
            "recsys_ids_total",
            "Ids that were asked for, by kind: one user a request, every candidate.",
            *(*_MODEL, "kind"),
        ),
        _counter(
            "recsys_unknown_ids_total",
            "Those of them that the model does not know; they get defaults.",
            *(*_MODEL, "kind"),
        ),
        _counter(
            "recsys_feature_cells_total",
            "Values of a feature that were looked at, in the requests that were "
            "sampled for it.",
            *(*_MODEL, "feature"),
        ),
        _counter(
            "recsys_missing_cells_total",
            "Those of them that were missing.",
            *(*_MODEL, "feature"),
        ),
        _counter(
            "recsys_unseen_cells_total",
            "Those of them that training did not have.",
            *(*_MODEL, "feature"),
        ),
        _histogram(
            "recsys_predicted_probability",
            "Predictions of binary tasks of all candidates, in bins a half wide on the "
            "logit scale; fixed, so that any two windows can be compared.",
            PROBABILITY_EDGES,
            *(*_MODEL, "task"),
        ),
        _histogram(
            "recsys_predicted_amount",
            "Predictions of all other tasks, in bins a quarter of a decade wide.",
            AMOUNT_EDGES,
            *(*_MODEL, "task"),
        ),
        _counter(
            "recsys_predictions_not_finite_total",
            "Predictions that were NaN or infinite; in no bin.",
            *(*_MODEL, "task"),
        ),
        _counter(
            "recsys_feedback_events_total",
            "Events of feedback: joined to an answer by this replica, given with their "
            "predictions, unjoined, or duplicate.",
            "outcome",
        ),
        _counter(
            "recsys_feedback_labels_total",
            "Labels with a prediction.",
            *(*_MODEL, "task"),
        ),
        _counter(
            "recsys_feedback_label_sum_total",
            "Their sum.",
            *(*_MODEL, "task"),
        ),
        _counter(
            "recsys_feedback_prediction_sum_total",
            "Sum of their predictions; over the sum of labels it is the calibration.",
            *(*_MODEL, "task"),
        ),
        _gauge(
            "recsys_feedback_window_answers",
            "Answers that feedback can still be joined to.",
        ),
        _gauge("recsys_feedback_window_bytes", "Estimate of the memory they take."),
        _gauge(
            "recsys_model_info",
            "1 for each model that is served.",
            *(*_MODEL, "created"),
            mode="livemax",
        ),
        _gauge(
            "recsys_model_created_timestamp_seconds",
            "When the bundle was written.",
            *_MODEL,
            mode="livemax",
        ),
        _gauge(
            "recsys_model_age_seconds",
            "Time since the bundle was written.",
            *_MODEL,
            mode="livemax",
        ),
        _gauge(
            "recsys_model_traffic_ratio",
            "Share of the requests that name no model.",
            *_MODEL,
            mode="livemax",
        ),
        _gauge(
            "recsys_scoring_info",
            "1 for how predictions become the score.",
            *(*_MODEL, "scoring", "kind"),
            mode="livemax",
        ),
        _gauge(
            "recsys_score_weight",
            "Weight of a task in the score.",
            *(*_MODEL, "task"),
            mode="livemax",
        ),
        _gauge(
            "recsys_calibrator_info",
            "1 for the steps from the network's prediction to the one told.",
            *(*_MODEL, "task", "calibrator"),
            mode="livemax",
        ),
        _gauge("recsys_replicas", "Replicas of the node that live."),
        _gauge("recsys_replicas_ready", "Those of them that are warmed up."),
        _gauge("recsys_memory_bytes", "Resident memory of the node's replicas."),
        _gauge(
            "recsys_build_info",
            "1 for the version of recsys-mtl.",
            "release",
            mode="livemax",
        ),
    )
}
"""By name, in the order of the documentation."""


def labels_of(sample: str) -> tuple[str, ...] | None:
    """Give the labels of a series as Prometheus names it; ``None`` if there is none.

    Example:
        >>> labels_of("recsys_stage_seconds_bucket")
        ('route', 'stage', 'le')
    """
    family = FAMILIES.get(sample)
    if family is not None:
        return None if family.kind == "histogram" else family.labels
    base, _, part = sample.rpartition("_")
    family = FAMILIES.get(base)
    if family is None or family.kind != "histogram":
        return None
    match part:
        case "bucket":
            return (*family.labels, "le")
        case "sum" | "count":
            return family.labels
        case _:
            return None
