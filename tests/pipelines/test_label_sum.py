import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from pipelines.label_sum import LabelSum
from recsys_mtl.config.task import TaskSpec
from recsys_mtl.errors import DataError
from recsys_mtl.features.life_table import bin_hazards


def task(kind, **fields):
    return TypeAdapter(TaskSpec).validate_python({"kind": kind, "name": "t", **fields})


TIMES = task("survival", time="s", event="e", bins=4)
LEVELS = task("ordinal", label="y", levels=3)
AMOUNT = task("value", label="y", row_weight={"column": "w"})


def summed(spec, *blocks):
    whole = LabelSum.of(spec)
    for labels, *weights in blocks:
        part = LabelSum.of(spec)
        columns = (
            pa.chunked_array([pa.array(c, pa.float32())]) for c in (labels, *weights)
        )
        part.update(*columns)
        whole.merge(part)
    return whole


def test_blocks_add_up_in_any_order():
    rng = np.random.default_rng(0)
    labels = rng.exponential(5, 300) * rng.choice([-1, 1], 300)
    blocks = [(labels[:100],), (labels[100:120],), (labels[120:],)]
    one, *others = (
        summed(TIMES, *order).stats(TIMES, training=True)
        for order in (blocks, blocks[::-1], [(labels,)])
    )
    for other in others:
        assert other.edges == one.edges
        assert other.hazards == pytest.approx(one.hazards)
        assert other.mean == pytest.approx(one.mean)


def test_bins_of_times_are_cut_in_training_alone():
    label = summed(TIMES, ([1.0, 2.0, 3.0, 4.0, -2.5, -0.0, 0.0, None],))
    train = label.stats(TIMES, training=True)
    assert train.edges == (1.0, 2.0, 3.0, 4.0)
    times, ones = np.arange(5.0), np.array([1, 1, 1, 1, 1])
    expected = bin_hazards(
        train.edges,
        np.append(times, [2.5, 0.0]),
        np.append(ones, [0, 0]),
        np.append(0 * ones, [1, 1]),
    )
    assert train.hazards == pytest.approx(expected)
    assert (train.rows, train.positives) == (7, 5)
    assert label.stats(TIMES).edges == ()


def test_given_bins_stay_and_bins_without_events_are_refused():
    given = TIMES.model_copy(update={"bins": (1.0, 9.0)})
    none = summed(TIMES, ([-1.0, -2.0, 0.0],))
    assert none.stats(given, training=True).edges == (1.0, 9.0)
    with pytest.raises(DataError, match=r"must have events after time 0 .* in 3 rows"):
        none.stats(TIMES, training=True)


def test_levels_are_counted():
    assert summed(LEVELS, ([2, 0],), ([2, None],)).stats(LEVELS).level_rows == (1, 0, 2)


def test_amounts_above_0_have_statistics_of_their_own():
    stats = summed(AMOUNT, ([0, 1], [1, 1]), ([np.e**2], [1])).stats(AMOUNT)
    assert stats.positive_log_mean == pytest.approx(1.0)
    assert stats.positive_log_std == pytest.approx(1.0)


def test_row_weights_have_a_mean_over_those_that_are_given():
    stats = summed(AMOUNT, ([5, 6], [0.2, 0.4]), ([7], [None])).stats(AMOUNT)
    assert stats.weight_mean == pytest.approx(0.3)
    assert stats.missing_weights == 1


def test_weights_that_weigh_nothing_are_refused():
    with pytest.raises(DataError, match="above 0 somewhere, got none in 2 training"):
        summed(AMOUNT, ([5, 6], [0, 0])).stats(AMOUNT, training=True)
