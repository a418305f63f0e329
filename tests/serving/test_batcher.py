"""The queue in front of the model, driven by a ranker whose pace the test sets."""

import asyncio
import random
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_mtl.errors import RequestError
from recsys_mtl.rank.card import ModelCard
from recsys_mtl.rank.request import ScoreRequest
from serving.batcher import Batcher
from serving.fault import HttpFault
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


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(
            st.integers(1, 12),  # rows
            st.sampled_from(["a", "b", "c"]),  # model
            st.sampled_from([None, None, None, "bad", "poison", "cancel", "late"]),
            st.booleans(),  # whether the loop runs before the next one comes
        ),
        max_size=25,
    ),
    seed=st.integers(0, 9),
)
def test_every_request_is_answered_exactly_once_in_order_and_within_bounds(
    arrivals, seed
):
    paces = {name: Pace() for name in "abc"}
    models = {name: served(pace, name) for name, pace in paces.items()}
    luck = random.Random(seed)

    async def main():
        queue, futures = batcher(), []
        for number, (rows, name, kind, breathe) in enumerate(arrivals):
            deadline = time.monotonic() - 1 if kind == "late" else None
            future = put(queue, models[name], number, rows, deadline, kind)
            futures.append(future)
            if breathe:
                await asyncio.sleep(luck.choice([0, 0, 0.001]))
            if kind == "cancel":
                future.cancel()
        # No lost wake-up: all of it ends by itself.
        return await asyncio.wait_for(
            asyncio.gather(*futures, return_exceptions=True), 20
        )

    results = asyncio.run(main())
    for number, ((_, _, kind, _), got) in enumerate(
        zip(arrivals, results, strict=True)
    ):
        match kind:
            case None:
                assert got.request_id == str(number)
            case "bad":
                assert isinstance(got, RequestError)
            case "poison":
                assert isinstance(got, ZeroDivisionError)
            case "late":
                assert got.status == 504
            case "cancel":
                # Too late to cancel what is answered already.
                answered = getattr(got, "request_id", None) == str(number)
                assert answered or isinstance(got, asyncio.CancelledError)
    for name, pace in paces.items():
        seen = [number for batch in pace.batches for number in batch]
        wanted = [str(n) for n, a in enumerate(arrivals) if a[1] == name]
        late = {str(n) for n, a in enumerate(arrivals) if a[2] == "late"}
        firsts = list(dict.fromkeys(seen))
        assert firsts == [n for n in wanted if n in set(firsts)]  # in order of arrival
        assert not late & set(seen)  # and nothing is done for those who are late
        for batch in pace.batches:
            rows = sum(arrivals[int(number)][0] for number in batch)
            assert rows <= 10 or len(batch) == 1


def test_an_idle_model_starts_at_once_and_what_waits_goes_together():
    pace = Pace()
    model = served(pace)

    async def main():
        queue = batcher()
        pace.go.clear()
        futures = [put(queue, model, 0)]
        await settle(pace)
        futures += [put(queue, model, number, rows=3) for number in range(1, 6)]
        await asyncio.sleep(0.02)
        assert pace.batches == [["0"]]
        assert (queue.waiting_requests, queue.waiting_rows) == (5, 15)
        pace.go.set()
        await asyncio.gather(*futures)
        assert (queue.waiting_requests, queue.waiting_rows) == (0, 0)

    asyncio.run(main())
    assert pace.batches == [["0"], ["1", "2", "3"], ["4", "5"]]


def test_models_take_turns():
    busy, quiet = Pace(), Pace()
    flooded, other = served(busy, "a"), served(quiet, "b")
    order = []

    async def main():
        queue = batcher(max_batch_rows=2)
        busy.go.clear()
        futures = [put(queue, flooded, number) for number in range(9)]
        await settle(busy)
        futures.append(put(queue, other, "x"))
        for future in futures:
            future.add_done_callback(lambda f: order.append(f.result().request_id))
        busy.go.set()
        await asyncio.gather(*futures)

    asyncio.run(main())
    # Two batches of two were before it: the one that ran, and one turn of the flood.
    assert order.index("x") <= 4


def test_a_cancelled_request_costs_nothing_and_makes_room_at_once():
    pace = Pace()
    model = served(pace)

    async def main():
        queue = batcher(max_queued_requests=2)
        pace.go.clear()
        first = put(queue, model, 0)
        await settle(pace)
        second, third = put(queue, model, 1), put(queue, model, 2)
        with pytest.raises(HttpFault) as refused:
            put(queue, model, 3)
        assert refused.value.status == 429
        second.cancel()
        await asyncio.sleep(0)
        fourth = put(queue, model, 4)
        assert (queue.waiting_requests, queue.waiting_rows) == (2, 2)
        pace.go.set()
        await asyncio.gather(first, third, fourth)

    asyncio.run(main())
    assert pace.batches == [["0"], ["2", "4"]]


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"max_queued_requests": 3}, "3 requests"),
        ({"max_queued_rows": 30}, "30 candidates"),
        ({"max_wait_s": 0.77}, "longer than 0.77 s"),
    ],
)
def test_a_full_queue_refuses_and_says_when_to_ask_again(bounds, reason):
    pace = Pace(seconds_a_row=0.02)
    model = served(pace)

    async def main():
        queue = batcher(max_batch_rows=1_000, **bounds)
        await put(queue, model, "first", rows=10)
        pace.go.clear()
        running = put(queue, model, "running", rows=10)
        await asyncio.sleep(0.01)
        futures = [running, *(put(queue, model, n, rows=10) for n in range(3))]
        with pytest.raises(HttpFault, match=reason) as refused:
            put(queue, model, "too many", rows=10)
        wait = queue.expected_wait_s()
        assert 0.5 < wait < 2.0  # four requests of about .2 s
        assert refused.value.status == 429
        assert wait <= int(refused.value.headers["retry-after"]) <= wait + 1
        for future in futures:
            future.cancel()
        pace.go.set()

    asyncio.run(main())


