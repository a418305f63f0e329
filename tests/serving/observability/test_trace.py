"""Spans of the real app, in a file and at a collector."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
from pydantic import ValidationError

from recsys_mtl.errors import ConfigError
from serving.observability.settings import TraceSettings

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch):
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def spans(serving, tmp_path):
    """Ask an app; gives the spans it wrote."""

    def run(ask, **trace):
        path = tmp_path / "spans"
        asked = serving(trace={"enabled": True, "file": path, **trace})
        ask(asked)
        asked.observer.close()
        return [json.loads(line) for line in path.read_text().splitlines()]

    return run


@pytest.fixture
def collector():
    """An OpenTelemetry collector by HTTP; its URL and what it took."""
    taken = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            taken.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            del args

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", taken
        server.shutdown()
        thread.join()


def rank(asked, **headers):
    return asked("POST", "/v1/rank", json={"item_ids": [101, 105]}, headers=headers)


def test_a_request_is_a_span_and_each_stage_one_inside(spans, ranker):
    found = spans(lambda asked: rank(asked, **{"x-request-id": "r"}), sample_rate=1.0)
    (root,) = [span for span in found if span["parent_id"] is None]
    assert (root["name"], root["kind"]) == ("POST /v1/rank", "SpanKind.SERVER")
    assert root["attributes"] == {
        "http.request.method": "POST",
        "http.route": "/v1/rank",
        "http.response.status_code": 200,
        "recsys.request_id": "r",
        "recsys.candidates": 2,
        "recsys.model": ranker.name,
        "recsys.version": ranker.card.version,
    }
    assert root["resource"]["attributes"]["service.name"] == "recsys-mtl"
    parts = [span for span in found if span is not root]
    assert {span["name"] for span in parts} == {
        *("receive", "decode", "queue", "read", "encode", "forward", "fuse"),
        "serialise",
    }
    for span in parts:
        assert span["parent_id"] == root["context"]["span_id"]
        assert span["context"]["trace_id"] == root["context"]["trace_id"]
        assert root["start_time"] <= span["start_time"] <= span["end_time"]
        assert span["end_time"] <= root["end_time"]


@pytest.mark.parametrize(("flag", "count"), [("01", 1), ("00", 0)])
def test_the_caller_decides_and_its_trace_goes_on(spans, flag, count):
    parent = f"00-{TRACE}-{SPAN}-{flag}"
    found = spans(lambda asked: rank(asked, traceparent=parent), sample_rate=0.5)
    roots = [span for span in found if span["name"] == "POST /v1/rank"]
    assert len(roots) == count
    for span in roots:
        assert span["context"]["trace_id"] == f"0x{TRACE}"
        assert span["parent_id"] == f"0x{SPAN}"


def test_a_broken_traceparent_begins_a_trace_of_its_own(spans):
    found = spans(lambda asked: rank(asked, traceparent="00-xyz"), sample_rate=1.0)
    assert any(span["parent_id"] is None for span in found)


def test_a_share_of_the_requests_is_sampled(spans):
    def ask(asked):
        for _ in range(60):
            rank(asked)

    found = spans(ask, sample_rate=0.3)
    assert 6 <= sum(span["parent_id"] is None for span in found) <= 32


def test_the_standard_variable_wins_over_the_share(spans, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert spans(rank, sample_rate=1.0) == []


def test_a_failure_is_an_error(spans, ranker, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(type(ranker), "respond", fail)
    found = spans(rank, sample_rate=1.0)
    (root,) = [span for span in found if span["parent_id"] is None]
    assert root["status"]["status_code"] == "ERROR"
    assert root["attributes"]["error.type"] == "internal"


def test_without_the_setting_there_are_none(serving, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    assert serving().observer._tracing is None


@pytest.mark.parametrize("name", ["zipkin", "otlp"])
def test_an_exporter_that_is_not_installed_is_told(serving, monkeypatch, name):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigError, match=f"no exporter '{name}' here; install"):
        serving(trace={"enabled": True})


def test_an_installed_exporter_is_found_by_its_standard_name(serving, monkeypatch):
    found = []
    monkeypatch.setattr(
        ConsoleSpanExporter, "export", lambda self, spans: found.extend(spans)
    )
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    asked = serving(trace={"enabled": True, "sample_rate": 1.0})
    rank(asked)
    asked.observer.close()
    assert "POST /v1/rank" in {span.name for span in found}


def test_spans_reach_a_collector_by_default(serving, monkeypatch, collector):
    url, taken = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    asked = serving(trace={"enabled": True, "sample_rate": 1.0})
    rank(asked, **{"x-request-id": "r"})
    asked.observer.close()
    assert {path for path, _ in taken} == {"/v1/traces"}
    (resource,) = [each for _, sent in taken for each in sent.resource_spans]
    said = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert said["service.name"] == "recsys-mtl"
    found = [span for scope in resource.scope_spans for span in scope.spans]
    (root,) = [span for span in found if not span.parent_span_id]
    assert root.name == "POST /v1/rank"
    assert {"decode", "forward"} < {span.name for span in found}
    assert {span.trace_id for span in found} == {root.trace_id}


def test_a_collector_that_is_away_costs_requests_nothing(serving, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    asked = serving(trace={"enabled": True, "sample_rate": 1.0})
    assert rank(asked).status_code == 200
    asked.observer.close()


def test_a_file_without_spans_is_refused():
    with pytest.raises(ValidationError, match="no effect without enabled"):
        TraceSettings(file="spans")
