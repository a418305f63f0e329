"""What sending features costs: the same candidates in JSON, Arrow and binary tensors.

    python benchmarks/protocols.py

A bundle of an untrained network with 13 real and 13 categorical columns of items is
served by uvicorn in a process of its own; one connection sends 2,000 candidates with
all 26 columns given, a few times in each way in turn, of which the first does not
count: it pays for what another way leaves behind. Bodies are made beforehand; the
client reads answers without decoding them. Client and server share the machine.

Prints one JSON line a way, medians of milliseconds a request with the server's own
means by stage, taken from its metrics in further requests; and last a line of ratios to
JSON rows. ``receive``, ``decode``, ``read`` and ``serialise`` depend on the way;
``encode``, ``forward`` and ``fuse`` are the same work after each, but for words that
are encoded by dictionary and candidates that are answered as a table.
"""

import argparse
import http.client
import json
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import torch
from prometheus_client.parser import text_string_to_metric_families

# Before the folder of this file, which has a program named like the package serving.
sys.path.insert(0, str(Path(__file__).parents[1]))
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.export.bundle import write_bundle
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.fit import FeaturizerFit
from recsys_mtl.features.manifest import FeatureManifest, TaskStats, recipe_digest
from recsys_mtl.features.signature import plan_raw
from recsys_mtl.model.build import build_network
from serving.media import ARROW, JSON
from serving.process import ServerProcess
from serving.routes.ranking import REQUEST_KEY

REALS = [f"real_{i}" for i in range(13)]
WORDS = [f"word_{i}" for i in range(13)]
USER = {"id": "u1"}
_BLOCK = 5
"""Counted requests of one way after another."""


def recipe() -> Recipe:
    """Two tasks over the columns of an item."""
    return Recipe.model_validate(
        {
            "name": "protocols",
            "data": {
                "interactions": {"kind": "parquet", "path": "unused"},
                "items": {"source": {"kind": "parquet", "path": "unused"}},
                "keys": {"user": "user_id", "item": "item_id"},
                "split": {"kind": "hash", "column": "user_id"},
            },
            "features": [
                {"kind": "categorical", "name": "user_id"},
                *({"kind": "numeric", "name": name} for name in REALS),
                *({"kind": "categorical", "name": name} for name in WORDS),
            ],
            "tasks": [
                {"kind": "binary", "name": name, "label": name}
                for name in ("click", "like")
            ],
            "model": {
                "embedding": {"dim": 8},
                "gating": {"kind": "mmoe", "hidden": [64], "num_experts": 2},
                "tower": {"kind": "mlp", "hidden": [16]},
            },
        }
    )


def make_bundle(folder: Path, items: pa.Table) -> Path:
    """Write a bundle whose encoders know ``items``; its network is not trained."""
    rows, spec = items.num_rows, recipe()
    log = pa.table(
        {
            "user_id": [f"u{i % 50}" for i in range(rows)],
            "item_id": items["item_id"],
            "click": [i % 2 for i in range(rows)],
            "like": [i % 3 == 0 for i in range(rows)],
        }
    )
    plan = plan_raw(spec, log.schema, None, items.schema)
    fit = FeaturizerFit(spec, plan.signature)
    fit.update(log.join(items, "item_id"))
    featurizer = fit.finish()
    tables = folder / "tables"
    featurizer.save(tables / "encoders")
    EntityTable.build(items, "item_id").save(tables / "items.arrow")
    stats = {
        task.name: {
            "train": TaskStats(
                rows=rows, positives=rows // 2, mean=0.5, log_mean=0.4, log_std=0.5
            )
        }
        for task in spec.tasks
    }
    FeatureManifest(
        recipe=spec.model_dump(mode="json"),
        recipe_digest=recipe_digest(spec),
        feature_schema=featurizer.schema,
        signature=plan.signature,
        splits={},
        tasks=stats,
    ).save(tables)
    network = build_network(
        spec.model,
        spec.features,
        featurizer.schema,
        spec.tasks,
        {task: of["train"] for task, of in stats.items()},
        device=torch.device("cpu"),
    )
    return write_bundle(
        folder / "bundle",
        recipe=spec,
        tables=tables,
        state=network.state_dict(),
        metrics={},
    )


