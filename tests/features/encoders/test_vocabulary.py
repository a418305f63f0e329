from collections import Counter
from itertools import chain

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.config.feature import VocabularyEncoder
from recsys_mtl.features.encoders.vocabulary import Vocabulary, VocabularyFit

VALUES = st.lists(st.sampled_from("abcdefgh") | st.none(), max_size=40)


def fitted(blocks: list[list], **spec) -> Vocabulary:
    fits = []
    for block in blocks:
        fit = VocabularyFit()
        fit.update(pa.array(block, pa.string()))
        fits.append(fit)
    first, *others = fits
    for other in others:
        first.merge(other)
    return first.finish(VocabularyEncoder(**spec), pa.string())


@given(VALUES, st.integers(1, 4), st.integers(1, 5))
def test_frequent_values_come_first_and_ties_by_value(values, min_count, max_size):
    counts = Counter(v for v in values if v is not None)
    expected = sorted(
        (v for v, n in counts.items() if n >= min_count), key=lambda v: (-counts[v], v)
    )[:max_size]
    vocabulary = fitted([values], min_count=min_count, max_size=max_size)
    assert vocabulary.values.to_pylist() == expected
    assert vocabulary.size == 2 + len(expected)
    ids = {v: 2 + n for n, v in enumerate(expected)}
    wanted = [*"abcdefghz", None]
    assert vocabulary.ids(pa.array(wanted)).tolist() == [
        0 if v is None else ids.get(v, 1) for v in wanted
    ]


@given(st.lists(VALUES, min_size=1, max_size=5), st.randoms())
def test_blocks_merged_in_any_order_fit_like_all_at_once(blocks, random):
    at_once = fitted([list(chain.from_iterable(blocks))])
    random.shuffle(blocks)
    assert fitted(blocks).values.equals(at_once.values)


def test_large_ids_keep_every_digit():
    ids = [2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
    fit = VocabularyFit()
    fit.update(pa.array(ids))
    vocabulary = fit.finish(VocabularyEncoder(), pa.int64())
    assert sorted(vocabulary.ids(pa.array(ids)).tolist()) == [2, 3, 4, 5]
    assert vocabulary.ids(pa.array([2**53 + 2])).tolist() == [1]


def test_many_blocks_are_settled_on_the_way():
    fit = VocabularyFit()
    for start in range(0, 2_400_000, 300_000):
        fit.update(pa.array(range(start % 600_000, start % 600_000 + 300_000)))
    vocabulary = fit.finish(VocabularyEncoder(min_count=4), pa.int64())
    assert len(vocabulary.values) == 600_000


def test_without_values_all_are_unseen():
    vocabulary = VocabularyFit().finish(VocabularyEncoder(), pa.string())
    assert vocabulary.ids(pa.array(["a", None])).tolist() == [1, 0]
