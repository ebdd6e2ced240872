"""Does an exported folder embed as the model does? Asked of every export before it gets its name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from embedsmith.data.pairs import load_pairs
from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import Precision
from embedsmith.support.errors import MissingExtraError, RunError

_NUM_SAMPLES = 48
_ODD = ("a", "Ünïcödé — 東京 🙂", "1,234.5 % of   it", "word " * 400)
# Smallest cosine: float32 leaves rounding alone; weights stored as bfloat16 are off by up to 2^-9 of themselves.
_TOLERANCE = {Precision.FP32: 0.99999, Precision.BF16: 0.99}


def probe_texts() -> list[str]:
    """Sentences of the built-in sample, and texts that trip tokenizers and cutting."""
    return [*load_pairs("sample").sentence1[:_NUM_SAMPLES], *_ODD]


def check_merged(folder: Path, *, live: Embedder, dtype: Precision) -> float:
    """The smallest cosine of a merged folder's embeddings to the model's; raises RunError below the tolerance."""
    exported = Embedder.load(str(folder), precision=Precision.FP32, fused=False)
    return _compare(exported.encode, live=live, dtype=dtype)


def check_sentence_transformers(folder: Path, *, live: Embedder, dtype: Precision) -> float:
    """The same through the package sentence-transformers.

    Raises:
        MissingExtraError: it is not installed.
        RunError: below the tolerance.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingExtraError(
            "sentence-transformers", extra="export", needed_for="Checking a sentence-transformers folder"
        ) from None
    exported = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    return _compare(lambda texts: exported.encode(texts, show_progress_bar=False), live=live, dtype=dtype)


def _compare(encode: Callable[[list[str]], np.ndarray], *, live: Embedder, dtype: Precision) -> float:
    texts = probe_texts()
    expected = live.encode(texts)
    if live.adapter is not None:
        with live.without_adapter():
            if np.array_equal(live.encode(texts), expected):
                raise RunError("The adapter changes no embedding, so there is nothing to merge.\nTrain it first.")
    cosines = np.einsum("kd,kd->k", encode(texts), expected)
    worst = int(cosines.argmin())
    smallest = float(cosines[worst])
    if not smallest >= _TOLERANCE[dtype]:
        raise RunError(
            f"The exported folder does not embed as the model does: {texts[worst][:60]!r} is at a cosine of "
            f"{smallest:.5f}, below {_TOLERANCE[dtype]}. Nothing was kept.\n"
            "Please report this model; its runs still load with embedsmith."
        )
    return smallest
