"""A short-video and shop feed whose true probabilities are known.

Every row is an impression. Its columns:

=========================  =========================================================
``user_id, item_id``       keys of ``Simulator.users`` and ``Simulator.items``
``time_ms, day, hour``     when: milliseconds since 1970, day of the log, hour in UTC
``position``               place on the page, 0 to 9
``tab, device``            where in the app, and on what
``is_click``               the item was opened
``long_view``              watched for 18 seconds or, if shorter, to the end
``like, follow, order``    feedback; each only after a click
``watch_s``                seconds watched, 0 without a click
``fatigue_s``              seconds until the user left, or was lost sight of
``fatigue_event``          whether the user left then
``true.click``             probability of the click given everything before it
``true.<task>``            of ``long_view, like, follow, order``: given a click
``true.watch_s``           expected seconds given a click
``true.fatigue_rate``      gives the hazard of leaving: see ``data.fatigue``
=========================  =========================================================

The logit of a click is the sum of

* the user's taste times the item's style; both mostly follow from columns of the users
  and items tables. Tastes turn over the days by ``drift`` radians;
* the item's quality and its creator's; the user's eagerness; tab, device and hour;
* ``-position_bias * position / 9``;
* the warmth of the category: ``n`` counts the user's earlier clicks in it, each worth
  ``0.9`` of the next one; ``n exp(1 - n)`` (with ``n`` in units of 2) first rises, then
  falls: people get curious, then tired.

Likes and orders follow a taste turned away from that of clicks by ``pi * conflict``.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import expit, ndtr

from recsys_mtl.config.source import MAX_ROWS_OF_A_USER, SimulatorSource
from recsys_mtl.data.fatigue import draw_fatigue
from recsys_mtl.data.world import (
    Bools,
    Floats,
    Ints,
    Population,
    World,
    build_world,
)

__all__ = ["CHUNK_ROWS", "Simulator"]


CHUNK_ROWS = MAX_ROWS_OF_A_USER
"""Most rows of a chunk."""

START_MS = 1_767_571_200_000
"""The log begins on Monday, 5 January 2026, at midnight UTC."""

LONG_VIEW_S = 18.0
"""Watching this long is a long view; for shorter items, watching to the end."""

_DAY_MS = 86_400_000
_PAGE = 10
_TABS = ("home", "discover", "following")
_TAB_SHARES = (0.6, 0.3, 0.1)
_TAB_LOGIT = np.array([0.0, -0.25, 0.35])
_DEVICES = ("android", "ios", "web")
_DEVICE_SHARES = (0.55, 0.35, 0.10)
_DEVICE_LOGIT = np.array([0.0, 0.1, -0.3])
# Relative traffic by hour: nights are quiet, evenings busy.
_TRAFFIC = 1.0 + 0.8 * np.sin((np.arange(24) - 13.0) / 24 * 2 * np.pi)

_CLICK_BIAS = -2.15
_TASTE = 0.77
_WARMTH = 0.6
_WARM_UNIT = 2.0
_FADE = 0.9
_WATCH_SPREAD = 0.7
_LIKE_BIAS, _FOLLOW_BIAS, _ORDER_BIAS = -4.2, -5.8, -4.6
_RESOLVE = 0.75
_FATIGUE_BIAS = -5.0  # leaves within 150 s, typically


@final
@dataclass(frozen=True)
class _Visits:
    """Who was shown something and when: user by user, each in order of time."""

    user_R: Ints
    rank_R: Ints
    time_R: Ints
    position_R: Ints


@final
class Simulator:
    """Makes the log of ``spec`` in chunks that know nothing of each other.

    A chunk holds all rows of a block of users, sorted by time, and at most
    ``CHUNK_ROWS`` of them. It depends on the spec and its own number alone, so chunks
    can be made in any order, in parallel, and however long the log is.

    Args:
        spec: Sizes and dials; same spec, same rows.

    Example:
        >>> spec = SimulatorSource(kind="simulator", rows=1000, num_users=20)
        >>> simulator = Simulator(spec)
        >>> simulator.num_chunks, simulator.chunk(0).num_rows
        (1, 1000)
    """

    def __init__(self, spec: SimulatorSource) -> None:
        self.spec = spec
        self.num_chunks = min(-(-spec.rows // CHUNK_ROWS), spec.num_users)

    def chunk_rows(self, index: int) -> int:
        """Count the rows of a chunk without making them."""
        return _share(self.spec.rows, self.num_chunks, index)[1]

    def items(self) -> pa.Table:
        """Return one row an item."""
        return self._world.items

    def users(self) -> pa.Table:
        """Return one row a user, those of all chunks in order."""
        return pa.concat_tables(map(self.users_chunk, range(self.num_chunks)))

    def users_chunk(self, index: int) -> pa.Table:
        """Return the users whose rows ``chunk(index)`` holds.

        Raises:
            IndexError: There is no such chunk.
        """
        return self._population(index).table

    def chunk(self, index: int) -> pa.Table:
        """Make the rows of a chunk, sorted by time.

        Raises:
            IndexError: There is no such chunk.
        """
        users = self._population(index)
        rng = self._rng(2, index)
        visits = _visit(
            rng, _counts(self.chunk_rows(index), users.weight_U), self.spec.num_days
        )
        # Drawn apart, so that it changes nothing of the rest.
        columns = _Feed(self.spec, self._world, users, visits).play(
            rng, fatigue_rng=self._rng(3, index)
        )
        first = pa.scalar(users.table["user_id"][0].as_py())
        columns["user_id"] = pc.add(columns["user_id"], first)
        order = np.argsort(visits.time_R, kind="stable")
        return pa.table(columns).take(pa.array(order))

    @property
    def _world(self) -> World:
        return build_world(self.spec.seed, self.spec.num_items, self.spec.num_days)

    def _population(self, index: int) -> Population:
        if not 0 <= index < self.num_chunks:
            raise IndexError(
                f"chunk {index} of the simulator is asked for, but it has "
                f"{self.num_chunks}, from 0"
            )
        first, count = _share(self.spec.num_users, self.num_chunks, index)
        return self._world.population(self._rng(1, index), first, count)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(
            np.random.SeedSequence(self.spec.seed, spawn_key=key)
        )


def _share(total: int, parts: int, index: int) -> tuple[int, int]:
    """Start and size of one of ``parts`` nearly equal parts of ``range(total)``."""
    start = total * index // parts
    return start, total * (index + 1) // parts - start


def _counts(rows: int, weight_U: Floats) -> Ints:
    """Rows of every user by weight, in total exactly ``rows``."""
    ends = np.round(np.cumsum(weight_U) / weight_U.sum() * rows).astype(np.int64)
    counts_U: Ints = np.diff(ends, prepend=0)
    return counts_U


def _visit(rng: np.random.Generator, count_U: Ints, num_days: int) -> _Visits:
    """Lay every user's impressions out in pages, and the pages over the days."""
    rows = int(count_U.sum())
    user_R = np.repeat(np.arange(len(count_U)), count_U)
    start_U = np.cumsum(count_U) - count_U
    rank_R = np.arange(rows) - start_U[user_R]
    turned_R = (rank_R == 0) | (rng.random(rows) < 0.08)
    since_R = np.arange(rows) - np.maximum.accumulate(
        np.where(turned_R, np.arange(rows), 0)
    )
    position_R = since_R % _PAGE
    pause_R = np.where(
        position_R == 0, rng.exponential(9_000.0, rows), rng.gamma(2.0, 10.0, rows)
    )
    # A user's pauses, and one after the last row, fill the days: only ratios matter.
    elapsed_R = np.cumsum(pause_R)
    before_U = np.concatenate([[0.0], elapsed_R])[start_U]
    last_U = np.concatenate([[0.0], elapsed_R])[start_U + count_U]
    whole_U = last_U - before_U + rng.exponential(9_000.0, len(count_U))
    days_R = (elapsed_R - before_U[user_R]) / whole_U[user_R] * num_days
    day_R = np.minimum(np.floor(days_R), num_days - 1)
    traffic = np.concatenate([[0.0], np.cumsum(_TRAFFIC)]) / _TRAFFIC.sum()
    clock_R = np.interp(days_R - day_R, traffic, np.arange(25) / 24)
    span = num_days * _DAY_MS - int(count_U.max())
    time_R = np.floor((day_R + clock_R) / num_days * span).astype(np.int64)
    return _Visits(user_R, rank_R, START_MS + time_R + rank_R, position_R)


