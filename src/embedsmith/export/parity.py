"""Does an exported folder embed as the model does? Asked of every export before it gets its name.

What the model makes of some texts is kept first (`expect`), so that it can be let go of before the folder is loaded.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from embedsmith.data.pairs import load_pairs
from embedsmith.model.control_tokens import texts_that_spell_them
from embedsmith.model.embedder import Embedder
from embedsmith.model.tokens import TextTokenizer
from embedsmith.settings.config import Precision
from embedsmith.settings.prompts import Prompt, read_prompt
from embedsmith.support.errors import MissingExtraError, RunError

_NUM_SAMPLES = 48
_ODD = ("a", "Ünïcödé — 東京 🙂", "1,234.5 % of   it", "word " * 400)
# Smallest cosine: float32 leaves rounding alone; weights stored as bfloat16 are off by up to 2^-9 of themselves.
_TOLERANCE = {Precision.FP32: 0.99999, Precision.BF16: 0.99}


@dataclass(frozen=True)
class Expected:
    """What a model makes of K texts.

    Attributes:
        texts: see `probe_texts`.
        vectors: (K, D) float32.
        prompt: of documents.
        bare_ids: tokens of each text alone, without the end token.
        prompted_ids: of each text under the prompt, uncut, with the end token if the model puts it.
    """

    texts: list[str]
    vectors: np.ndarray
    prompt: Prompt
    bare_ids: list[list[int]]
    prompted_ids: list[list[int]]


def probe_texts(live: Embedder) -> list[str]:
    """Sentences of the built-in sample, and texts that trip tokenizers and cutting, or spell the control tokens."""
    spelled = texts_that_spell_them(live.backbone.tokenizer)
    return [*load_pairs("sample").sentence1[:_NUM_SAMPLES], *_ODD, *spelled]


def expect(live: Embedder) -> Expected:
    """What an exported folder has to make of the probe texts.

    Raises:
        RunError: the model has an adapter that changes nothing.
    """
    texts, prompt = probe_texts(live), live.prompt_of()
    vectors = live.encode(texts)
    if live.adapter is not None:
        with live.without_adapter():
            if np.array_equal(live.encode(texts), vectors):
                raise RunError("The adapter changes no embedding, so there is nothing to merge.\nTrain it first.")
    bare = live.tokenizer.encoder.encode(texts, [read_prompt(None)] * len(texts))
    uncut = TextTokenizer(live.backbone.tokenizer, max_length=sys.maxsize, end_token=live.settings.end_token)
    prompted = uncut.tokenize(texts, prompts=prompt).ids
    return Expected(texts, vectors, prompt, [one.ids for one in bare], [ids.tolist() for ids in prompted])


def check_merged(folder: Path, *, expected: Expected, dtype: Precision, device: str) -> float:
    """The smallest cosine of a merged folder's embeddings to the model's, when its tokenizer gives the same tokens.

    Raises:
        RunError: below the tolerance, or another token.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    _compare_tokens(lambda text: tokenizer(text)["input_ids"], expected.texts, expected.bare_ids)
    exported = Embedder.load(str(folder), precision=Precision.FP32, device=device, fused=False)
    return _compare(exported.encode, expected, dtype=dtype)


def check_sentence_transformers(folder: Path, *, expected: Expected, dtype: Precision, device: str) -> float:
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
    prompt = expected.prompt
    _compare_tokens(lambda text: tokenizer.encode(prompt.around(text)).ids, expected.texts, expected.prompted_ids)
    exported = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": "float32"})
    return _compare(lambda texts: exported.encode(texts, show_progress_bar=False), expected, dtype=dtype)


def _compare_tokens(cut: Callable[[str], list[int]], texts: Sequence[str], ids: Sequence[list[int]]) -> None:
    for text, expected in zip(texts, ids, strict=True):
        found = cut(text)
        if found != expected:
            raise RunError(
                f"The exported tokenizer cuts {text[:60]!r} otherwise than the model's: {found[:40]}, not "
                f"{expected[:40]}. Nothing was kept.\n"
                "Please report this model; its runs still load with embedsmith."
            )


def _compare(encode: Callable[[list[str]], np.ndarray], expected: Expected, *, dtype: Precision) -> float:
    cosines = np.einsum("kd,kd->k", encode(expected.texts), expected.vectors)
    worst = int(cosines.argmin())
    smallest = float(cosines[worst])
    if not smallest >= _TOLERANCE[dtype]:
        raise RunError(
            f"The exported folder does not embed as the model does: {expected.texts[worst][:60]!r} is at a cosine of "
            f"{smallest:.5f}, below {_TOLERANCE[dtype]}. Nothing was kept.\n"
            "Please report this model; its runs still load with embedsmith."
        )
    return smallest
