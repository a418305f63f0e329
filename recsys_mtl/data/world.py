"""Who lives in the simulated feed: users, items, and what they are like inside.

Axis letters besides those of the model: ``U`` users, ``I`` items, ``R`` rows of a log,
``Q`` categories, ``W`` width of a taste.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = [
    "CATEGORIES",
    "Bools",
    "Floats",
    "Ints",
    "Population",
    "World",
    "build_world",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CATEGORIES = (
    *("comedy", "music", "food", "sport", "games", "travel", "beauty", "fashion"),
    *("cars", "pets", "news", "science", "home", "film", "dance", "craft"),
)
_AGE_GROUPS = ("under_18", "18_24", "25_34", "35_44", "45_59", "60_up")
_AGE_SHARES = (0.10, 0.26, 0.28, 0.18, 0.12, 0.06)
_GENDERS = ("female", "male", "undisclosed")
_GENDER_SHARES = (0.46, 0.44, 0.10)
_CITY_SHARES = (0.2, 0.3, 0.3, 0.2)
_NUM_TAGS = 40
_MAX_TAGS = 4
_MAX_INTERESTS = 4
_NULL_RATE = 0.01

_WIDTH = 8
"""Numbers in a taste. Even: drift turns it in planes of two."""

# What a taste and a style are made of. Most of both can be read off the columns of the
# users and items tables; `own` is what only behaviour tells.
_AGE, _GENDER, _CITY = 0.75, 0.75, 0.2
_FAVOURITE, _INTEREST, _OWN_TASTE = 0.5, 0.15, 0.06
_QUALITY = 0.7
_CREATOR, _TAG, _OWN_STYLE = 0.10, 0.06, 0.04


@final
@dataclass(frozen=True)
class Population:
    """Some users: the table that a model may read, and what it may not.

    Attributes:
        table: One row a user.
        click_UW: Taste that draws clicks, on the first day.
        other_UW: An independent taste, towards which the conflict dial turns likes and
            orders.
        eagerness_U: What is added to the logit of every click.
        thrift_U: How much a price puts off, at least 0.
        haste_U: Above 0 for those who like short videos.
        weight_U: Share of the impressions.
    """

    table: pa.Table
    click_UW: Floats
    other_UW: Floats
    eagerness_U: Floats
    thrift_U: Floats
    haste_U: Floats
    weight_U: Floats


@final
@dataclass(frozen=True)
class World:
    """All items, and the laws by which users come about.

    Attributes:
        items: One row an item.
        category_I: Index into ``CATEGORIES``.
        creator_I: Index of the creator.
        click_IW: Style that clicks answer to.
        other_IW: Style that the independent taste answers to.
        quality_I: What is added to the appeal for clicks.
        merit_I: What is added to the appeal for the independent taste.
        charm_I: What the creator adds to the logit of a follow.
        duration_I: Length in seconds.
        price_I: Logarithm of the price, standardised.
        upload_I: Day of the upload, negative before the log.
        by_popularity: Item indexes by category, within it any order.
        cumulative: Running sum of popularity in that order, from 0.
        bounds_Q: Where the categories begin in ``cumulative``; one more at the end.
        veteran_Q: The oldest item of a category, shown where another is not up yet.
        share_Q: Popularity of the categories.
        click_QW: Style of the categories that clicks answer to.
        other_QW: Style of the categories that the independent taste answers to.
        age_W: Tastes of the age groups, that of clicks first.
        gender_W: Tastes of the genders, likewise.
        city_W: Tastes of the city tiers, likewise.
    """

    items: pa.Table
    category_I: Ints
    creator_I: Ints
    click_IW: Floats
    other_IW: Floats
    quality_I: Floats
    merit_I: Floats
    charm_I: Floats
    duration_I: Floats
    price_I: Floats
    upload_I: Ints
    by_popularity: Ints
    cumulative: Floats
    bounds_Q: Ints
    veteran_Q: Ints
    share_Q: Floats
    click_QW: Floats
    other_QW: Floats
    age_W: tuple[Floats, Floats]
    gender_W: tuple[Floats, Floats]
    city_W: tuple[Floats, Floats]

    def population(
        self, rng: np.random.Generator, first: int, count: int
    ) -> Population:
        """Draw the users ``first``, ``first + 1``, ... of the feed.

        Args:
            rng: Draws depend on it alone.
            first: Key of the first user.
            count: How many.
        """
        age_U = rng.choice(len(_AGE_GROUPS), count, p=_AGE_SHARES)
        gender_U = rng.choice(len(_GENDERS), count, p=_GENDER_SHARES)
        city_U = rng.choice(len(_CITY_SHARES), count, p=_CITY_SHARES)
        segment_UW = self._segment(0, age_U, gender_U, city_U)
        # Interests follow the segment, and chance.
        wish_UQ = segment_UW @ self.click_QW.T / np.sqrt(_WIDTH)
        wish_UQ += rng.gumbel(size=wish_UQ.shape)
        number_U = rng.integers(1, _MAX_INTERESTS + 1, count)
        place_UQ = np.argsort(np.argsort(-wish_UQ))
        chosen_UQ = place_UQ < number_U[:, None]
        favourite_UQ = place_UQ == 0
        mix_UQ = _FAVOURITE * favourite_UQ + _INTEREST * chosen_UQ
        other_UW = self._segment(1, age_U, gender_U, city_U)
        tastes = [
            segment
            + mix_UQ @ style_QW
            + _OWN_TASTE * rng.standard_normal((count, _WIDTH))
            for segment, style_QW in (
                (segment_UW, self.click_QW),
                (other_UW, self.other_QW),
            )
        ]
        activity_U = rng.gamma(2.0, 0.5, count) + 0.1
        lively_U = np.log(activity_U)
        haste_U = np.linspace(0.5, -0.5, len(_AGE_GROUPS))[age_U]
        thrift_U = np.linspace(0.1, 0.7, len(_CITY_SHARES))[city_U]
        eagerness_U = 0.4 * lively_U + 0.12 * rng.standard_normal(count)
        flat_U, row_U = np.nonzero(chosen_UQ)[1], np.cumsum(number_U)
        table = pa.table(
            {
                "user_id": pa.array(np.arange(first, first + count)),
                "age_group": _with_nulls(rng, np.array(_AGE_GROUPS)[age_U]),
                "gender": _with_nulls(rng, np.array(_GENDERS)[gender_U]),
                "city_tier": _with_nulls(rng, city_U + 1),
                "favourite": _with_nulls(
                    rng, np.array(CATEGORIES)[favourite_UQ.argmax(axis=1)]
                ),
                "interests": _lists(row_U, np.array(CATEGORIES)[flat_U]),
                "activity": _with_nulls(rng, np.round(activity_U, 3)),
                "registered_days": pa.array(rng.geometric(1 / 400, count)),
            }
        )
        return Population(
            table=table,
            click_UW=tastes[0],
            other_UW=tastes[1],
            eagerness_U=eagerness_U,
            thrift_U=thrift_U,
            haste_U=haste_U,
            weight_U=activity_U,
        )

    def _segment(self, which: int, age_U: Ints, gender_U: Ints, city_U: Ints) -> Floats:
        return (
            _AGE * self.age_W[which][age_U]
            + _GENDER * self.gender_W[which][gender_U]
            + _CITY * self.city_W[which][city_U]
        )


@lru_cache(maxsize=2)
def build_world(seed: int, num_items: int, num_days: int) -> World:
    """Draw items and laws.

    Args:
        seed: Same seed, same world.
        num_items: At least 1.
        num_days: Length of the log; a tenth of the items is uploaded within it.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    num_categories = len(CATEGORIES)
    num_creators = max(1, num_items // 10)
    # Creators keep to a category; big categories have more of them.
    share_Q = rng.permutation(1.0 / (3 + np.arange(num_categories)))
    home = rng.choice(num_categories, num_creators, p=share_Q / share_Q.sum())
    creator_I = rng.integers(0, num_creators, num_items)
    category_I = home[creator_I]
    popularity_I = 1.0 / (10.0 + rng.permutation(num_items)) ** 0.8
    number_I = rng.integers(0, _MAX_TAGS + 1, num_items)
    tags_I = _tags(rng, category_I, number_I)

    def laws() -> tuple[Floats, ...]:
        category_QW = rng.standard_normal((num_categories, _WIDTH))
        category_QW -= category_QW.mean(axis=0)
        category_QW /= np.sqrt((category_QW**2).mean(axis=1, keepdims=True))
        creators_W = rng.standard_normal((num_creators, _WIDTH))
        tags_W = np.vstack([rng.standard_normal((_NUM_TAGS, _WIDTH)), np.zeros(_WIDTH)])
        style_IW = (
            category_QW[category_I]
            + _CREATOR * creators_W[creator_I]
            + _TAG * tags_W[tags_I].sum(axis=1) / np.sqrt(_MAX_TAGS / 2)
            + _OWN_STYLE * rng.standard_normal((num_items, _WIDTH))
        )
        segments = [
            _segments(rng, shares, category_QW)
            for shares in (_AGE_SHARES, _GENDER_SHARES, _CITY_SHARES)
        ]
        return category_QW, style_IW, *segments

    click_QW, click_IW, *click_segments = laws()
    other_QW, other_IW, *other_segments = laws()
    creator_appeal = 0.5 * rng.standard_normal(num_creators)
    quality_I = 0.6 * rng.standard_normal(num_items) + creator_appeal[creator_I]
    # The few items that are most of the log must not decide how hard the world is.
    quality_I -= np.average(quality_I, weights=popularity_I)
    spread = np.sqrt(np.average(quality_I**2, weights=popularity_I))
    quality_I *= _QUALITY / max(spread, 1e-9)
    merit_I = 0.5 * rng.standard_normal(num_items)
    duration_I = np.clip(rng.lognormal(np.log(25), 0.7, num_items), 4.0, 300.0)
    price_I = rng.standard_normal(num_items)
    upload_I = np.where(
        rng.random(num_items) < 0.1,
        rng.integers(0, num_days, num_items),
        -rng.geometric(1 / 60, num_items),
    )
    by_popularity = np.argsort(category_I, kind="stable")
    bounds_Q = np.searchsorted(category_I[by_popularity], np.arange(num_categories + 1))
    cumulative = np.concatenate([[0.0], np.cumsum(popularity_I[by_popularity])])
    veteran_Q = np.zeros(num_categories, dtype=np.int64)
    for category in range(num_categories):
        members = by_popularity[bounds_Q[category] : bounds_Q[category + 1]]
        if len(members):
            veteran = members[np.argmin(upload_I[members])]
            upload_I[veteran] = min(upload_I[veteran], -1)
            veteran_Q[category] = veteran
    items = pa.table(
        {
            "item_id": pa.array(np.arange(num_items)),
            "category": pa.array(np.array(CATEGORIES)[category_I]),
            "creator_id": pa.array(creator_I),
            "duration_s": pa.array(np.round(duration_I, 1)),
            "price": pa.array(np.round(np.exp(3.0 + 0.8 * price_I), 2)),
            "tags": _lists(np.cumsum(number_I), _tag_names(tags_I)),
            "quality": pa.array(
                np.round(quality_I + 0.15 * rng.standard_normal(num_items), 3)
            ),
            "upload_day": pa.array(upload_I),
        }
    )
    return World(
        items=items,
        category_I=category_I,
        creator_I=creator_I,
        click_IW=click_IW,
        other_IW=other_IW,
        quality_I=quality_I,
        merit_I=merit_I,
        charm_I=(0.5 * rng.standard_normal(num_creators))[creator_I],
        duration_I=duration_I,
        price_I=price_I,
        upload_I=upload_I,
        by_popularity=by_popularity,
        cumulative=cumulative,
        bounds_Q=bounds_Q,
        veteran_Q=veteran_Q,
        share_Q=np.diff(cumulative[bounds_Q]) / cumulative[-1],
        click_QW=click_QW,
        other_QW=other_QW,
        age_W=(click_segments[0], other_segments[0]),
        gender_W=(click_segments[1], other_segments[1]),
        city_W=(click_segments[2], other_segments[2]),
    )


def _segments(
    rng: np.random.Generator, shares: tuple[float, ...], category_QW: Floats
) -> Floats:
    """Draw the tastes of a division of people, alike in strength for every seed."""
    taste_W = rng.standard_normal((len(shares), _WIDTH))
    taste_W -= np.average(taste_W, axis=0, weights=shares)
    liking = taste_W @ category_QW.T / np.sqrt(_WIDTH)
    spread = np.sqrt(np.average((liking**2).mean(axis=1), weights=shares))
    scaled: Floats = taste_W / spread
    return scaled


def _tags(rng: np.random.Generator, category_I: Ints, number_I: Ints) -> Ints:
    """Tags of every item, padded with ``_NUM_TAGS``; most belong to the category."""
    home_I = (category_I * 5) % _NUM_TAGS
    tags = (home_I[:, None] + rng.integers(0, 8, (len(category_I), _MAX_TAGS))) % (
        _NUM_TAGS
    )
    tags = np.sort(tags, axis=1)
    padded = np.arange(_MAX_TAGS) >= number_I[:, None]
    return np.where(padded, _NUM_TAGS, tags)


def _tag_names(tags_I: Ints) -> npt.NDArray[Any]:
    names = np.array([f"tag{i:02d}" for i in range(_NUM_TAGS)])
    return names[tags_I[tags_I < _NUM_TAGS]]


def _lists(ends: Ints, values: npt.NDArray[Any]) -> pa.Array:
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values, pa.string()))


def _with_nulls(rng: np.random.Generator, values: npt.NDArray[Any]) -> pa.Array:
    """About one value in a hundred goes missing, as in every real table."""
    return pa.array(values, mask=rng.random(len(values)) < _NULL_RATE)
