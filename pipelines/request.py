"""One request to a server of a bundle: does the whole way answer?"""

from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_mtl.config.data import TimestampSpec
from recsys_mtl.errors import EnvironmentFault
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.progress import OnProgress, Progress, silent
from recsys_mtl.rank.raw import raw_time
from serving.process import ServerProcess
from serving.settings import Engine

__all__ = ["ask_once"]

_NUM_CANDIDATES = 10


def ask_once(
    bundle: Path,
    tables: Path,
    *,
    engine: Engine = "ray",
    on_progress: OnProgress = silent,
) -> dict[str, Any]:
    """Start a server, let it rank items for a user of the test rows, stop it.

    Args:
        bundle: Folder that ``write_bundle`` wrote.
        tables: Feature tables with rows to ask about.
        engine: What runs the server.
        on_progress: Told of the three steps.

    Returns:
        ``request`` and ``response``.

    Raises:
        EnvironmentFault: The server did not start, or did not answer as it should.
    """
    request = _request(tables, load_bundle(bundle).recipe.data.timestamp)
    stage = "serve one request"
    on_progress(Progress(stage, 0, 3, "starting the server"))
    with ServerProcess(bundle, engine=engine) as server:
        on_progress(Progress(stage, 1, 3, server.url))
        try:
            answer = httpx.post(
                f"{server.url}/v1/rank", json=request, timeout=30.0, trust_env=False
            )
        except httpx.TransportError as fault:
            raise EnvironmentFault(
                f"the server at {server.url} did not answer: {fault}; run "
                "`recsys-mtl serve --verbose` on the bundle to see why"
            ) from fault
        if not answer.is_success:
            raise EnvironmentFault(
                f"the server at {server.url} answered {answer.status_code}: "
                f"{answer.text}; run `recsys-mtl serve --verbose` to see why"
            )
        on_progress(Progress(stage, 2, 3, "stopping the server"))
    on_progress(Progress(stage, 3, 3))
    return {"request": request, "response": answer.json()}


def _request(tables: Path, timestamp: TimestampSpec | None) -> dict[str, Any]:
    """Candidates by id alone: items that test users saw, for the first of them."""
    part = min((tables / "test").glob("part-*.parquet"))
    rows = next(
        pq.ParquetFile(part).iter_batches(
            batch_size=1_000, columns=["key.user", "key.item", "key.time"]
        )
    )
    table = pa.Table.from_batches([rows])
    items = table.column("key.item").unique().to_pylist()
    request: dict[str, Any] = {
        "user": {"id": table.column("key.user")[0].as_py()},
        "item_ids": [item for item in items if item is not None][:_NUM_CANDIDATES],
    }
    micros = table.column("key.time")[0].as_py()
    if timestamp is not None and micros is not None:
        request["context"] = {timestamp.column: raw_time(micros, timestamp)}
    return request