def test_who_waited_longer_than_the_bound_is_refused_and_costs_nothing():
    pace = Pace()
    model = served(pace)

    async def main():
        queue = batcher(max_wait_s=0.1)
        pace.go.clear()
        running = put(queue, model, "running")
        await settle(pace)
        waiting = [put(queue, model, n) for n in range(2)]  # nothing is learned yet
        await asyncio.sleep(0.15)
        soon = put(queue, model, "soon")
        pace.go.set()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        for fault in told:
            assert (fault.status, fault.reason) == (429, "waited")
            assert "longer than 0.1 s" in fault.message
        await asyncio.gather(running, soon)
        assert queue.waiting_requests == queue.waiting_rows == 0

    asyncio.run(main())
    assert pace.batches == [["running"], ["soon"]]


def test_short_batches_are_scored_where_they_arrive():
    pace = Pace(seconds_a_row=0.002)
    model, here = served(pace), threading.current_thread()

    async def main():
        queue = batcher(max_batch_rows=100, inline_s=0.03)
        await put(queue, model, "first", rows=1)  # nobody knows yet how long it takes
        await put(queue, model, "short", rows=5)
        await put(queue, model, "long", rows=40)
        futures = [put(queue, model, n, rows=2) for n in range(3)]
        await asyncio.gather(*futures)
        broken = put(queue, model, "broken", kind="poison")
        refused = put(queue, model, "refused", kind="bad")
        fine = put(queue, model, "fine")
        told = await asyncio.gather(broken, refused, fine, return_exceptions=True)
        assert [type(one).__name__ for one in told] == [
            "ZeroDivisionError",
            "RequestError",
            "SimpleNamespace",
        ]

    asyncio.run(main())
    assert pace.batches[:4] == [["first"], ["short"], ["long"], ["0", "1", "2"]]
    assert [t is here for t in pace.threads[:4]] == [False, True, False, True]


def test_a_flood_of_short_batches_leaves_the_loop_its_turns():
    pace = Pace()
    model = served(pace)

    async def main():
        queue = batcher(max_batch_rows=1, inline_s=LONG)
        await put(queue, model, "learn")
        futures = [put(queue, model, n) for n in range(20)]
        turns = 0
        while not all(future.done() for future in futures):
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 20

    asyncio.run(main())
    assert len(pace.batches) == 21


def test_requests_may_wait_longer_while_models_change():
    pace = Pace(seconds_a_row=0.02)
    model = served(pace)

    async def main():
        queue = batcher(max_batch_rows=1_000, max_wait_s=0.3, swap_patience=4.0)
        await put(queue, model, "learn", rows=10)
        pace.go.clear()
        futures = [put(queue, model, "running", rows=10)]
        await asyncio.sleep(0.01)
        futures += [put(queue, model, "first", rows=10)]
        with pytest.raises(HttpFault, match=r"longer than 0\.3 s"):
            put(queue, model, "too many", rows=10)
        queue.patient = lambda: True
        futures += [put(queue, model, "patient", rows=10)]
        await asyncio.sleep(0.35)  # longer than either would have had
        pace.go.set()
        await asyncio.gather(*futures)

    asyncio.run(main())
    assert pace.batches[-1] == ["first", "patient"]


def test_a_batch_is_no_larger_than_its_earliest_deadline_allows():
    pace = Pace(seconds_a_row=0.01)
    model = served(pace)

    async def main():
        queue = batcher(max_batch_rows=1_000)
        for rows in (5, 10, 20):
            await put(queue, model, f"learn {rows}", rows=rows)
        pace.go.clear()
        running = put(queue, model, "running", rows=1)
        await asyncio.sleep(0.02)
        soon = time.monotonic() + 0.3  # twenty rows take about .2 s, forty .4 s
        futures = [put(queue, model, 1, rows=20, deadline=soon)]
        futures += [put(queue, model, n, rows=20) for n in (2, 3)]
        pace.go.set()
        await asyncio.gather(running, *futures)

    asyncio.run(main())
    assert pace.batches[-2:] == [["1"], ["2", "3"]]


def test_what_cannot_be_done_in_time_is_not_begun():
    pace = Pace(seconds_a_row=0.005)
    model = served(pace)

    async def main():
        queue = batcher(max_batch_rows=1_000)
        await put(queue, model, "learn", rows=20)
        with pytest.raises(HttpFault, match="too late") as late:
            await put(queue, model, 1, rows=100, deadline=time.monotonic() + 0.1)
        assert late.value.status == 504

    asyncio.run(main())
    assert pace.batches == [["learn"]]


def test_one_slow_batch_does_not_close_the_door_for_good():
    pace = Pace(seconds_a_row=0.5)
    model = served(pace)

    async def main():
        queue = batcher()
        await put(queue, model, "slow")
        pace.seconds_a_row = 0.0
        refused = 0
        while refused < 100:
            try:
                await put(queue, model, 1, deadline=time.monotonic() + 0.1)
            except HttpFault:
                refused += 1
            else:
                return refused
        raise AssertionError("refused for ever")

    assert 0 < asyncio.run(main()) < 100


def test_a_loop_that_ended_midway_does_not_stop_the_next():
    pace = Pace()
    model = served(pace)
    queue = batcher()

    async def leave():
        pace.go.clear()
        put(queue, model, 0)
        await settle(pace)
        put(queue, model, 1)

    async def stay():
        future = put(queue, model, 2)
        pace.go.set()
        return await asyncio.wait_for(future, 10)

    asyncio.run(leave())
    assert asyncio.run(stay()).request_id == "2"
