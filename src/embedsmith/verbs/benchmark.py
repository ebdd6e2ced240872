"""MODEL + mteb's tasks, of any type, or retrieval sets in folders -> scores, in mteb's own result files too.

mteb computes every score; STS tasks with one subset, and retrieval sets in folders, get an interval besides. A run
that was stopped goes on where it was: a result file is used again where model, settings, data and version of mteb are
the same.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from embedsmith.data.beir import find_retrieval_sets, load_retrieval_set
from embedsmith.data.readers import is_data_file
from embedsmith.evaluation.mteb_tasks import (
    BY_QUERY,
    find_mteb_tasks,
    import_mteb,
    load_task,
    local_retrieval_task,
    task_pairs,
)
from embedsmith.evaluation.per_query import mean_interval
from embedsmith.evaluation.sts import evaluate_tasks, set_name
from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.records.results import BenchmarkResult, EvaluationResult, MtebScore, QueryScores
from embedsmith.settings.config import Pooling, Precision
from embedsmith.settings.prompts import check_instruction
from embedsmith.support.display import encoding_progress
from embedsmith.support.errors import ConfigError, DataError, EmbedsmithError, ModelError

_STAND_IN = "Find text of the same meaning"
"""A prompt that takes an instruction is loaded with one; each task then brings its own."""
_BATCH_TEXTS = 4096  # of mteb's loader; the embedder packs them by tokens


def run_benchmark(
    model: str,
    *,
    folder: Path,
    tasks: Sequence[str] | None = None,
    benchmark: str | None = None,
    data: Path | None = None,
    pooling: Pooling | None = None,
    dim: int | None = None,
    prompt: str | None = None,
    instruction: str | None = None,
    end_token: bool | None = None,
    base_model: str | None = None,
    precision: Precision = Precision.AUTO,
    device: str | None = None,
    console: Console | None = None,
) -> BenchmarkResult:
    """Run mteb's tasks.

    Args:
        model: built-in name, hub id, folder or run; or a sentence-transformers encoder.
        folder: for mteb's result files.
        tasks: names; None: all of the benchmark, or of the folder.
        benchmark: name of one of mteb's.
        data: folder of retrieval sets in BEIR's layout; None: tasks are the hub's.
        pooling: instead of the model's own.
        dim: of the embeddings, cut to so many.
        prompt, instruction, end_token, base_model, precision, device: as `evaluate`.
        console: where progress goes; None: nowhere.

    Raises:
        MissingExtraError: mteb is not installed.
        DataError: an unknown task or benchmark, faulty files.
        ConfigError, ModelError: by their names.
        Where no task at all can be scored, the first one's reason; else the reasons stand among the result's failures.
    """
    import_mteb()
    from datasets import disable_progress_bars

    from embedsmith.evaluation.mteb_encoder import MtebEncoder

    disable_progress_bars()

    chosen = find_mteb_tasks(tasks, benchmark=benchmark) if data is None else _local_tasks(data, tasks)
    embedder = load_embedding_model(
        model,
        pooling=pooling,
        base_model=base_model,
        precision=precision,
        device=device,
        prompt=prompt,
        instruction=instruction or _STAND_IN,
        end_token=end_token,
    )
    scores: dict[str, MtebScore] = {}
    queries: dict[str, QueryScores] = {}
    sts: list[EvaluationResult] = []
    failures: dict[str, Exception] = {}
    check_instruction(instruction, is_taken=embedder.takes_instruction)
    with encoding_progress(console or Console(quiet=True)) as (start, advance):
        encoder = MtebEncoder(
            embedder, model=model, base_model=base_model, instruction=instruction, dim=dim, on_progress=advance
        )
        for task in chosen:
            start(task.metadata.name)
            try:
                found = _run_task(task, encoder=encoder, folder=folder)
                if data is not None:
                    queries[task.metadata.name] = _query_scores(found, task)
                scores[task.metadata.name] = _read_score(found, task, queries=queries.get(task.metadata.name))
                if task.metadata.type == "STS" and not task.is_aggregate and len(task.hf_subsets) == 1:
                    sts.append(_with_interval(encoder, task, model=model))
            # ValueError is how scikit-learn says that embeddings are not finite.
            except (EmbedsmithError, ValueError, ArithmeticError) as error:
                failures[task.metadata.name] = error
            for part in _parts(task):
                if part.data_loaded:
                    part.unload_data()
    if not scores:
        name, reason = next(iter(failures.items()))
        if isinstance(reason, EmbedsmithError):
            raise reason
        raise ModelError(f"{name} cannot be scored: {reason}") from reason
    merged = EvaluationResult(
        model,
        {name: result for one in sts for name, result in one.tasks.items()},
        {name: pairs for one in sts for name, pairs in one.similarities.items()},
        queries=queries,
        embedding=encoder.embedding,
    )
    return BenchmarkResult(benchmark, scores, merged, {name: str(reason) for name, reason in failures.items()})


def _parts(task: Any) -> list[Any]:
    return list(task.metadata.tasks) if task.is_aggregate else [task]


def _run_task(task: Any, *, encoder: Any, folder: Path) -> Any:
    """Load, encode and score a task of mteb's, or take what it kept: its result.

    Raises:
        DataError: the hub cannot be reached.
    """
    import mteb

    for part in _parts(task):
        load_task(part)
    cache = mteb.ResultCache(folder)
    _drop_stale(cache, task, encoder=encoder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="An input array is constant")  # said below, in our words
        [found] = mteb.evaluate(
            encoder,
            task,
            co2_tracker=False,
            cache=cache,
            encode_kwargs={"batch_size": _BATCH_TEXTS, "show_progress_bar": False},
            show_progress_bar=False,
        ).task_results
    return found


def _query_scores(found: Any, task: Any) -> QueryScores:
    return QueryScores(np.asarray(found.scores["test"][0][BY_QUERY]), task.metadata.revision)


def _read_score(found: Any, task: Any, *, queries: QueryScores | None) -> MtebScore:
    """Raises ModelError where the score is not a number."""
    score = float(found.get_score())
    if not math.isfinite(score):
        raise ModelError(
            f"mteb's score on {task.metadata.name} is {score}.\n"
            "The embeddings are not finite or all alike; run `embedsmith doctor` on the model."
        )
    result = MtebScore(task.metadata.type, task.metadata.main_score, score)
    if queries is None:
        return result
    return replace(
        result,
        ci95=mean_interval(queries.ndcg_at_10),
        num_queries=len(queries.ndcg_at_10),
        mrr_at_10=float(found.scores["test"][0]["mrr_at_10"]),
    )


def _drop_stale(cache: Any, task: Any, *, encoder: Any) -> None:
    """Remove what mteb kept of this model on other data or by another version of mteb, which itself goes by the names
    of model and task."""
    for part in _parts(task) if task.is_aggregate else []:
        _drop_stale(cache, part, encoder=encoder)
    path = cache.get_task_result_path(task.metadata.name, encoder.mteb_model_meta)
    if not path.exists():
        return
    try:
        kept = cache.load_task_result(task.metadata.name, encoder.mteb_model_meta)
        is_known = (kept.dataset_revision, kept.mteb_version) == (task.metadata.revision, version("mteb"))
    except (ValueError, KeyError, AttributeError):  # damaged
        is_known = False
    # The mean of a task made of tasks does not say of which results; it is made anew from theirs.
    if task.is_aggregate or not is_known:
        path.unlink()


def holds_retrieval_sets(folder: Path, names: Sequence[str] | None) -> bool:
    """Whether the tasks named (None: all) in a folder are retrieval sets, and not files of scored pairs.

    Raises:
        ConfigError: they are both, or one name is a set and a file.
    """
    retrieval = set(find_retrieval_sets(folder))
    files = {set_name(path.name) for path in folder.iterdir() if is_data_file(path.name)} if folder.is_dir() else set()
    asked = set(names) if names else retrieval | (files if folder.resolve().name not in retrieval else set())
    if twice := sorted(asked & retrieval & files):
        raise ConfigError(f"{folder} holds {', '.join(twice)} twice: as a retrieval set and as a file.\nRename one.")
    if asked & retrieval and asked - retrieval:
        raise ConfigError(
            f"{folder} holds retrieval sets ({', '.join(sorted(asked & retrieval))}) and scored pairs "
            f"({', '.join(sorted(asked - retrieval))}).\nEvaluate them apart, with --tasks."
        )
    return bool(asked & retrieval)


def _with_interval(encoder: Any, task: Any, *, model: str) -> EvaluationResult:
    def embed(texts: list[str]) -> dict[str, np.ndarray]:
        return {model: encoder.encode([{"text": texts}], task_metadata=task.metadata)}

    return evaluate_tasks(embed, tasks={task.metadata.name: task_pairs(task)})[model]


def _local_tasks(folder: Path, names: Sequence[str] | None) -> list[Any]:
    found = find_retrieval_sets(folder)
    unknown = [name for name in names or [] if name not in found]
    if unknown or not found:
        raise DataError(
            f"{folder} has no retrieval set {', '.join(unknown) or 'at all'} (corpus.jsonl, queries.jsonl, "
            f"qrels/test.tsv).\nIt holds: {', '.join(found) or 'none'}."
        )
    return [local_retrieval_task(name, load_retrieval_set(found[name])) for name in names or found]