def make_items(rows: int) -> pa.Table:
    """Draw items."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {"item_id": np.arange(rows)}
    columns |= {name: rng.normal(size=rows) for name in REALS}
    columns |= {
        name: [f"w{word}" for word in rng.integers(0, 500, rows)] for name in WORDS
    }
    return pa.table(columns)


Way = tuple[str, bytes, dict[str, str]]
"""Path, body and headers."""


def bodies(items: pa.Table) -> dict[str, Way]:
    """Path, body and headers of each way."""
    cells = items.to_pydict()
    ids = cells.pop("item_id")
    given = [
        {"id": item, "features": {name: cells[name][i] for name in cells}}
        for i, item in enumerate(ids)
    ]
    whole = items.append_column("user_id", pa.array(["u1"] * items.num_rows))
    columns = whole.to_pydict()
    coded = items
    for place, name in enumerate(items.column_names):
        if name in WORDS:
            coded = coded.set_column(place, name, items[name].dictionary_encode())
    rest = {REQUEST_KEY: json.dumps({"user": USER})}
    arrow = {"content-type": ARROW, "accept": ARROW}
    json_type = {"content-type": JSON}
    tensors, length = _tensors(whole)
    return {
        "rank, JSON rows": (
            "/v1/rank",
            json.dumps({"user": USER, "items": given}).encode(),
            json_type,
        ),
        "rank, Arrow": (
            "/v1/rank",
            _stream(items.replace_schema_metadata(rest)),
            arrow,
        ),
        "rank, Arrow, words as dictionaries": (
            "/v1/rank",
            _stream(coded.replace_schema_metadata(rest)),
            arrow,
        ),
        "score, JSON rows": (
            "/v1/score",
            json.dumps({"rows": whole.to_pylist()}).encode(),
            json_type,
        ),
        "score, JSON columns": (
            "/v1/score",
            json.dumps({"columns": columns}).encode(),
            json_type,
        ),
        "score, Arrow": ("/v1/score", _stream(whole), arrow),
        "infer, binary tensors": (
            "/v2/models/protocols/infer",
            tensors,
            {"inference-header-content-length": str(length)},
        ),
    }


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _tensors(table: pa.Table) -> tuple[bytes, int]:
    inputs, behind = [], []
    for name in table.column_names:
        cells = table[name].to_pylist()
        if isinstance(cells[0], str):
            datatype = "BYTES"
            packed = b"".join(
                struct.pack("<I", len(cell)) + cell.encode() for cell in cells
            )
        else:
            array = np.asarray(cells)
            datatype = "FP64" if array.dtype.kind == "f" else "INT64"
            packed = array.tobytes()
        behind.append(packed)
        inputs.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": [len(cells)],
                "parameters": {"binary_data_size": len(packed)},
            }
        )
    head = json.dumps(
        {"inputs": inputs, "parameters": {"binary_data_output": True}}
    ).encode()
    return b"".join([head, *behind]), len(head)


class Client:
    """One connection, by a client that costs little beside the server."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> bytes:
        """Send a request; the answer's body."""
        self._connection.request(method, path, body=body, headers=headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path} answered {response.status}: {answer[:300]!r}")
        return answer

    def milliseconds(self, path: str, body: bytes, headers: dict[str, str]) -> float:
        """Time one request."""
        start = time.perf_counter()
        self.ask("POST", path, body, headers)
        return 1e3 * (time.perf_counter() - start)

    def stages(self, path: str) -> dict[str, tuple[float, float]]:
        """Tell seconds and requests by stage of a route so far."""
        told = self.ask("GET", "/metrics", b"", {}).decode()
        parts: dict[str, dict[str, float]] = {"_sum": {}, "_count": {}}
        for family in text_string_to_metric_families(told):
            for sample in family.samples:
                kind = sample.name.removeprefix("recsys_stage_seconds")
                route = sample.labels.get("route", "")
                if kind in parts and _is_route(route, path):
                    parts[kind][sample.labels["stage"]] = sample.value
        return {
            stage: (total, parts["_count"][stage])
            for stage, total in parts["_sum"].items()
        }


def _is_route(route: str, path: str) -> bool:
    """Whether ``route``, which may have a name in braces, has this path."""
    places = zip(route.split("/"), path.split("/"), strict=False)
    return route.count("/") == path.count("/") and all(
        one == other or one.startswith("{") for one, other in places
    )


def stage_ms(client: Client, way: Way, repeats: int) -> dict[str, float]:
    """Mean milliseconds of each stage over some requests of one way."""
    path, body, headers = way
    before = client.stages(path)
    for _ in range(repeats):
        client.milliseconds(path, body, headers)
    means = {}
    for stage, (total, count) in client.stages(path).items():
        total_before, count_before = before.get(stage, (0.0, 0.0))
        if count > count_before:
            ms = 1e3 * (total - total_before) / (count - count_before)
            means[stage] = round(ms, 2)
    return means


def main() -> None:
    """Serve, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.manual_seed(0)
    items = make_items(options.rows)
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder), items)
        with ServerProcess(bundle, engine="uvicorn") as server:
            client = Client(server.url)
            ways = bodies(items)
            took: dict[str, list[float]] = {way: [] for way in ways}
            for turn in range(options.repeats // _BLOCK + 1):
                for way, sent in ways.items():
                    block = [client.milliseconds(*sent) for _ in range(_BLOCK + 1)]
                    if turn > 0:  # the first ones warm caches up
                        took[way] += block[1:]
            stages = {
                name: stage_ms(client, way, options.repeats)
                for name, way in ways.items()
            }
    median = {way: statistics.median(all_ms) for way, all_ms in took.items()}
    for way, ms in median.items():
        line = {
            "way": way,
            "ms": round(ms, 2),
            "rows_per_s": round(1e3 * options.rows / ms),
            "body_bytes": len(ways[way][1]),
            "stage_ms": stages[way],
        }
        print(json.dumps(line))
    rank, score = median["rank, JSON rows"], median["score, JSON rows"]
    ratios = {
        way: round((rank if way.startswith("rank") else score) / ms, 2)
        for way, ms in median.items()
    }
    print(json.dumps({"rows_per_s_to_json_rows": ratios}))


if __name__ == "__main__":
    main()
