"""evaluate: MODEL -> scores on similarity tasks, one result for each pooling and width asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from embedsmith.data.pairs import load_pairs
from embedsmith.evaluation.mteb_tasks import load_mteb_tasks
from embedsmith.evaluation.sts import evaluate_tasks, load_local_tasks
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.backbone import SETTINGS_FILE, weights_folder
from embedsmith.model.loading.fingerprint import describe_embedding, fingerprint_model
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.model.pooling import pooled_width
from embedsmith.model.widths import check_dim, shorten
from embedsmith.records.results import EvaluationResult
from embedsmith.settings.config import Pooling, Precision, Side
from embedsmith.support.display import encoding_progress


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
    precision: Precision = Precision.AUTO,
    console: Console | None = None,
) -> dict[str, EvaluationResult]:
    """Score MODEL on STS tasks. Both sentences of a pair are queries, as the tasks are symmetric.

    Args:
        model: built-in name, hub id, folder or run.
        tasks: names; None: every file in `data`, or the built-in development pairs without `data`.
        data: folder of `<TASK>.tsv.gz` files; None: tasks are mteb's, from the hub.
        columns: {sentence1: ..., sentence2: ..., score: ...} where the files name them otherwise.
        poolings: score these instead of the model's own; one forward serves all.
        dims: score the first dimensions, as many as each of these says, instead of all; one forward serves all.
        prompt: template or known name, in the place of the model's own for either side.
        instruction: fills `{instruction}` in the prompt, in the place of the model's own.
        end_token: whether texts end with the end token; None: as trained.
        base_model: where the base of a run or adapter lies, if not where it lay in training.
        precision: of the weights.
        console: where progress goes; None: nowhere.

    Returns:
        Label -> result; the label is MODEL, with the pooling and width behind it that were asked for. Tasks that could
        not be ranked stand among its failures.

    Raises:
        ConfigError: a width is not in 1 ... D.
        DataError, ModelError, MissingExtraError: by their names.
    """
    if data is not None:
        loaded = load_local_tasks(Path(data), tasks, columns=columns)
    else:
        loaded = load_mteb_tasks(tasks) if tasks else {"sample-dev": load_pairs("sample")}
    embedder = Embedder.load(
        model,
        base_model=base_model,
        precision=precision,
        prompt=prompt,
        query_prompt=prompt,
        instruction=instruction,
        end_token=end_token,
    )
    asked = list(poolings) or [embedder.settings.pooling]
    for pooling in asked:
        for dim in dims:
            check_dim(dim, width=pooled_width(embedder.backbone.model.config.hidden_size, pooling=pooling))
    widths: Sequence[int | None] = dims or [None]
    labels = {
        model + (f" ({pooling})" if poolings else "") + (f" ({dim} dimensions)" if dim else ""): (pooling, dim)
        for pooling in asked
        for dim in widths
    }
    with encoding_progress(console or Console(quiet=True)) as (start, advance):

        def embed(texts: list[str]) -> dict[str, np.ndarray]:
            rows = embedder.encode_poolings(
                texts, poolings=asked, side=Side.QUERY, instruction=instruction, on_progress=advance
            )
            return {
                label: shorten(torch.from_numpy(rows[pooling]), dim=dim).numpy() if dim else rows[pooling]
                for label, (pooling, dim) in labels.items()
            }

        results = evaluate_tasks(embed, tasks=loaded, on_task=start)
    weights = fingerprint_model(model, base_model=base_model)
    return {
        label: replace(
            result, embedding=describe_embedding(embedder.settings, weights=weights, pooling=pooling, dim=dim)
        )
        for (label, (pooling, dim)), result in zip(labels.items(), results.values(), strict=True)
    }


def base_of(model: str) -> str:
    """What MODEL builds on, by the name it has; a model that is no run builds on itself."""
    folder = weights_folder(model)
    return EmbeddingSettings.read(folder).base_model if (folder / SETTINGS_FILE).exists() else model
