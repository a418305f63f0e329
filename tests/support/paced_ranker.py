"""A queue in front of a ranker whose pace the test sets."""

import asyncio
import threading
import time
from types import SimpleNamespace

from recsys_mtl.errors import RequestError
from recsys_mtl.rank.card import ModelCard
from recsys_mtl.rank.request import ScoreRequest
from serving.batcher import Batcher
from serving.model_set import ServedModel
from serving.settings import BatchingSettings, OverloadSettings

CARD = ModelCard(
    **dict.fromkeys(ModelCard.__struct_fields__) | {"name": "m", "version": "1"}
)
LONG = 1e9


class Pace:
    """Stands where a ranker does: notes its batches, and takes the time it is told."""

    def __init__(self, seconds_a_row=0.0):
        self.card = CARD
        self.batches, self.threads = [], []
        self.seconds_a_row = seconds_a_row
        self.go = threading.Event()
        self.go.set()

    def respond(self, requests, *, now_us, observation):
        assert now_us > 1_600_000_000_000_000
        self.batches.append([request.request_id for request in requests])
        self.threads.append(threading.current_thread())
        assert self.go.wait(20)
        rows = sum(len(request.rows) for request in requests)
        time.sleep(rows * self.seconds_a_row)
        if any(request.model == "poison" for request in requests):
            raise ZeroDivisionError("poison")
        return [
            RequestError("rows", "refused")
            if request.model == "bad"
            else SimpleNamespace(request_id=request.request_id)
            for request in requests
        ]


def served(pace, name="m"):
    return ServedModel(name, pace, 1.0)


def ask(number, rows=1, model=None):
    return ScoreRequest(str(number), model=model, rows=[{}] * rows)


def batcher(**bounds):
    rows, inline_s = bounds.pop("max_batch_rows", 10), bounds.pop("inline_s", 0.0)
    return Batcher(
        BatchingSettings(max_batch_rows=rows, inline_s=inline_s),
        OverloadSettings(**{"max_wait_s": LONG} | bounds),
    )


def put(queue, model, number, rows=1, deadline=None, kind=None):
    deadline = time.monotonic() + 60 if deadline is None else deadline
    return queue.put(model, ask(number, rows, kind), rows=rows, deadline=deadline)


async def settle(pace):
    """Let the worker take the first batch and wait in it."""
    while not pace.batches:
        await asyncio.sleep(0.001)
