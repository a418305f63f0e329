"""A server as a child process, for programs that need one for a while."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self, final

import httpx
import psutil

from recsys_mtl.errors import EnvironmentFault
from serving.port import claim_port, url_of
from serving.settings import Engine

__all__ = ["ServerProcess"]


@final
class ServerProcess:
    """Runs ``recsys-mtl serve`` while the block lasts; no process outlives it.

    Args:
        source: Folder that ``write_bundle`` wrote, or a file of settings.
        engine: ``ray`` or ``uvicorn``.
        host: Address to listen on.
        port: 0 for any free one.
        replicas: Processes that score.
        timeout_s: Time it has to become ready.

    Attributes:
        url: Where it answers, as ``http://127.0.0.1:8000``.

    Raises:
        EnvironmentFault: On entering: the port is taken, the server ended by itself or
            was not ready in time; its last words are in the message.
    """

    def __init__(
        self,
        source: Path,
        *,
        engine: Engine = "ray",
        host: str = "127.0.0.1",
        port: int = 0,
        replicas: int = 1,
        timeout_s: float = 120.0,
    ) -> None:
        with contextlib.closing(claim_port(host, port)) as claimed:
            self.url = url_of(claimed)
            port = int(claimed.getsockname()[1])
        self._command = [
            *(sys.executable, "-c", _MAIN, "serve", str(source)),
            *("--engine", engine, "--host", host, "--port", str(port)),
            *(() if replicas == 1 else ("--replicas", str(replicas))),
        ]
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def replicas(self) -> list[psutil.Process]:
        """Find the processes that score at this moment, of either engine."""
        if self._process is None:
            return []
        server = psutil.Process(self._process.pid)
        found = []
        for process in server.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if _REPLICA in " ".join(process.cmdline()):
                    found.append(process)
        return found or [server]

    def __enter__(self) -> Self:
        # A file, not a pipe: nobody reads along, and a full pipe stops its writer.
        self._output = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._timeout_s
        with httpx.Client(timeout=2.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    raise EnvironmentFault(
                        f"the server ended with code {process.returncode} before it "
                        f"was ready; it said: {self._last_words()}"
                    )
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"{self.url}/readyz").is_success:
                        return
                time.sleep(_POLL_S)
        raise EnvironmentFault(
            f"the server was not ready after {self._timeout_s:.0f} s; it said: "
            f"{self._last_words()}"
        )

    def _last_words(self) -> str:
        assert self._output is not None
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-20:]) or "nothing"

    def _stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # Normally all gone by now; this is for a server that was killed midway.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(family, timeout=_STOP_TIMEOUT_S)
        if self._output is not None:
            self._output.close()


_MAIN = "from recsys_mtl.cli import main; main()"
_REPLICA = "ServeReplica"  # of Ray's name for such a process
_POLL_S = 0.1
_STOP_TIMEOUT_S = 30.0
