"""A server at a glance: one frame from two looks at its metrics."""

import math

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from serving.observability.drift import stability_index
from serving.observability.scrape import Scrape, quantile

__all__ = ["frame"]

_MOVED, _DRIFTED = 0.1, 0.25
_LOW, _HIGH = 0.9, 1.1
_STAGES = (
    *("receive", "decode", "queue", "read", "encode", "forward", "fuse"),
    *("serialise", "total"),
)


def frame(url: str, first: Scrape, before: Scrape, now: Scrape) -> RenderableType:
    """Draw what a server does.

    Args:
        url: Of the server.
        first: As it was when we began to look: drift is measured since then.
        before: As it was a moment ago: rates and times are of the time since then.
        now: As it is.
    """
    return Group(
        _head(url, before, now),
        _routes(before, now),
        _stages(before, now),
        _models(before, now),
        _tasks(first, now),
    )


def _head(url: str, before: Scrape, now: Scrape) -> RenderableType:
    def total(name: str) -> float:
        return now.sum(name)

    shed = _rate("recsys_shed_total", before, now)
    late = _rate("recsys_deadline_missed_total", before, now)
    left = _rate("recsys_clients_left_total", before, now)
    releases = ", ".join(now.values("recsys_build_info", "release"))
    ready, replicas = total("recsys_replicas_ready"), total("recsys_replicas")
    lines = [
        f"[bold]{url}[/bold]  release {releases}  replicas {ready:.0f} ready of "
        f"{replicas:.0f}  memory {total('recsys_memory_bytes') / 2**20:,.0f} MiB",
        f"waiting {total('recsys_queue_requests'):.0f} requests, "
        f"{total('recsys_queue_rows'):,.0f} candidates, "
        f"{1e3 * total('recsys_queue_wait_seconds'):.1f} ms   "
        f"shed {shed:.1f}/s  late {late:.1f}/s  left {left:.1f}/s",
    ]
    return Text.from_markup("\n".join(lines))


def _routes(before: Scrape, now: Scrape) -> Table:
    table = _table(
        "route", "requests/s", "failed", "p50 ms", "p99 ms", "candidates p50"
    )
    for route in now.values("recsys_stage_seconds_count", "route"):
        of = {"route": route}
        asked = _rate("recsys_requests_total", before, now, **of)
        failed = sum(
            _rate("recsys_requests_total", before, now, **of, status=status)
            for status in now.values("recsys_requests_total", "status")
            if status.startswith("5")
        )
        times = _window("recsys_stage_seconds", before, now, **of, stage="total")
        candidates = _window("recsys_candidates", before, now, **of)
        table.add_row(
            route,
            f"{asked:,.1f}",
            _share(failed, asked),
            *(_number(1e3 * quantile(share, *times)) for share in (0.5, 0.99)),
            _number(quantile(0.5, *candidates)),
        )
    return table


def _stages(before: Scrape, now: Scrape) -> Table:
    told = set(now.values("recsys_stage_seconds_count", "stage"))
    stages = [stage for stage in _STAGES if stage in told]
    table = _table("stage", *stages)
    windows = [
        _window("recsys_stage_seconds", before, now, stage=stage) for stage in stages
    ]
    for share in (0.5, 0.99):
        table.add_row(
            f"p{100 * share:.0f} ms",
            *(_number(1e3 * quantile(share, *window)) for window in windows),
        )
    return table


def _models(before: Scrape, now: Scrape) -> Table:
    names = ("model", "version", "age", "share", "requests/s", "degraded")
    table = _table(*names, "unknown users", "unknown items")
    for told, served in now.matching("recsys_model_info"):
        if not served:
            continue
        of = {"model": told["model"], "version": told["version"]}
        asked = _rate("recsys_requests_total", before, now, **of)
        table.add_row(
            told["model"],
            told["version"],
            _age(now.sum("recsys_model_age_seconds", **of)),
            f"{now.sum('recsys_model_traffic_ratio', **of):.0%}",
            f"{asked:,.1f}",
            _share(_rate("recsys_degraded_total", before, now, **of), asked),
            *(
                _share(
                    _rate("recsys_unknown_ids_total", before, now, **of, kind=kind),
                    _rate("recsys_ids_total", before, now, **of, kind=kind),
                )
                for kind in ("user", "item")
            ),
        )
    return table


def _tasks(first: Scrape, now: Scrape) -> Table:
    table = _table("task", "model", "mean prediction", "drift", "calibration", "labels")
    for name in ("recsys_predicted_probability", "recsys_predicted_amount"):
        for told, count in now.matching(f"{name}_count"):
            mean = now.sum(f"{name}_sum", **told) / count if count else math.nan
            # Feedback is slow: what has come since the replicas began.
            labels = now.sum("recsys_feedback_label_sum_total", **told)
            predicted = now.sum("recsys_feedback_prediction_sum_total", **told)
            table.add_row(
                told["task"],
                f"{told['model']} {told['version']}",
                _number(mean),
                _drift(name, first, now, told),
                _calibration(predicted, labels),
                f"{now.sum('recsys_feedback_labels_total', **told):,.0f}",
            )
    return table


def _drift(name: str, first: Scrape, now: Scrape, told: dict[str, str]) -> Text:
    """PSI of what came since the first look against what came before it."""
    _, then = first.bins(name, **told)
    _, all_of = now.bins(name, **told)
    since = all_of - then if len(then) == len(all_of) else all_of
    if not (len(then) and then.sum() > 0 and since.sum() > 0 and (since >= 0).all()):
        return Text("-")
    index = stability_index(then, since)
    colour = "red" if index > _DRIFTED else "yellow" if index > _MOVED else "green"
    return Text(f"{index:.3f}", style=colour)


def _calibration(predicted: float, labels: float) -> Text:
    if not labels:
        return Text("-")
    ratio = predicted / labels
    return Text(f"{ratio:.3f}", style="green" if _LOW <= ratio <= _HIGH else "red")


def _rate(name: str, before: Scrape, now: Scrape, **labels: str) -> float:
    """Growth a second; 0 where counts began anew."""
    grown = now.sum(name, **labels) - before.sum(name, **labels)
    return max(0.0, grown) / max(now.at - before.at, 1e-9)


def _window(
    name: str, before: Scrape, now: Scrape, **labels: str
) -> tuple[np.ndarray, np.ndarray]:
    edges, counts = now.bins(name, **labels)
    old_edges, old = before.bins(name, **labels)
    if len(old_edges) != len(edges):
        return edges, counts
    return edges, np.maximum(counts - old, 0.0)


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        text = name in ("version", "model")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    return table


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
