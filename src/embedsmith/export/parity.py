"""Does an exported folder embed as the model does? Asked of every export before it gets its name."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from embedsmith.data.pairs import load_pairs
from embedsmith.model.control_tokens import texts_that_spell_them
from embedsmith.model.embedder import Embedder
from embedsmith.model.tokens import TextTokenizer
from embedsmith.settings.config import Precision
from embedsmith.settings.prompts import read_prompt
from embedsmith.support.errors import MissingExtraError, RunError

_NUM_SAMPLES = 48
_ODD = ("a", "Ünïcödé — 東京 🙂", "1,234.5 % of   it", "word " * 400)
# Smallest cosine: float32 leaves rounding alone; weights stored as bfloat16 are off by up to 2^-9 of themselves.
_TOLERANCE = {Precision.FP32: 0.99999, Precision.BF16: 0.99}


def probe_texts(live: Embedder) -> list[str]:
    """Sentences of the built-in sample, and texts that trip tokenizers and cutting, or spell the control tokens."""
    spelled = texts_that_spell_them(live.backbone.tokenizer)
    return [*load_pairs("sample").sentence1[:_NUM_SAMPLES], *_ODD, *spelled]


def check_merged(folder: Path, *, live: Embedder, dtype: Precision) -> float:
    """The smallest cosine of a merged folder's embeddings to the model's, when its tokenizer gives the same tokens.

    Raises:
        RunError: below the tolerance, or another token.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = live.tokenizer.encoder
    bare = read_prompt(None)
    _compare_tokens(
        lambda text: tokenizer(text)["input_ids"], lambda text: encoder.encode([text], [bare])[0].ids, live=live
    )
    exported = Embedder.load(str(folder), precision=Precision.FP32, fused=False)
    return _compare(exported.encode, live=live, dtype=dtype)


def check_sentence_transformers(folder: Path, *, live: Embedder, dtype: Precision) -> float:
    """The same through the package sentence-transformers, and the tokens by tokenizer.json alone.

    Raises:
        MissingExtraError: that package is not installed.
        RunError: below the tolerance, or another token.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingExtraError(
            "sentence-transformers", extra="export", needed_for="Checking a sentence-transformers folder"
        ) from None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    uncut = TextTokenizer(live.backbone.tokenizer, max_length=sys.maxsize, end_token=live.settings.end_token)
    prompt = live.prompt_of()
    _compare_tokens(
        lambda text: tokenizer.encode(prompt.around(text)).ids,
        lambda text: uncut.tokenize([text], prompts=prompt).ids[0].tolist(),
        live=live,
    )
    exported = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    return _compare(lambda texts: exported.encode(texts, show_progress_bar=False), live=live, dtype=dtype)


Cut = Callable[[str], list[int]]


def _compare_tokens(found: Cut, expected: Cut, *, live: Embedder) -> None:
    for text in probe_texts(live):
        if found(text) != expected(text):
            raise RunError(
                f"The exported tokenizer cuts {text[:60]!r} otherwise than the model's: {found(text)[:40]}, not "
                f"{expected(text)[:40]}. Nothing was kept.\n"
                "Please report this model; its runs still load with embedsmith."
            )


def _compare(encode: Callable[[list[str]], np.ndarray], *, live: Embedder, dtype: Precision) -> float:
    texts = probe_texts(live)
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
