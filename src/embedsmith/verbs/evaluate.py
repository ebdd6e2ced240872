"""evaluate: MODEL -> scores on similarity tasks, one result for each pooling and width asked for."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from embedsmith.data.pairs import load_pairs
from embedsmith.evaluation.mteb_tasks import load_mteb_tasks
from embedsmith.evaluation.sts import evaluate_tasks, load_local_tasks
from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import EmbeddingModel, LoadedModel, load_embedding_model, take_sts_prompt
from embedsmith.model.loading.backbone import ADAPTER_FILE, SETTINGS_FILE, weights_folder
from embedsmith.model.loading.configuration import find_model_type
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.model.loading.peft_config import read_adapter_config
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.model.loading.sources import source_of
from embedsmith.model.vector_precision import Ranges, as_numbers, check_vector_precision, quantize_vectors
from embedsmith.model.widths import check_dim, shorten
from embedsmith.records.results import EvaluationResult
from embedsmith.reporting.published import Beside, published_beside
from embedsmith.settings.choices import Pooling, Precision, Side, VectorPrecision
from embedsmith.settings.families import line_of
from embedsmith.support.display import encoding_progress
from embedsmith.support.errors import ModelError

log = logging.getLogger(__name__)


def evaluate(
    model: str,
    *,
    tasks: Sequence[str] | None = None,
    data: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    poolings: Sequence[Pooling] = (),
    dims: Sequence[int] = (),
    prompt: str | None = None,
    instruction: str | None = None,
    end_token: bool | None = None,
    base_model: str | None = None,
    vector_precision: VectorPrecision = VectorPrecision.FLOAT32,
    ranges: Path | None = None,
    precision: Precision = Precision.AUTO,
    device: str | None = None,
    console: Console | None = None,
) -> dict[str, EvaluationResult]:
    """Score MODEL on STS tasks. Both sentences of a pair are queries, as the tasks are symmetric.

    A published model that has a prompt named STS gets it.

    Args:
        model: built-in name, hub id, folder or run; or a sentence-transformers encoder or a folder with a graph, as it
            ships.
        tasks: names; None: every file in `data`, or the built-in development pairs without `data`.
        data: folder of `<TASK>.tsv.gz` files; None: tasks are mteb's, from the hub.
        columns: {sentence1: ..., sentence2: ..., score: ...} where the files name them otherwise.
        poolings: score these instead of the model's own; one forward serves all.
        dims: score the first dimensions, as many as each of these says, instead of all; one forward serves all.
        prompt: template, known name or name of one of the model's own, in the place of the model's own for either side.
        instruction: fills `{instruction}` in the prompt, in the place of the model's own.
        end_token: whether texts end with the end token; None: as trained.
        base_model: where the base of a run or adapter lies, if not where it lay in training.
        vector_precision: number format of the vectors; what is compared are the numbers, see `as_numbers`.
        ranges: file with those of int8 and uint8; None: of each task's own texts, which is said.
        precision: of the weights.
        device: a torch device; None: CUDA where there is one, else the CPU.
        console: where progress goes; None: nowhere.

    Returns:
        Label -> result; the label is MODEL, with the pooling, width and number format behind it that were asked for.
        Tasks that could not be ranked stand among its failures.

    Raises:
        ConfigError: a width is not in 1 ... D, ranges are not used or of other vectors, or an encoder is asked for what
            only a decoder has.
        DataError, ModelError, MissingExtraError: by their names.
    """
    if data is not None:
        loaded = load_local_tasks(Path(data), tasks, columns=columns)
    else:
        loaded = load_mteb_tasks(tasks) if tasks else {"sample-dev": load_pairs("sample")}
    known = Ranges.read(ranges) if ranges is not None else None
    embedder = load_embedding_model(
        model,
        pooling=poolings[0] if poolings else None,
        base_model=base_model,
        precision=precision,
        device=device,
        prompt=prompt,
        instruction=instruction,
        end_token=end_token,
    )
    if prompt is None:
        take_sts_prompt(embedder, name=model)
    labels = _labels(model, embedder, poolings=poolings, dims=dims, vector_precision=vector_precision)
    weights = fingerprint_model(model, base_model=base_model)
    embeddings = {
        label: embedder.describe(weights=weights, dim=dim, **({"pooling": pooling} if pooling else {}))
        for label, (pooling, dim) in labels.items()
    }
    for label, (pooling, dim) in labels.items():
        check_vector_precision(vector_precision, ranges=known, dim=dim or _width(embedder, pooling))
        if known is not None:
            known.check_embedding(embeddings[label], where=str(ranges))
    with encoding_progress(console or Console(quiet=True)) as (start, advance):

        def embed(texts: list[str]) -> dict[str, np.ndarray]:
            rows = _encode(embedder, texts, poolings=poolings, instruction=instruction, on_progress=advance)
            vectors = {
                label: shorten(torch.from_numpy(rows[pooling]), dim=dim).numpy() if dim else rows[pooling]
                for label, (pooling, dim) in labels.items()
            }
            return {label: _in_numbers(one, vector_precision, ranges=known) for label, one in vectors.items()}

        results = evaluate_tasks(embed, tasks=loaded, on_task=start)
    for name, pairs in loaded.items():
        texts = {*pairs.sentence1, *pairs.sentence2}
        say_cut(embedder, texts, where=f"{model}, {name}", instruction=instruction)
    of_vectors = {} if vector_precision is VectorPrecision.FLOAT32 else {"vector_precision": str(vector_precision)}
    return {label: replace(result, embedding={**embeddings[label], **of_vectors}) for label, result in results.items()}


def _in_numbers(vectors: np.ndarray, vector_precision: VectorPrecision, *, ranges: Ranges | None) -> np.ndarray:
    """What of float32 vectors is compared where they are kept in another number format."""
    kept = quantize_vectors(vectors, vector_precision=vector_precision, ranges=ranges)
    return as_numbers(kept, vector_precision=vector_precision, dim=vectors.shape[1])


def _labels(
    model: str,
    embedder: LoadedModel,
    *,
    poolings: Sequence[Pooling],
    dims: Sequence[int],
    vector_precision: VectorPrecision,
) -> dict[str, tuple[Pooling | None, int | None]]:
    """Label -> pooling (None: the model's own) and width (None: all)."""
    asked: Sequence[Pooling | None] = poolings or [None]
    for pooling in asked:
        for dim in dims:
            check_dim(dim, width=_width(embedder, pooling))
    widths: Sequence[int | None] = dims or [None]
    behind = "" if vector_precision is VectorPrecision.FLOAT32 else f" ({vector_precision})"
    return {
        model + (f" ({pooling})" if pooling else "") + (f" ({dim} dimensions)" if dim else "") + behind: (pooling, dim)
        for pooling in asked
        for dim in widths
    }


def _width(embedder: LoadedModel, pooling: Pooling | None) -> int:
    return embedder.width_of(pooling) if isinstance(embedder, Embedder) and pooling is not None else embedder.dim


def _encode(
    embedder: LoadedModel, texts: list[str], *, poolings: Sequence[Pooling], **options: Any
) -> Mapping[Any, np.ndarray]:
    """By pooling; None is the model's own."""
    if not poolings:
        return {None: embedder.encode(texts, side=Side.QUERY, **options)}
    assert isinstance(embedder, Embedder), "an encoder was refused its pooling"
    return embedder.encode_poolings(texts, poolings=poolings, side=Side.QUERY, **options)


def say_cut(embedder: EmbeddingModel, texts: Collection[str], *, where: str, instruction: str | None = None) -> None:
    """Warn where texts, embedded as queries, were longer than the model takes."""
    if num_cut := embedder.count_cut(list(texts), side=Side.QUERY, instruction=instruction):
        log.warning("%s: %d of %d texts were cut to %d tokens.", where, num_cut, len(texts), embedder.max_length)


def find_published(
    measured: Sequence[tuple[str, EvaluationResult]], *, model: str, base_model: str | None = None
) -> Beside | None:
    """What was published of the model that MODEL builds on in the end, or of its family, to stand beside (title,
    result) of what was measured; None: nothing."""
    root = base_of(model)
    names = [base_model, root] if base_model else [root]  # a base that has moved may lie under another name
    try:
        model_type = find_model_type(source_of(names[0]))
    except ModelError:  # it is not here, and only its name is left to go by
        model_type = None
    family = line_of(model_type) if model_type else None
    found = [published_beside(measured, base_model=name, family=family) for name in names]
    return next((one for one in found if one and one.family is None), found[0])


def base_of(model: str) -> str:
    """What MODEL builds on in the end, by the name it has; a model that is no run or adapter builds on itself."""
    folder = weights_folder(model)
    if (folder / SETTINGS_FILE).exists():
        return root_of(EmbeddingSettings.read(folder))
    named = read_adapter_config(folder).get("base_model_name_or_path") if (folder / ADAPTER_FILE).exists() else None
    return str(named or model)


def root_of(settings: EmbeddingSettings) -> str:
    """What a model builds on in the end, through runs that were trained from runs, as far as they are here."""
    seen: list[str] = []
    while (base := settings.base_model) not in seen:
        seen.append(base)
        folder = weights_folder(base) if Path(base).is_dir() else Path(base)
        if not (folder / SETTINGS_FILE).exists():
            break
        settings = EmbeddingSettings.read(folder)
    return base
