"""The queue in front of the model: how long requests wait, and how long they may."""

import asyncio
import time

import pytest
from paced_ranker import Pace, batcher, put, served, settle

from serving.fault import HttpFault


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
