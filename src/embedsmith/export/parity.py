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
from embedsmith.model.graph_runner import GraphModel
from embedsmith.model.loading.backbone import load_model_tokenizer
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.model.tokens import TextTokenizer
from embedsmith.settings.choices import Precision, Side
from embedsmith.settings.prompts import Prompt, read_prompt
from embedsmith.support.errors import MissingExtraError, RunError

_NUM_SAMPLES = 160
_NUM_LENGTHS, _MOST_WORDS = 24, 420  # of one word to 420, which are some 500 tokens
_ODD = (
    *("a", " a blank before", "Ünïcödé — 東京 🙂", "1,234.5 % of   it", "word " * 400),
    *(
        "Кошка спит на тёплой крыше.",
        "القطة تنام على السطح.",
        "बिल्ली छत पर सोती है।",
        "고양이가 잔다",
        "\t\n",
        "e\u0301 é",
    ),
)
# Smallest cosine: float32 leaves rounding alone; weights stored as bfloat16 are off by up to 2^-9 of themselves, as
# float16 by up to 2^-12. What 8 bits lose is said, and judged by a score; a graph that gives no vectors shows here.
_TOLERANCE = {"fp32": 0.99999, "bf16": 0.99, "fp16": 0.9999, "int8": 0.5, "q8_0": 0.5, "q4_k_m": 0.2}
_BATCH = 8
_EVERY = 16  # text that goes through sentence-transformers by itself, too

_REPORT = "Please report this model; its runs still load with embedsmith."
_MERGE = (
    "Prompts that differ for queries and documents stand before texts as text there, and this tokenizer cuts them "
    "otherwise there than alone.\nExport to merged, or load it with embedsmith."
)


@dataclass(frozen=True)
class Parity:
    """How near the embeddings of an exported folder are to the model's.

    Attributes:
        smallest: cosine; over all the ways in which the texts were embedded.
        mean: cosine.
        num_texts: how many were compared.
    """

    smallest: float
    mean: float
    num_texts: int


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

    @property
    def longest(self) -> int:
        """Most tokens of a text under a prompt."""
        return max(len(ids) for all_ids in self.prompted_ids.values() for ids in all_ids)


def probe_texts(live: Embedder, *, with_empty: bool = False) -> list[str]:
    """Sentences of the built-in sample, alone and in a row up to some 500 tokens, texts that trip tokenizers and
    cutting, and such that spell the control tokens; an empty one if asked for."""
    sentences = load_pairs("sample").sentence1[:_NUM_SAMPLES]
    words = " ".join(sentences).split()
    longer = [" ".join(words[:count]) for count in np.geomspace(1, _MOST_WORDS, _NUM_LENGTHS).astype(int)]
    spelled = texts_that_spell_them(live.backbone.tokenizer)
    return [*sentences, *longer, *_ODD, *spelled, *([""] if with_empty else [])]


def expect(live: Embedder, *, with_empty: bool = False) -> Expected:
    """What an exported folder has to make of the probe texts.

    Raises:
        RunError: the model has an adapter that changes nothing.
    """
    texts, prompts = probe_texts(live, with_empty=with_empty), named_prompts(live)
    vectors = live.encode(texts)
    if live.adapter is not None:
        with live.without_adapter():
            if np.array_equal(live.encode(texts), vectors):
                raise RunError("The adapter changes no embedding, so there is nothing to merge.\nTrain it first.")
    bare = live.tokenizer.encoder.encode(texts, [read_prompt(None)] * len(texts))
    prompted_ids = {
        name: uncut_ids(live.backbone.tokenizer, texts, prompt=prompt, settings=live.settings)
        for name, prompt in prompts.items()
    }
    return Expected(texts, vectors, [one.ids for one in bare], prompts, prompted_ids, live.settings)


def uncut_ids(tokenizer: Any, texts: list[str], *, prompt: Prompt, settings: EmbeddingSettings) -> list[list[int]]:
    """Of each text under a prompt, however long, with the end token if the model puts it."""
    uncut = TextTokenizer(
        tokenizer, max_length=sys.maxsize, end_token=settings.end_token, prompt_tokens=settings.prompt_tokens
    )
    return [ids.tolist() for ids in uncut.tokenize(texts, prompts=prompt).ids]


