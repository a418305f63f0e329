"""Other models for a running server: loaded, tried out, and only then answering."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, final

import msgspec

from recsys_mtl.errors import ConfigError
from recsys_mtl.rank.fusion import LARGEST
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import (
    RankedTable,
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
)
from serving.fault import HttpFault
from serving.model_set import ModelSet, ServedModel, load_models
from serving.settings import ServedModels

__all__ = ["Outcome", "RecentRequests", "Swap", "warm_up"]

Outcome = Literal["switched", "refused"]
"""Of a swap."""

_Ask = RankRequest | ScoreRequest

_SETTLE_S: Final = 3.0
"""After each step; by then the next one came, or proxies know where replicas are."""


@final
class RecentRequests:
    """A few of the latest requests that were answered, to try other models with.

    One in so many seconds, so that they are of different moments; what they hold never
    leaves memory.

    Args:
        size: How many are kept.
        every_s: Seconds between two of them.
        max_rows: Candidates of a request above which it is not kept.
    """

    def __init__(
        self, size: int = 16, *, every_s: float = 0.5, max_rows: int = 2_000
    ) -> None:
        self._kept: deque[tuple[str, _Ask]] = deque(maxlen=size)
        self._every_s = every_s
        self._max_rows = max_rows
        self._next = 0.0

    def offer(self, unit: str, request: _Ask, rows: int) -> None:
        """Keep a request, if it is time for one.

        Args:
            unit: What its model was chosen by.
            request: As it came.
            rows: Its candidates.
        """
        now = time.monotonic()
        if now >= self._next and rows <= self._max_rows:
            self._next = now + self._every_s
            self._kept.append((unit, request))

    def __iter__(self) -> Iterator[tuple[str, _Ask]]:
        """Give units and requests, the oldest first."""
        return iter(tuple(self._kept))


@final
class Swap:
    """Changes the models of a server while it answers.

    The steps are apart because replicas take the second one together: ``prepare`` may
    take long and may fail, ``switch`` does neither. Bundles that stay are not loaded
    again, and neither are those that answered before the last switch: the way back is
    as short as it can be.

    Args:
        models: What answers now.
        settings: Which bundles these are, with what traffic.
        recent: Requests to try other models with.
        turn: A file that replicas of a machine lock while they load, so that they do
            not all slow down at once; none where there is one process.

    Attributes:
        settings: What answers now.
        watch: Called with what came of a swap.
    """

    def __init__(
        self,
        models: ModelSet,
        settings: ServedModels,
        recent: RecentRequests,
        *,
        turn: Path | None = None,
    ) -> None:
        self.settings = settings
        self._now, self._before = models, models
        self._prepared: tuple[ServedModels, ModelSet] | None = None
        self._recent = recent
        self._turn = turn
        self._busy = asyncio.Lock()
        self._settled_at = -math.inf
        self.watch: Callable[[Outcome], None] = lambda _: None

    @property
    def under_way(self) -> bool:
        """Whether models change, here or on other replicas, or did a moment ago."""
        return time.monotonic() < self._settled_at

    async def prepare(self, wanted: ServedModels) -> None:
        """Verify, load and try what is wanted; the others go on answering.

        Raises:
            ArtifactError: A bundle is incomplete, altered, or of another format.
            ConfigError: Names or scores do not fit the bundles, a score overflows, or a
                model refuses requests that are answered now.
        """
        async with self._busy:
            if wanted == self.settings:
                return
            if not self.has(wanted):
                self._settled_at = math.inf
                try:
                    models = await asyncio.to_thread(self._load, wanted)
                except Exception:
                    self.watch("refused")
                    raise
                finally:
                    self._settled_at = time.monotonic() + _SETTLE_S
                self._prepared = wanted, models

    def has(self, wanted: ServedModels) -> bool:
        """Whether that is prepared."""
        return self._prepared is not None and self._prepared[0] == wanted

    def switch(self, wanted: ServedModels) -> ModelSet:
        """Take what was prepared.

        Args:
            wanted: What ``prepare`` got last.

        Returns:
            The models to answer from now on.
        """
        if wanted != self.settings:
            assert self._prepared is not None, "prepare first"
            assert self._prepared[0] == wanted, "another set was prepared since"
            self._before, self._now = self._now, self._prepared[1]
            self.settings, self._prepared = wanted, None
            self._settled_at = time.monotonic() + _SETTLE_S
            self.watch("switched")
        return self._now

    def _load(self, wanted: ServedModels) -> ModelSet:
        with _locked(self._turn):
            known = (*self._now.models, *self._before.models)
            models = load_models(wanted.models, known=known)
            rankers = {id(model.ranker) for model in known}
            fresh = [m for m in models.models if id(m.ranker) not in rankers]
            warm_up(fresh)
            _try(models, fresh, self._recent)
            return models


def warm_up(models: Iterable[ServedModel]) -> None:
    """Send every model its own example requests, twice: the second finds all made.

    Raises:
        RecsysError: What a model says to its own example.
        ConfigError: Its scores overflow.
    """
    for model in models:
        examples: list[_Ask] = [model.ranker.example(), model.ranker.example_rows()]
        for _ in range(2):
            for outcome in _respond(model.ranker, examples):
                if isinstance(outcome, Exception):
                    raise outcome
                _refuse_overflow(model, outcome, "its own example")


def _try(
    models: ModelSet, fresh: Iterable[ServedModel], recent: RecentRequests
) -> None:
    """Let new models answer what is answered now."""
    asked: dict[str, list[_Ask]] = {model.name: [] for model in fresh}
    for unit, ask in recent:
        # A model that is asked for by name and gone is gone on purpose.
        with contextlib.suppress(HttpFault):
            asked.get(models.choose(ask.model, unit)[0].name, []).append(ask)
    for name, asks in asked.items():
        outcomes = _respond(models.named(name).ranker, asks)
        for outcome in outcomes:
            _refuse_overflow(models.named(name), outcome, "a recent request")
        refused = [fault for fault in outcomes if isinstance(fault, Exception)]
        if refused:
            raise ConfigError(
                f"model {name!r} refuses {len(refused)} of {len(asks)} recent requests "
                f"that are answered now, the first with: {refused[0]}; serve it under "
                "another name, or correct its recipe"
            )


def _refuse_overflow(model: ServedModel, outcome: object, asked: str) -> None:
    """Refuse a model by a score that stands for one that is no finite number."""
    match outcome:
        case RankedTable(table=table):
            scores = table.column("score").to_pylist()
        case RankResponse(items=items):
            scores = [item.score for item in items]
        case ScoreResponse(score=scores):
            pass
        case _:
            return
    if any(abs(score) >= LARGEST for score in scores):
        raise ConfigError(
            f"model {model.name!r} gives {asked} a score that is no finite number: the "
            f"{model.card.scoring.kind} overflows, or predictions do; give it weights "
            f"nearer to 0 than {model.card.scoring.weights}, or train it again"
        )


def _respond(ranker: Ranker, asks: list[_Ask]) -> list[object]:
    """Ask one at a time, so that what one causes does not hit the others."""
    outcomes: list[object] = []
    for ask in asks:
        named = msgspec.structs.replace(ask, request_id="warm-up")
        outcomes += ranker.respond([named], now_us=time.time_ns() // 1_000)
    return outcomes


@contextlib.contextmanager
def _locked(turn: Path | None) -> Iterator[None]:
    if turn is None:
        yield
        return
    import fcntl  # where there are replicas; Windows has none

    with turn.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file, or with the process
        yield