@final
class _Feed:
    """What is shown at the visits, and what people do about it."""

    def __init__(
        self, spec: SimulatorSource, world: World, users: Population, visits: _Visits
    ) -> None:
        self.spec = spec
        self.world = world
        self.users = users
        self.visits = visits

    def play(
        self, rng: np.random.Generator, fatigue_rng: np.random.Generator
    ) -> dict[str, pa.Array]:
        """Return all columns, user by user."""
        visits, world, users = self.visits, self.world, self.users
        user_R = visits.user_R
        rows = len(user_R)
        since_ms_R = visits.time_R - START_MS
        day_R, hour_R = since_ms_R // _DAY_MS, since_ms_R // 3_600_000 % 24
        item_R = self._show(rng, day_R)
        tab_R = rng.choice(len(_TABS), rows, p=_TAB_SHARES)
        device_R = rng.choice(len(_DEVICES), len(users.haste_U), p=_DEVICE_SHARES)[
            user_R
        ]
        appeal_R, other_R = self._appeal(item_R, since_ms_R)
        turn = np.pi * self.spec.conflict
        wish_R = np.cos(turn) * appeal_R + np.sin(turn) * other_R

        category_R = world.category_I[item_R]
        length_R = np.log(world.duration_I[item_R] / 25.0)
        season_R = np.cos((hour_R - 1.5 * category_R) / 24 * 2 * np.pi)
        logit_R = (
            _CLICK_BIAS
            + appeal_R
            + users.eagerness_U[user_R]
            - 0.5 * users.haste_U[user_R] * length_R
            + 0.15 * season_R
            + _TAB_LOGIT[tab_R]
            + _DEVICE_LOGIT[device_R]
            - self.spec.position_bias * visits.position_R / (_PAGE - 1)
        )
        click_R, true_click_R = self._click(rng, logit_R, category_R)

        median_R = 1.95 + 0.45 * length_R + 0.35 * appeal_R
        median_R -= 0.3 * users.haste_U[user_R]
        watch_R = np.exp(median_R + _WATCH_SPREAD * rng.standard_normal(rows))
        long_R = np.minimum(world.duration_I[item_R], LONG_VIEW_S)
        true = {
            "click": true_click_R,
            "long_view": ndtr((median_R - np.log(long_R)) / _WATCH_SPREAD),
            "like": expit(_LIKE_BIAS + _RESOLVE * wish_R),
            "follow": expit(_FOLLOW_BIAS + 0.7 * appeal_R + world.charm_I[item_R]),
            "order": expit(
                _ORDER_BIAS
                + _RESOLVE * wish_R
                - users.thrift_U[user_R] * world.price_I[item_R]
                + np.where(tab_R == 1, 0.3, 0.0)
            ),
            "watch_s": np.exp(median_R + _WATCH_SPREAD**2 / 2),
        }
        # Who is in a hurry leaves sooner, and what appeals holds.
        true["fatigue_rate"] = np.exp(
            _FATIGUE_BIAS
            + 0.5 * users.haste_U[user_R]
            - 0.5 * appeal_R
            + 0.5 * visits.position_R / (_PAGE - 1)
        )
        fatigue_R, tired_R = draw_fatigue(fatigue_rng, true["fatigue_rate"])
        seen_R = np.where(click_R, watch_R, 0.0).astype(np.float32)
        feedback = {
            "is_click": click_R,
            "long_view": click_R & (seen_R >= long_R.astype(np.float32)),
            **{
                name: click_R & (rng.random(rows) < true[name])
                for name in ("like", "follow", "order")
            },
        }
        return {
            "user_id": pa.array(user_R),
            "item_id": pa.array(item_R),
            "time_ms": pa.array(visits.time_R),
            "day": pa.array(day_R.astype(np.int32)),
            "hour": pa.array(hour_R.astype(np.int32)),
            "position": pa.array(visits.position_R.astype(np.int32)),
            "tab": pa.array(np.array(_TABS)[tab_R]),
            "device": pa.array(np.array(_DEVICES)[device_R]),
            **{name: pa.array(v.astype(np.int8)) for name, v in feedback.items()},
            "watch_s": pa.array(seen_R),
            "fatigue_s": pa.array(fatigue_R),
            "fatigue_event": pa.array(tired_R.astype(np.int8)),
            **{
                f"true.{name}": pa.array(v.astype(np.float32))
                for name, v in true.items()
            },
        }

    def _show(self, rng: np.random.Generator, day_R: Ints) -> Ints:
        """Pick items: half by popularity alone, half with an eye on first tastes."""
        world, user_R = self.world, self.visits.user_R
        liking_UQ = self.users.click_UW @ world.click_QW.T / np.sqrt(8)
        personal_UQ = world.share_Q * np.exp(liking_UQ)
        personal_UQ /= personal_UQ.sum(axis=1, keepdims=True)
        running_UQ = np.cumsum(0.5 * world.share_Q + 0.5 * personal_UQ, axis=1)
        running_UQ[:, -1] = np.inf
        category_R = (running_UQ[user_R] < rng.random(len(user_R))[:, None]).sum(axis=1)
        # A category without items is never drawn, but for rounding at the last one.
        category_R = np.minimum(category_R, np.flatnonzero(world.share_Q).max())
        low_R = world.cumulative[world.bounds_Q[category_R]]
        high_R = world.cumulative[world.bounds_Q[category_R + 1]]
        mark_R = low_R + (high_R - low_R) * rng.random(len(user_R))
        place_R = np.searchsorted(world.cumulative, mark_R, side="right") - 1
        place_R = np.clip(
            place_R, world.bounds_Q[category_R], world.bounds_Q[category_R + 1] - 1
        )
        item_R = world.by_popularity[place_R]
        up_R = world.upload_I[item_R] < day_R
        shown_R: Ints = np.where(up_R, item_R, world.veteran_Q[category_R])
        return shown_R

    def _appeal(self, item_R: Ints, since_ms_R: Ints) -> tuple[Floats, Floats]:
        """Appeal of an item to both tastes as they stand at the impression."""
        angle_R = self.spec.drift * since_ms_R / (self.spec.num_days * _DAY_MS)
        world, users, user_R = self.world, self.users, self.visits.user_R
        click_R = _TASTE * _turned_dot(
            users.click_UW[user_R], world.click_IW[item_R], angle_R
        )
        other_R = _TASTE * _turned_dot(
            users.other_UW[user_R], world.other_IW[item_R], angle_R
        )
        return click_R + world.quality_I[item_R], other_R + world.merit_I[item_R]

    def _click(
        self, rng: np.random.Generator, logit_R: Floats, category_R: Ints
    ) -> tuple[Bools, Floats]:
        """Step through the users' histories together: first rows, second rows, ..."""
        user_R, rank_R = self.visits.user_R, self.visits.rank_R
        num_users = len(self.users.weight_U)
        count_U = np.bincount(user_R, minlength=num_users)
        # Busy users first, so that the users who have a t-th row are a prefix.
        place_U = np.empty(num_users, dtype=np.int64)
        place_U[np.argsort(-count_U, kind="stable")] = np.arange(num_users)
        order_R = np.lexsort((place_U[user_R], rank_R))
        width_t = np.bincount(rank_R)
        logit_s, category_s = logit_R[order_R], category_R[order_R]
        dice_s = rng.random(len(user_R))
        prob_s = np.empty(len(user_R))
        heat_UQ = np.zeros((num_users, len(self.world.share_Q)))
        row_U = np.arange(num_users)
        start = 0
        for width in width_t:
            end = start + int(width)
            now = slice(start, end)
            heat = heat_UQ[row_U[:width], category_s[now]] / _WARM_UNIT
            prob = expit(logit_s[now] + _WARMTH * heat * np.exp(1.0 - heat))
            prob_s[now] = prob
            clicked = np.flatnonzero(dice_s[now] < prob)
            heat_UQ[clicked] *= _FADE
            heat_UQ[clicked, category_s[now][clicked]] += 1.0
            start = end
        click_R, true_R = np.empty(len(user_R), dtype=bool), np.empty(len(user_R))
        click_R[order_R] = dice_s < prob_s
        true_R[order_R] = prob_s
        return click_R, true_R


def _turned_dot(taste_RW: Floats, style_RW: Floats, angle_R: Floats) -> Floats:
    """Turn tastes in the planes (0, 1), (2, 3), ... and multiply with styles."""
    straight_R = np.einsum("rw,rw->r", taste_RW, style_RW)
    crossed_R = np.einsum("rw,rw->r", taste_RW[:, ::2], style_RW[:, 1::2])
    crossed_R -= np.einsum("rw,rw->r", taste_RW[:, 1::2], style_RW[:, ::2])
    turned_R: Floats = np.cos(angle_R) * straight_R + np.sin(angle_R) * crossed_R
    turned_R /= np.sqrt(taste_RW.shape[1])
    return turned_R
