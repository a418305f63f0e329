"""Texts of binary tensors: found all at once where that can be, and never otherwise."""

import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys_mtl.errors import RequestError
from recsys_mtl.rank.card import InputColumn
from serving.settings import LimitSettings
from serving.tensor_input import _guessed_starts, _starts, read_tensors
from serving.tensor_message import InferInput, InputParameters

TEXTS = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.just(""),
        st.text(alphabet="\0ab", max_size=6),
        st.sampled_from([255, 256, 70_000]).map("x".__mul__),
    ),
    min_size=1,
    max_size=12,
)


def packed(texts):
    cells = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(cell)) + cell for cell in cells)


def read(binary, count):
    tensor = InferInput(
        "city", [count], "BYTES", InputParameters(binary_data_size=len(binary))
    )
    column = InputColumn(name="city", type="string", origin="item", role="feature")
    return read_tensors([tensor], memoryview(binary), [column], LimitSettings())["city"]


@given(TEXTS)
@example([""])
@example(["", "", "a", "", "b"])
def test_texts_come_out_as_they_went_in(texts):
    assert read(packed(texts), len(texts)).to_pylist() == texts


@given(TEXTS, st.data())
def test_what_is_guessed_is_what_is_read_one_after_the_other(texts, data):
    binary = bytearray(packed(texts))
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(binary) - 1))
        binary[place] = data.draw(st.sampled_from([0, 1, 2, 4, 97]))
    guessed = _guessed_starts(np.frombuffer(bytes(binary), np.uint8), len(texts))
    if guessed is not None:
        known = _starts(memoryview(binary), len(texts))
        assert known is not None
        assert guessed.tolist() == known.tolist()


def test_short_texts_are_found_at_once_even_where_many_are_empty():
    texts = ["", "", "ab", "", "c", "d" * 255, "", ""]
    binary = np.frombuffer(packed(texts), np.uint8)
    assert _guessed_starts(binary, len(texts)) is not None


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_texts_is_refused(count):
    with pytest.raises(RequestError, match=f"must be {count} texts"):
        read(packed(["ab", "c"]), count)


def test_no_texts_are_no_rows():
    assert read(b"", 0) == pa.chunked_array([pa.array([], pa.string())])
