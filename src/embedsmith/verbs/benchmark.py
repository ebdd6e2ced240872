"""MODEL + mteb's tasks, of any type, or sets in files that it scores -> scores, in mteb's own result files too.

mteb computes every score; STS tasks with one subset, and retrieval and duplicate sets in files, get an interval
besides. A run that was stopped goes on where it was: a result file is used again where model, settings, data and
version of mteb are the same.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from embedsmith.data.beir import load_retrieval_set
from embedsmith.data.clusters import load_clustering_set
from embedsmith.data.local_sets import LocalSet, SetKind, find_local_sets, name_kinds
from embedsmith.data.pairs import load_duplicates
from embedsmith.evaluation.duplicates import average_precision_interval
from embedsmith.evaluation.mteb_local import (
    BY_PAIR,
    BY_QUERY,
    local_clustering_task,
    local_duplicate_task,
    local_retrieval_task,
)
from embedsmith.evaluation.mteb_tasks import find_mteb_tasks, import_mteb, load_task, task_pairs
from embedsmith.evaluation.per_query import mean_interval
from embedsmith.evaluation.sts import evaluate_tasks
from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.records.results import BenchmarkResult, DuplicateRanks, EvaluationResult, MtebScore, QueryScores
from embedsmith.settings.choices import Pooling, Precision
from embedsmith.settings.prompts import check_instruction
from embedsmith.support.display import encoding_progress
from embedsmith.support.errors import ConfigError, DataError, EmbedsmithError, ModelError

_STAND_IN = "Find text of the same meaning"
"""A prompt that takes an instruction is loaded with one; each task then brings its own."""
_COLLAPSED = "{what}.\nThe embeddings are not finite or all alike; run `embedsmith doctor` on the model."
_BATCH_TEXTS = 4096  # of mteb's loader; the embedder packs them by tokens


def run_benchmark(
    model: str,
    *,
    folder: Path,
    tasks: Sequence[str] | None = None,
    benchmark: str | None = None,
    data: Path | None = None,
    columns: Mapping[str, str] | None = None,
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
        data: folder of retrieval sets in BEIR's layout, duplicate sets and clustering sets; None: tasks are the hub's.
        columns: our names -> those of the files.
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

    chosen = find_mteb_tasks(tasks, benchmark=benchmark) if data is None else _local_tasks(data, tasks, columns)
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
    parts: dict[str, QueryScores | DuplicateRanks] = {}
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
                part = _what_it_is_made_of(found, task) if data is not None else None
                scores[task.metadata.name] = _read_score(found, task, part=part)
                if part is not None:
                    parts[task.metadata.name] = part
                if task.metadata.type == "STS" and not task.is_aggregate and len(task.hf_subsets) == 1:
                    sts.append(_with_interval(encoder, task, model=model))
            # ValueError is how scikit-learn says that embeddings are not finite.
            except (EmbedsmithError, ValueError, ArithmeticError) as error:
                failures[task.metadata.name] = error
            for one in _tasks_of(task):
                if one.data_loaded:
                    one.unload_data()
    if not scores:
        name, reason = next(iter(failures.items()))
        if isinstance(reason, EmbedsmithError):
            raise reason
        raise ModelError(f"{name} cannot be scored: {reason}") from reason
    merged = EvaluationResult(
        model,
        {name: result for one in sts for name, result in one.tasks.items()},
        {name: pairs for one in sts for name, pairs in one.similarities.items()},
        queries={name: part for name, part in parts.items() if isinstance(part, QueryScores)},
        duplicates={name: part for name, part in parts.items() if isinstance(part, DuplicateRanks)},
        embedding=encoder.embedding,
    )
    return BenchmarkResult(benchmark, scores, merged, {name: str(reason) for name, reason in failures.items()})


def _tasks_of(task: Any) -> list[Any]:
    return list(task.metadata.tasks) if task.is_aggregate else [task]


def _run_task(task: Any, *, encoder: Any, folder: Path) -> Any:
    """Load, encode and score a task of mteb's, or take what it kept: its result.

    Raises:
        DataError: the hub cannot be reached.
    """
    import mteb

    for part in _tasks_of(task):
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


def _what_it_is_made_of(found: Any, task: Any) -> QueryScores | DuplicateRanks | None:
    """What an interval of a local set's score is drawn from; None: mteb's clustering has nothing of the kind.

    Raises:
        ModelError: all pairs are equally near.
    """
    [scores] = found.scores["test"]
    if BY_QUERY in scores:
        return QueryScores(np.asarray(scores[BY_QUERY]), task.metadata.revision)
    if BY_PAIR not in scores:
        return None
    ranks = np.asarray(scores[BY_PAIR])
    if np.ptp(ranks) == 0:
        raise ModelError(_COLLAPSED.format(what=f"The similarities on {task.metadata.name} are all equal"))
    return DuplicateRanks(ranks, np.asarray(task.dataset["test"]["labels"]) == 1, task.metadata.revision)


def _read_score(found: Any, task: Any, *, part: QueryScores | DuplicateRanks | None) -> MtebScore:
    """Raises ModelError where the score is not a number."""
    score = float(found.get_score())
    if not math.isfinite(score):
        raise ModelError(_COLLAPSED.format(what=f"mteb's score on {task.metadata.name} is {score}"))
    result = MtebScore(task.metadata.type, task.metadata.main_score, score)
    match part:
        case QueryScores():
            return replace(
                result,
                ci95=mean_interval(part.ndcg_at_10),
                num_queries=len(part.ndcg_at_10),
                mrr_at_10=float(found.scores["test"][0]["mrr_at_10"]),
            )
        case DuplicateRanks():
            interval = average_precision_interval(part.ranks, part.is_duplicate)
            return replace(result, ci95=interval, num_pairs=len(part.ranks))
    return result


def _drop_stale(cache: Any, task: Any, *, encoder: Any) -> None:
    """Remove what mteb kept of this model on other data or by another version of mteb, which itself goes by the names
    of model and task."""
    for part in _tasks_of(task) if task.is_aggregate else []:
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


def are_for_mteb(sets: Mapping[str, LocalSet], *, folder: Path) -> bool:
    """Whether mteb scores these sets of a folder, as it does all but scored pairs.

    Raises:
        ConfigError: it scores some of them alone.
    """
    kinds = {one.kind for one in sets.values()}
    if SetKind.SCORED_PAIRS in kinds and len(kinds) > 1:
        raise ConfigError(f"{folder} holds {name_kinds(sets)}.\nEvaluate scored pairs apart, with --tasks.")
    return SetKind.SCORED_PAIRS not in kinds


def _with_interval(encoder: Any, task: Any, *, model: str) -> EvaluationResult:
    def embed(texts: list[str]) -> dict[str, np.ndarray]:
        return {model: encoder.encode([{"text": texts}], task_metadata=task.metadata)}

    return evaluate_tasks(embed, tasks={task.metadata.name: task_pairs(task)})[model]


def _local_tasks(folder: Path, names: Sequence[str] | None, columns: Mapping[str, str] | None) -> list[Any]:
    sets = find_local_sets(folder, names, columns=columns)
    if columns and all(one.kind is SetKind.RETRIEVAL for one in sets.values()):
        raise ConfigError(f"--columns names columns of files, and {name_kinds(sets)} are folders.\nLeave it out.")
    return [_local_task(name, one, columns=columns) for name, one in sets.items()]


def _local_task(name: str, one: LocalSet, *, columns: Mapping[str, str] | None) -> Any:
    match one.kind:
        case SetKind.RETRIEVAL:
            return local_retrieval_task(name, load_retrieval_set(one.path))
        case SetKind.DUPLICATES:
            return local_duplicate_task(name, load_duplicates(one.path, columns=columns))
        case SetKind.CLUSTERS:
            return local_clustering_task(name, load_clustering_set(one.path, columns=columns))
    raise DataError(f"{one.path} holds {one.kind}, which mteb does not score here.\nLeave it out with --tasks.")