def check_merged(folder: Path, *, expected: Expected, dtype: str, device: str) -> Parity:
    """How near a merged folder's embeddings are to the model's, when its tokenizer gives the same tokens.

    Raises:
        RunError: below the tolerance, or another token.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    found = [tokenizer(text)["input_ids"] for text in expected.texts]
    compare_tokens(found, expected.texts, expected.bare_ids)
    exported = Embedder.load(str(folder), precision=Precision.FP32, device=device, fused=False)
    return compare_vectors([exported.encode(expected.texts)], expected, dtype=dtype)


def check_sentence_transformers(
    folder: Path, *, expected: Expected, placed: PlacedPrompts, dtype: str, device: str
) -> Parity:
    """The same through the package sentence-transformers, in batches padded on either side and some texts by
    themselves; and the tokens by tokenizer.json alone and as loaded here.

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
    compare_prompted(Tokenizer.from_file(str(folder / "tokenizer.json")), expected, placed)
    loaded = load_model_tokenizer(str(folder))
    for name, prompt in expected.prompts.items():
        found = uncut_ids(loaded, expected.texts, prompt=prompt, settings=expected.settings)
        compare_tokens(found, expected.texts, expected.prompted_ids[name])
    exported = SentenceTransformer(
        str(folder), device=device, trust_remote_code=False, model_kwargs={"dtype": "float32", "use_safetensors": True}
    )
    ways = []
    for side in ("left", "right"):
        exported.tokenizer.padding_side = side
        ways.append(exported.encode(expected.texts, show_progress_bar=False))
    some_alone = ways[-1].copy()
    some_alone[::_EVERY] = exported.encode(expected.texts[::_EVERY], batch_size=1, show_progress_bar=False)
    ways.append(some_alone)
    return compare_vectors(ways, expected, dtype=dtype)


def check_graph(
    folder: Path,
    *,
    open_graph: Callable[[Path], GraphModel],
    expected: Expected,
    placed: PlacedPrompts,
    dtype: str,
) -> Parity:
    """The same of a folder with a graph, by the runtime that opens it and its tokenizer.json alone: each text by
    itself, and in batches padded on either side.

    Raises:
        RunError: as above.
    """
    compare_prompted(Tokenizer.from_file(str(folder / "tokenizer.json")), expected, placed)
    graph = open_graph(folder)
    texts = [placed.texts[Side.DOCUMENT] + text for text in expected.texts]
    ways = [graph.encode(texts, batch_size=1)]
    ways += [graph.encode(texts, batch_size=_BATCH, padding=side) for side in ("left", "right")]
    return compare_vectors(ways, expected, dtype=dtype)


def compare_prompted(tokenizer: Tokenizer, expected: Expected, placed: PlacedPrompts) -> None:
    """Tokens of all texts under all prompts, by tokenizer.json alone, uncut; raises RunError as `compare_tokens`."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for name, ids in expected.prompted_ids.items():
        found = [tokenizer.encode(placed.texts[name] + text).ids for text in expected.texts]
        compare_tokens(found, expected.texts, ids, advice=_MERGE if placed.cut_off else _REPORT)


def compare_tokens(
    found: Sequence[list[int]], texts: Sequence[str], ids: Sequence[list[int]], *, advice: str = _REPORT
) -> None:
    """Raise RunError with the first text whose ids are not those expected, and what to do."""
    for text, one, expected in zip(texts, found, ids, strict=True):
        if one != expected:
            raise RunError(
                f"The exported tokenizer cuts {text[:60]!r} otherwise than the model's: {one[:40]}, not "
                f"{expected[:40]}. Nothing was kept.\n{advice}"
            )


def compare_vectors(ways: Sequence[np.ndarray], expected: Expected, *, dtype: str) -> Parity:
    """How near vectors (K, D) are to those expected, of all the ways in which they were made.

    Raises:
        RunError: the farthest is below the tolerance.
    """
    cosines = np.stack([_cosines(vectors, expected.vectors) for vectors in ways])
    smallest_of_each = cosines.min(axis=0)
    worst = int(smallest_of_each.argmin())
    smallest = float(smallest_of_each[worst])
    if not smallest >= _TOLERANCE[dtype]:
        raise RunError(
            f"The exported folder does not embed as the model does: {expected.texts[worst][:60]!r} is at a cosine of "
            f"{smallest:.5f}, below {_TOLERANCE[dtype]}. Nothing was kept.\n{_REPORT}"
        )
    return Parity(smallest, float(cosines.mean()), len(expected.texts))


def _cosines(vectors: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of unit vectors, row by row; both zero, as of a lone token whose embedding is zero, are alike."""
    is_zero = ~(vectors.any(axis=1) | expected.any(axis=1))
    return np.where(is_zero, 1.0, np.einsum("kd,kd->k", vectors, expected, dtype=np.float64))
