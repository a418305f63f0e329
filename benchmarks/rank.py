"""What a rank request costs inside the process, stage by stage, in two ways.

    recsys-mtl run kuairand --output runs/kuairand
    python benchmarks/rank.py runs/kuairand/bundle

``gathered`` is what a ranker does: users and items come from what the bundle has
encoded, and what candidates share is encoded once. ``plain`` joins and encodes every
candidate as a raw row, which is what ``Ranker.score`` does. Both give the same scores,
which is checked. Candidates and users are drawn from the bundle; requests name ids
only. One thread; both ways take turns. Prints one JSON line a way and number of
candidates: medians of CPU milliseconds, in all and by stage. The last lines are of 16
requests of 30 candidates, answered ``together`` and ``alone``.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from recsys_mtl.export.bundle import Bundle, load_bundle
from recsys_mtl.export.encoded import encode_store
from recsys_mtl.rank.answer import best_first, rank_response
from recsys_mtl.rank.encode import RequestEncoder
from recsys_mtl.rank.parts import RankParts
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.raw import RequestReader
from recsys_mtl.rank.request import RankRequest, RankResponse, UserInput
from recsys_mtl.rank.scored import Scored
from recsys_mtl.rank.scorer import Scorer

_NOW_US = int(time.time() * 1e6)
_STAGES = ("read", "encode", "forward", "fuse")


class Pipelines:
    """Both ways from a request to its answer, cut into stages."""

    def __init__(self, bundle: Bundle) -> None:
        data = bundle.recipe.data
        self.card = Ranker(bundle).card
        self.reader = RequestReader(self.card.signature, data.keys, data.timestamp)
        self.scorer = Scorer(bundle, bundle.recipe.fused_score)
        encoded = bundle.encoded or encode_store(bundle.featurizer, bundle.store)
        self.encoder = RequestEncoder(bundle.featurizer, bundle.store, encoded)
        self.chosen = [(task, t) for t, task in enumerate(self.scorer.tasks)]

    def gathered(self, request: RankRequest, clock: "Clock") -> RankResponse:
        """Answer as ``Ranker.respond`` does."""
        parts = self.reader.ranking(request, _NOW_US)
        assert self.encoder.splits(parts), "this bundle's rows cannot be gathered"
        clock.done("read")
        found = self.encoder.together([self.encoder.encode(parts)])
        clock.done("encode")
        predicted = self.scorer.of_requests(found.batch, details=False)
        clock.done("forward")
        known_user_N = found.known_user_R[found.batch.request_N]
        scored = self.scorer.fuse(predicted, known_user_N, found.known_item_N)
        return self._told(request, parts, scored, clock)

    def plain(self, request: RankRequest, clock: "Clock") -> RankResponse:
        """Answer through raw rows."""
        parts = self.reader.ranking(request, _NOW_US)
        table = parts.table
        clock.done("read")
        assembled, encoded = self.scorer.encode(table)
        clock.done("encode")
        predicted = self.scorer.of_rows(encoded, details=False)
        clock.done("forward")
        scored = self.scorer.fuse(predicted, *self.scorer.known(assembled))
        return self._told(request, parts, scored, clock)

    def _told(
        self, request: RankRequest, parts: RankParts, scored: Scored, clock: "Clock"
    ) -> RankResponse:
        order = best_first(scored, request.top_k)
        response = rank_response(
            self.card, request, parts, scored, self.chosen, order, None
        )
        clock.done("fuse")
        return response


class Clock:
    """CPU milliseconds by stage, of as many runs as there were."""

    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = {stage: [] for stage in _STAGES}
        self._last = 0

    def start(self) -> None:
        """Begin a run."""
        self._last = time.process_time_ns()

    def done(self, stage: str) -> None:
        """End a stage, and begin the next."""
        now = time.process_time_ns()
        self.ms[stage].append((now - self._last) / 1e6)
        self._last = now

    def medians(self) -> dict[str, float]:
        """Of each stage, and of whole runs."""
        found = {stage: statistics.median(ms) for stage, ms in self.ms.items()}
        runs = [sum(run) for run in zip(*self.ms.values(), strict=True)]
        outside = [sum(run) - run[2] for run in zip(*self.ms.values(), strict=True)]
        found["total"] = statistics.median(runs)
        found["outside_network"] = statistics.median(outside)
        return {name: round(ms, 3) for name, ms in found.items()}


def main() -> None:
    """Time both ways and print what they took."""
    parser = argparse.ArgumentParser(description="What a rank request costs.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--candidates", type=int, nargs="*", default=[1, 100, 500, 1000]
    )
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle = load_bundle(options.bundle)
    draw = _drawn(bundle)
    ways = Pipelines(bundle)
    with torch.inference_mode():
        for count in options.candidates:
            _compare(ways, draw, count, options.repeats)
        _together(Ranker(bundle), draw, options.repeats)


def _compare(
    ways: Pipelines, draw: Callable[[int], RankRequest], count: int, repeats: int
) -> None:
    clocks = {"gathered": Clock(), "plain": Clock()}
    for run in range(repeats + 3):
        request = draw(count)
        answers = []
        for name, clock in clocks.items():
            used = clock if run >= 3 else Clock()
            used.start()
            answers.append(getattr(ways, name)(request, used))
        scores = [sorted(item.score for item in answer.items) for answer in answers]
        np.testing.assert_allclose(*scores, atol=1e-5)
    for name, clock in clocks.items():
        line = {"way": name, "candidates": count, "cpu_ms": clock.medians()}
        print(json.dumps(line), flush=True)


def _together(ranker: Ranker, draw: Callable[[int], RankRequest], repeats: int) -> None:
    took: dict[str, list[float]] = {"together": [], "alone": []}
    for _ in range(max(repeats // 10, 3)):
        requests = [draw(30) for _ in range(16)]
        for name, groups in (
            ("together", [requests]),
            ("alone", [[r] for r in requests]),
        ):
            start = time.process_time_ns()
            for group in groups:
                ranker.respond(group, now_us=_NOW_US)
            took[name].append((time.process_time_ns() - start) / 1e6)
    for name, ms in took.items():
        total = round(statistics.median(ms), 3)
        line = {
            "way": name,
            "requests": 16,
            "candidates": 30,
            "cpu_ms": {"total": total},
        }
        print(json.dumps(line), flush=True)


def _drawn(bundle: Bundle) -> Callable[[int], RankRequest]:
    """Requests of known users and items."""
    rng = np.random.default_rng(0)
    ids = []
    for table in (bundle.store.users, bundle.store.items):
        assert table is not None, "needs a bundle with tables of users and items"
        ids.append(table.rows.column(table.key).to_pylist())
    users, items = ids

    def draw(count: int) -> RankRequest:
        user = UserInput(id=users[rng.integers(len(users))])
        chosen = rng.integers(len(items), size=count)
        return RankRequest(user=user, item_ids=[items[i] for i in chosen])

    return draw


if __name__ == "__main__":
    main()
