"""Requests as OpenTelemetry spans, one a stage."""

import os
import time
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from recsys_mtl import __version__
from recsys_mtl.errors import ConfigError
from serving.observability.record import Record
from serving.observability.settings import TraceSettings

__all__ = ["JsonLinesExporter", "Tracing"]

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_PACKAGE: Final = "opentelemetry-exporter-otlp-proto-grpc"


@final
class Tracing:
    """Makes spans of requests that have ended, from the times that were noted.

    A request that is not sampled costs one decision. The sampler is that of
    ``OTEL_TRACES_SAMPLER`` where that is set, else the parent's decision, else a share
    of the trace ids. Attributes of the resource come from ``OTEL_RESOURCE_ATTRIBUTES``
    and ``OTEL_SERVICE_NAME``, as everywhere.

    Args:
        settings: Where spans go, and how many.

    Raises:
        ConfigError: The exporter that is asked for is not installed.
    """

    def __init__(self, settings: TraceSettings) -> None:
        sampler = None
        if "OTEL_TRACES_SAMPLER" not in os.environ:
            sampler = ParentBasedTraceIdRatio(settings.sample_rate)
        service = {"service.version": __version__}
        if "OTEL_SERVICE_NAME" not in os.environ:
            service["service.name"] = "recsys-mtl"
        self._provider = TracerProvider(
            sampler=sampler, resource=Resource.create(service), shutdown_on_exit=False
        )
        for exporter in _exporters(settings):
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("recsys_mtl.serving", __version__)
        # Spans have wall clock times, stages were timed by another clock.
        self._offset_ns = time.time_ns() - time.perf_counter_ns()

    def write(self, record: Record, end: float) -> str | None:
        """Make the spans of a request.

        Args:
            record: Of the request.
            end: When it ended, of ``time.perf_counter``.

        Returns:
            The trace's id, if it is sampled.
        """
        given = (
            {} if record.trace_parent is None else {"traceparent": record.trace_parent}
        )
        span = self._tracer.start_span(
            f"POST {record.route}",
            context=_PROPAGATOR.extract(given),
            kind=SpanKind.SERVER,
            start_time=self._ns(record.started),
        )
        context = span.get_span_context()
        trace_id = format(context.trace_id, "032x")
        if not span.is_recording():
            span.end()
            return trace_id if context.trace_flags.sampled else None
        span.set_attributes(
            {
                "http.request.method": "POST",
                "http.route": record.route,
                "http.response.status_code": record.status,
                "recsys.request_id": record.request_id,
                "recsys.candidates": record.candidates,
            }
        )
        if record.model:
            span.set_attribute("recsys.model", record.model)
            span.set_attribute("recsys.version", record.version)
        if record.code:
            span.set_attribute("error.type", record.code)
        if record.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        parent = set_span_in_context(span)
        for name, start, stop in record.spans:
            part = self._tracer.start_span(name, parent, start_time=self._ns(start))
            part.end(self._ns(stop))
        span.end(self._ns(end))
        return trace_id

    def close(self) -> None:
        """Send what was not sent yet."""
        self._provider.shutdown()

    def _ns(self, clock_s: float) -> int:
        return int(clock_s * 1e9) + self._offset_ns


@final
class JsonLinesExporter(SpanExporter):
    """Appends spans to a file, one JSON object a line.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise ConfigError(
                f"observability.trace.file cannot be written: {error}"
            ) from error

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write spans; see ``SpanExporter``."""
        lines = b"".join(span.to_json(indent=None).encode() + b"\n" for span in spans)
        self._file.write(lines)
        self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file."""
        self._file.close()


def _exporters(settings: TraceSettings) -> list[SpanExporter]:
    exporters: list[SpanExporter] = []
    if settings.file is not None:
        exporters.append(JsonLinesExporter(settings.file))
    wanted = os.environ.get("OTEL_TRACES_EXPORTER")
    if wanted is None:
        wanted = "" if exporters else "otlp"
    for name in filter(None, (part.strip() for part in wanted.split(","))):
        if name != "none":
            exporters.append(_exporter(name))
    return exporters


def _exporter(name: str) -> SpanExporter:
    """Find an exporter by its standard name.

    Raises:
        ConfigError: No installed package has it.
    """
    entry = name
    if name == "otlp":
        protocol = os.environ.get(
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        )
        entry = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    found = list(entry_points(group="opentelemetry_traces_exporter", name=entry))
    if not found:
        raise ConfigError(
            f"observability.trace: there is no exporter {name!r} here; install its "
            f"package ({_PACKAGE} for otlp by gRPC), set OTEL_TRACES_EXPORTER to "
            "another, or give observability.trace.file"
        )
    exporter = found[0].load()()
    assert isinstance(exporter, SpanExporter)
    return exporter
