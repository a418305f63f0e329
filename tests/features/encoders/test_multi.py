import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.features.encoders.multi import encode_lists
from recsys_mtl.features.encoders.vocabulary import Vocabulary

CELLS = st.lists(st.none() | st.lists(st.sampled_from("abcz") | st.none(), max_size=6))
KNOWN = {"a": 2, "b": 3, "c": 4}


@given(CELLS, st.integers(1, 4), st.integers(0, 3))
def test_lists_are_encoded_as_element_by_element(cells, max_length, skip):
    encoder = Vocabulary.of(pa.array(list(KNOWN)))
    array = pa.array(cells, pa.list_(pa.string())).slice(skip)
    cells = cells[skip:]
    got = encode_lists(array, encoder, max_length)
    expected, missing = [], 0
    for cell in cells:
        missing += 1 if cell is None else cell.count(None)
        present = [v for v in cell or () if v is not None]
        expected.append([KNOWN.get(v, 1) for v in present][:max_length])
    assert got.lists.to_pylist() == expected
    assert got.missing == missing
    assert got.unseen == sum(ids.count(1) for ids in expected)
