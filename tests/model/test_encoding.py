"""What `encode` takes, and what it says of anything else: which text, and why."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from embedsmith.model import encoding
from embedsmith.model.embedder import Embedder
from embedsmith.model.encoding import read_texts, tokens_of_a_forward
from embedsmith.support.errors import DataError
from tests.meta_models import SHAPES, make_config
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


@pytest.mark.parametrize("card_gb", [8, 24, 80])
@pytest.mark.parametrize("name", list(SHAPES))
def test_a_forward_on_a_gpu_fits_into_half_of_what_is_free(
    name: str, card_gb: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an MLP whose activation is not compiled, in bfloat16: its input, and that, value and product in float32."""
    config: Any = make_config(name)
    free = card_gb * 10**9 // 2
    monkeypatch.setattr(encoding, "free_bytes", lambda _: free)
    num_tokens = tokens_of_a_forward(config, device=torch.device("cuda"))
    inner = config.intermediate_size
    assert 512 <= num_tokens <= 16_384
    assert num_tokens * (2 * inner * 2 + 2 * inner * 4 + 2 * inner * 4) <= free / 2
    assert tokens_of_a_forward(config, device=torch.device("cpu")) == 4096
