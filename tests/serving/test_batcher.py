"""The queue in front of the model: order, bounds, and who is answered."""

import asyncio
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paced_ranker import LONG, Pace, batcher, put, served, settle

from recsys_mtl.errors import RequestError
from serving.fault import HttpFault


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
