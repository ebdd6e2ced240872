"""A model or run -> a static one: a table with a vector for every token; a text is the mean of its tokens' vectors.

    token --model, in its prompt--> (V, D) --PCA--> (V, d) --weights by how rare a token is--> table

Some hundred times faster than the model, and worse: no word knows its neighbours. The recipe is model2vec's; the token
vectors are those of `Embedder`, so prompts, poolings, dense layers and attention both ways are in them. The folder is
model2vec's, which sentence-transformers loads too.

Cost: the model embeds every token of its vocabulary once, as a text of its own.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from tokenizers import Tokenizer, normalizers

from embedsmith.export.folders import check_new_folder
from embedsmith.export.parity import probe_texts
from embedsmith.model.control_tokens import change_control_tokens
from embedsmith.model.embedder import Embedder
from embedsmith.model.tokens import TextTokenizer
from embedsmith.model.widths import check_dim
from embedsmith.settings.choices import Precision, Side
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, MissingExtraError, ModelError, RunError
from embedsmith.support.free_memory import let_go

log = logging.getLogger(__name__)

STATIC = "static"
"""What the format is called beside those of `folders.Format`."""
_USUAL_DIM = 256
_SIF = 1e-4
_TOKENS_AT_ONCE = 4096
_TOLERANCE = 0.99999  # smallest cosine: of float32 rounding is left
_NORMALIZE = "1_Normalize"


@dataclass(frozen=True)
class StaticFacts:
    """A static model that was written.

    Attributes:
        num_tokens: V, rows of its table.
        dim: d, width of its vectors.
        explained: share of the token vectors' variance that PCA kept, 0 to 1.
        size_bytes: of its weights.
        smallest_cosine: of what sentence-transformers makes of the probe texts to the means that were meant.
    """

    num_tokens: int
    dim: int
    explained: float
    size_bytes: int
    smallest_cosine: float


def export_static(
    model: str,
    *,
    folder: Path,
    dim: int | None = None,
    base_model: str | None = None,
    device: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> StaticFacts:
    """Write a static model distilled from MODEL; kept only if sentence-transformers reads it as it was meant.

    Queries and documents are embedded alike there, as documents.

    Args:
        model: built-in name, hub id, folder or run.
        folder: must not exist, or be empty.
        dim: dimensions that PCA keeps; None: 256, or all of fewer.
        base_model: where the base of a run lies, if not where it lay in training.
        device: where tokens are embedded; None: CUDA where there is one, else the CPU.
        on_progress: called with the number of tokens finished, some thousand at a time.

    Raises:
        RunError: the folder is taken, cannot be written, or is read otherwise.
        ConfigError: `dim` is not in 1 ... D, or there are no more tokens than that.
        ModelError: the tokenizer's ids are no table's rows.
        MissingExtraError: sentence-transformers is not installed.

    Reference: model2vec 0.10 (`distill`); Arora et al. 2017, "A simple but tough-to-beat baseline", for the weights.
    """
    check_new_folder(folder)
    load_with = _sentence_transformer()
    live = Embedder.load(model, base_model=base_model, precision=Precision.AUTO, device=device)
    if dim is not None:
        check_dim(dim, width=live.dim)
    if live.prompt_of(Side.QUERY) != live.prompt_of():
        log.warning("%s has a prompt of its own for queries; a static model embeds them as documents.", model)
    tokenizer = make_static_tokenizer(live)
    vectors = embed_tokens(live, num_tokens=tokenizer.get_vocab_size(), on_progress=on_progress)
    table, explained = make_table(vectors, dim=dim or min(_USUAL_DIM, live.dim))
    if (unknown := _unknown_id(tokenizer)) is not None:
        table[unknown] = 0  # model2vec leaves it out of the mean
    texts, pooling = probe_texts(live), str(live.settings.pooling)
    del live
    let_go()
    with files.atomic_folder(folder) as temporary:
        _write(temporary, table=table, tokenizer=tokenizer, pooling=pooling)
        other = load_with(str(temporary), device="cpu")
        smallest = _check(other, table=table, tokenizer=tokenizer, texts=texts)
    num_tokens, width = table.shape
    return StaticFacts(num_tokens, width, explained, table.nbytes, smallest)


def make_static_tokenizer(live: Embedder) -> Tokenizer:
    """A model's tokenizer that puts nothing around texts, knows no control token, and has a blank before the first
    word too, as most words of a text have one.

    Raises:
        ModelError: its ids are not 0 ... V - 1, or the model has fewer.
    """
    encoder = live.tokenizer.encoder
    backend = change_control_tokens(
        live.backbone.tokenizer.backend_tokenizer, encoder.control_tokens, change=lambda _: None
    )
    state = json.loads(backend.to_str())
    state["post_processor"] = None
    tokenizer = Tokenizer.from_str(json.dumps(state))
    if not encoder.puts_blank:
        own = [tokenizer.normalizer] if tokenizer.normalizer else []
        blank = [normalizers.Strip(left=True, right=False), normalizers.Prepend(" ")]
        tokenizer.normalizer = normalizers.Sequence([*blank, *own])
    ids = sorted(tokenizer.get_vocab().values())
    num_rows = live.backbone.model.get_input_embeddings().num_embeddings
    if ids != list(range(len(ids))) or len(ids) > num_rows:
        raise ModelError(
            f"The tokenizer has {len(ids)} tokens with ids up to {ids[-1]}, and the model {num_rows} rows: that makes "
            "no table with a row for each token."
        )
    return tokenizer


def embed_tokens(live: Embedder, *, num_tokens: int, on_progress: Callable[[int], None] | None = None) -> np.ndarray:
    """The first `num_tokens` ids, each as a text of its own under the prompt of documents; (V, D), unit length."""
    settings = live.settings
    texts = TextTokenizer(
        live.backbone.tokenizer,
        max_length=live.max_length,
        end_token=settings.end_token,
        pool_over=settings.pool_over,
        prompt_tokens="apart",  # a token has no characters that could be joined with a prompt
    )
    vectors = np.empty((num_tokens, live.dim), dtype=np.float32)
    for start in range(0, num_tokens, _TOKENS_AT_ONCE):
        ids = range(start, min(start + _TOKENS_AT_ONCE, num_tokens))
        vectors[ids.start : ids.stop] = live.encode_tokens(
            texts.frame_ids([[index] for index in ids], prompt=live.prompt_of())
        )
        if on_progress:
            on_progress(len(ids))
    return vectors


def make_table(vectors: np.ndarray, *, dim: int) -> tuple[np.ndarray, float]:
    """Token vectors on their first principal components, each weighted by how rare its token is.

    A token's frequency is taken from its id, by Zipf's law: tokenizers are built from the most frequent pieces on.

    Args:
        vectors: (V, D), in the order of ids.
        dim: d, at most D and below V.

    Returns:
        The table (V, d), and the share of the variance that the components hold.

    Raises:
        ConfigError: there are no more tokens than dimensions.
    """
    if dim >= len(vectors):
        raise ConfigError(f"dim is {dim}, and there are only {len(vectors)} tokens.\nChoose fewer.")
    centred = vectors - vectors.mean(axis=0)
    spreads, components = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    scores = centred @ components[:, ::-1][:, :dim].astype(vectors.dtype)
    largest = scores[np.abs(scores).argmax(axis=0), np.arange(dim)]
    scores *= np.sign(largest)  # of a component either direction would do
    inverse_ranks = 1 / np.arange(2, len(vectors) + 2)
    frequencies = inverse_ranks / inverse_ranks.sum()
    weights = _SIF / (_SIF + frequencies)
    return scores * weights[:, None].astype(vectors.dtype), float(spreads[::-1][:dim].sum() / spreads.sum())


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    model = json.loads(tokenizer.to_str())["model"]
    token = model.get("unk_token")
    return model.get("unk_id") if token is None else tokenizer.token_to_id(token)


def _write(folder: Path, *, table: np.ndarray, tokenizer: Tokenizer, pooling: str) -> None:
    """model2vec's files, and what sentence-transformers wants beside them."""
    files.write_bytes(folder / "model.safetensors", safetensors.numpy.save({"embeddings": table}))
    tokenizer.save(str(folder / "tokenizer.json"))
    files.write_json(
        folder / "config.json",
        {
            "model_type": "model2vec",
            "architectures": ["StaticModel"],
            "apply_pca": table.shape[1],
            "sif_coefficient": _SIF,
            "hidden_dim": table.shape[1],
            "normalize": True,
            "max_length": None,  # a text of any length
            "pooling": pooling,
            "embedding_dtype": table.dtype.name,
        },
    )
    files.write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": {str(side): "" for side in Side},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    kinds = {"": "StaticEmbedding", _NORMALIZE: "Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    files.write_json(folder / "modules.json", modules)
    files.write_json(folder / _NORMALIZE / "config.json", {})


def _sentence_transformer() -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        needed_for = "Checking a static model's folder"
        raise MissingExtraError("sentence-transformers", extra="export", needed_for=needed_for) from None
    return SentenceTransformer


def _check(other: Any, *, table: np.ndarray, tokenizer: Tokenizer, texts: list[str]) -> float:
    """The smallest cosine of what sentence-transformers makes of texts to the means that are meant."""
    all_ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    sums = np.array([table[ids].astype(np.float64).sum(axis=0) for ids in all_ids])
    is_known = np.any(sums != 0, axis=1)
    found = other.encode([texts[index] for index in np.flatnonzero(is_known)], show_progress_bar=False)
    means = sums[is_known] / np.linalg.norm(sums[is_known], axis=1, keepdims=True)
    smallest = float(np.einsum("kd,kd->k", found.astype(np.float64), means).min())
    if not smallest >= _TOLERANCE:
        raise RunError(
            f"sentence-transformers reads the static model otherwise than it was meant: a text is at a cosine of "
            f"{smallest:.5f}, below {_TOLERANCE}. Nothing was kept.\nPlease report this model."
        )
    return smallest
