"""What `encode` takes, and what it says of anything else: which text, and why."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest

from embedsmith.model.embedder import Embedder
from embedsmith.model.encoding import read_texts
from embedsmith.support.errors import DataError
from tests.tiny import TEXTS


@pytest.mark.parametrize(
    "texts",
    [
        tuple(TEXTS),
        iter(TEXTS),
        (text for text in TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.Series(TEXTS, index=range(10, 10 + len(TEXTS))),
        pd.Index(TEXTS),
        dict(enumerate(TEXTS)).values(),
    ],
)
def test_anything_with_an_order(texts: Iterable[str], llama: Embedder) -> None:
    np.testing.assert_array_equal(llama.encode(texts), llama.encode(TEXTS))


@pytest.mark.parametrize("texts", [[], (), iter([]), np.array([], dtype=str), pd.Series([], dtype=str)])
def test_no_text_gives_no_row(texts: Iterable[str], llama: Embedder) -> None:
    assert llama.encode(texts).shape == (0, llama.dim)


def test_empty_blank_and_long_texts(llama: Embedder) -> None:
    rows = llama.encode(["", " ", "cat " * 500_000, "cat " * 64])
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    np.testing.assert_allclose(rows[2], rows[3], atol=1e-6)  # cut at the same token


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        ("a cat", r"for one text write encode\(\[text\]\)\[0\]"),
        (b"a cat", "this is a bytes"),
        ({"a cat": 1}, "this is a dict"),
        ({"a cat"}, "this is a set"),
        (None, "this is a NoneType"),
        (7, "this is a int"),
        (pd.DataFrame({"text": TEXTS}), "a DataFrame of 2 dimensions; name one column"),
        (np.array([TEXTS]), "a ndarray of 2 dimensions"),
        (np.array("a cat"), "a ndarray of 0 dimensions"),
        (["a", None], r"text 1 is None \(NoneType\)"),
        (pd.Series(["a", "b", float("nan")], dtype=object), r"text 2 is nan \(float\)"),
        (["a", b"b"], r"text 1 is b'b' \(bytes\)"),
        (["a", ["b"]], r"text 1 is \['b'\] \(list\)"),
        ([3], r"text 0 is 3 \(int\)"),
    ],
)
def test_anything_else_is_named(texts: object, fault: str, llama: Embedder) -> None:
    with pytest.raises(TypeError, match=fault):
        llama.encode(texts)


def test_half_a_character_is_named(llama: Embedder) -> None:
    with pytest.raises(
        DataError, match=r"text 1: '\\ud83d' \(half a surrogate pair\) at character 6\n  text 2: '\\ude42'"
    ):
        llama.encode(["a cat", "a cat \ud83d", "\ude42", "\U0001f642"])
    assert read_texts(["\U0001f642"]) == ["\U0001f642"]
