"""The same model as people serve it first: FastAPI, pydantic, rows of JSON, defaults.

    python benchmarks/serving_default.py runs/kuairand/bundle 8001

Runs until its standard input ends. ``serving.py`` starts it for comparison.
"""

import logging
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker

app = FastAPI()


class Rows(BaseModel):
    """Raw columns of each candidate, the user's id among them."""

    rows: list[dict[str, Any]]


class Predictions(BaseModel):
    """By row: score and prediction of each task."""

    rows: list[dict[str, float]]


@serve.deployment
@serve.ingress(app)
class Model:
    """One replica of the ranker."""

    def __init__(self, bundle: str) -> None:
        self.ranker = Ranker(load_bundle(Path(bundle)))

    @app.post("/score")
    def score(self, body: Rows) -> Predictions:
        """Score all rows."""
        scored = self.ranker.score(pa.Table.from_pylist(body.rows))
        return Predictions(
            rows=[
                {"score": score, **dict(zip(self.ranker.tasks, row, strict=True))}
                for score, row in zip(
                    scored.score_B.tolist(), scored.prediction_BT.tolist(), strict=True
                )
            ]
        )


def main() -> None:
    """Serve until standard input ends."""
    bundle, port = sys.argv[1], int(sys.argv[2])
    logging.disable(logging.WARNING)
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Model.bind(str(Path(bundle).resolve())))  # type: ignore[attr-defined]
    print("ready", flush=True)
    sys.stdin.read()
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


if __name__ == "__main__":
    main()
