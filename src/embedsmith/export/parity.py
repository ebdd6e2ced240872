"""Does an exported folder embed as the model does? Asked of every export before it gets its name.

What the model makes of some texts is kept first (`expect`), so that it can be let go of before the folder is loaded.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from embedsmith.data.pairs import load_pairs
from embedsmith.export.placing import PlacedPrompts, named_prompts
from embedsmith.model.control_tokens import texts_that_spell_them
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.backbone import load_model_tokenizer
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.model.tokens import TextTokenizer
from embedsmith.settings.config import Precision
from embedsmith.settings.prompts import Prompt, read_prompt
from embedsmith.support.errors import MissingExtraError, RunError

_NUM_SAMPLES = 48
_ODD = ("a", " a blank before", "Ünïcödé — 東京 🙂", "1,234.5 % of   it", "word " * 400)
# Smallest cosine: float32 leaves rounding alone; weights stored as bfloat16 are off by up to 2^-9 of themselves.
_TOLERANCE = {Precision.FP32: 0.99999, Precision.BF16: 0.99}

_REPORT = "Please report this model; its runs still load with embedsmith."
_MERGE = (
    "Prompts that differ for queries and documents stand before texts as text there, and this tokenizer cuts them "
    "otherwise there than alone.\nExport to merged, or load it with embedsmith."
)


@dataclass(frozen=True)
class Expected:
    """What a model makes of K texts.

    Attributes:
        texts: see `probe_texts`.
        vectors: (K, D) float32.
        bare_ids: tokens of each text alone, without the end token.
        prompts: by name, sides among them.
        prompted_ids: of each text under a prompt, uncut, with the end token if the model puts it; by the prompt's name.
        settings: of the model.
    """

    texts: list[str]
    vectors: np.ndarray
    bare_ids: list[list[int]]
    prompts: dict[str, Prompt]
    prompted_ids: dict[str, list[list[int]]]
    settings: EmbeddingSettings


def probe_texts(live: Embedder) -> list[str]:
    """Sentences of the built-in sample, and texts that trip tokenizers and cutting, or spell the control tokens."""
    spelled = texts_that_spell_them(live.backbone.tokenizer)
    return [*load_pairs("sample").sentence1[:_NUM_SAMPLES], *_ODD, *spelled]


def expect(live: Embedder) -> Expected:
    """What an exported folder has to make of the probe texts.

    Raises:
        RunError: the model has an adapter that changes nothing.
    """
    texts, prompts = probe_texts(live), named_prompts(live)
    vectors = live.encode(texts)
    if live.adapter is not None:
        with live.without_adapter():
            if np.array_equal(live.encode(texts), vectors):
                raise RunError("The adapter changes no embedding, so there is nothing to merge.\nTrain it first.")
    bare = live.tokenizer.encoder.encode(texts, [read_prompt(None)] * len(texts))
    prompted_ids = {
        name: _uncut_ids(live.backbone.tokenizer, texts, prompt=prompt, settings=live.settings)
        for name, prompt in prompts.items()
    }
    return Expected(texts, vectors, [one.ids for one in bare], prompts, prompted_ids, live.settings)


def _uncut_ids(tokenizer: Any, texts: list[str], *, prompt: Prompt, settings: EmbeddingSettings) -> list[list[int]]:
    uncut = TextTokenizer(
        tokenizer, max_length=sys.maxsize, end_token=settings.end_token, prompt_tokens=settings.prompt_tokens
    )
    return [ids.tolist() for ids in uncut.tokenize(texts, prompts=prompt).ids]


def check_merged(folder: Path, *, expected: Expected, dtype: Precision, device: str) -> float:
    """The smallest cosine of a merged folder's embeddings to the model's, when its tokenizer gives the same tokens.

    Raises:
        RunError: below the tolerance, or another token.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = [tokenizer(text)["input_ids"] for text in expected.texts]
    _compare_tokens(found, expected.texts, expected.bare_ids)
    exported = Embedder.load(str(folder), precision=Precision.FP32, device=device, fused=False)
    return _compare(exported.encode, expected, dtype=dtype)


def check_sentence_transformers(
    folder: Path, *, expected: Expected, placed: PlacedPrompts, dtype: Precision, device: str
) -> float:
    """The same through the package sentence-transformers, and the tokens by tokenizer.json alone and as loaded here.

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
    loaded = load_model_tokenizer(str(folder))
    advice = _MERGE if placed.cut_off else _REPORT
    for name, prompt in expected.prompts.items():
        ids = expected.prompted_ids[name]
        found = [tokenizer.encode(placed.texts[name] + text).ids for text in expected.texts]
        _compare_tokens(found, expected.texts, ids, advice=advice)
        found = _uncut_ids(loaded, expected.texts, prompt=prompt, settings=expected.settings)
        _compare_tokens(found, expected.texts, ids)
    exported = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": "float32"})
    return _compare(lambda texts: exported.encode(texts, show_progress_bar=False), expected, dtype=dtype)


def _compare_tokens(
    found: Sequence[list[int]], texts: Sequence[str], ids: Sequence[list[int]], *, advice: str = _REPORT
) -> None:
    for text, one, expected in zip(texts, found, ids, strict=True):
        if one != expected:
            raise RunError(
                f"The exported tokenizer cuts {text[:60]!r} otherwise than the model's: {one[:40]}, not "
                f"{expected[:40]}. Nothing was kept.\n{advice}"
            )


def _compare(encode: Callable[[list[str]], np.ndarray], expected: Expected, *, dtype: Precision) -> float:
    cosines = np.einsum("kd,kd->k", encode(expected.texts), expected.vectors)
    worst = int(cosines.argmin())
    smallest = float(cosines[worst])
    if not smallest >= _TOLERANCE[dtype]:
        raise RunError(
            f"The exported folder does not embed as the model does: {expected.texts[worst][:60]!r} is at a cosine of "
            f"{smallest:.5f}, below {_TOLERANCE[dtype]}. Nothing was kept.\n{_REPORT}"
        )
    return smallest
