"""Models, or files that hold their evaluation -> which is better, with what certainty.

A model is one name or several with commas between them: the seeds of one recipe, which count as one model. A comma that
is part of a file's or folder's name parts nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from embedsmith.data.local_sets import SetKind, by_kind, find_local_sets, name_kinds
from embedsmith.evaluation.correlation import NUM_DRAWS
from embedsmith.evaluation.duplicates import DuplicateTask
from embedsmith.evaluation.per_query import QueryTask
from embedsmith.evaluation.saved import load_evaluation
from embedsmith.evaluation.significance import SEED_SPREAD, SeedScores, Task, TaskScores, compare
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.records.results import (
    NDCG,
    PRECISION,
    SPEARMAN,
    Comparison,
    EvaluationResult,
)
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, DataError, ModelError, list_faults
from embedsmith.support.free_memory import let_go
from embedsmith.verbs.benchmark import are_for_mteb, run_benchmark
from embedsmith.verbs.evaluate import evaluate

SAVED_SUFFIX = ".json"
_METRICS = {TaskScores: SPEARMAN, QueryTask: NDCG, DuplicateTask: PRECISION}


def compare_models(
    models: Sequence[str],
    *,
    tasks: Sequence[str] | None = None,
    data: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    num_draws: int = NUM_DRAWS,
    seed_spread: float = SEED_SPREAD,
    device: str | None = None,
    console: Console | None = None,
) -> list[Comparison]:
    """Compare every model with the first one, on the same pairs or queries.

    Args:
        models: two or more; each a MODEL, or the `results.json` of `embedsmith evaluate MODEL --out`, or several of
            them with commas between: seeds of one recipe.
        tasks: names, as `evaluate` takes them; None: for files alone, all that they hold.
        data: folder of the tasks' files: scored pairs, duplicate sets, or retrieval sets in BEIR's layout.
        columns: {sentence1: ..., sentence2: ..., score: ...} where they name them otherwise.
        num_draws: of bootstrap and permutations.
        seed_spread: see `significance.compare`.
        device: a torch device; None: CUDA where there is one, else the CPU.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError: fewer than two models, or tasks of several kinds, or clustering sets.
        DataError: files hold other tasks, other pairs or queries, or several kinds.
        ModelError, MissingExtraError: by their names. A task that some model cannot be scored on is left out, and the
            reason given with each comparison.
    """
    if len(models) < 2:
        raise ConfigError("A comparison needs two models or more: embedsmith compare A B")
    names = dict.fromkeys(name for model in models for name in split_seeds(model))
    if not all(name.strip() for name in names):
        raise ConfigError("A name is empty; seeds of one recipe stand as A,B with one comma between them.")
    evaluated = {name: load_evaluation(Path(name)) for name in names if name.endswith(SAVED_SUFFIX)}
    if data is not None and len(evaluated) < len(names):
        _check_kinds(Path(data), tasks, columns=columns)
    for name in names:
        if name not in evaluated:
            fingerprint_model(name)  # a model or base that is not there shows before hours are spent on another
    for name in names:
        if name not in evaluated:
            let_go()  # of the one before
            evaluated[name] = _evaluate(name, tasks=tasks, data=data, columns=columns, device=device, console=console)
    left_out = {
        task: f"{name}: {reason}"
        for name, one in evaluated.items()
        for task, reason in one.failures.items()
        if not tasks or task in tasks
    }
    groups: dict[str, list[EvaluationResult]] = {}
    for model in models:
        label = model
        while label in groups:  # a model beside itself is a fair question
            label += " (again)"
        groups[label] = [evaluated[name] for name in split_seeds(model)]
    scores = _aligned(groups, tasks, left_out=left_out)
    metric = _METRICS[type(next(iter(scores.values())))]
    found = compare(scores, num_draws=num_draws, seed_spread=seed_spread, metric=metric)
    return [replace(one, left_out=left_out) for one in found]


def _evaluate(
    model: str,
    *,
    tasks: Sequence[str] | None,
    data: Path | str | None,
    columns: Mapping[str, str] | None,
    device: str | None,
    console: Console | None,
) -> EvaluationResult:
    """On scored pairs, or on what of a folder mteb scores."""
    sets = find_local_sets(Path(data), tasks, columns=columns) if data is not None else {}
    if data is None or not are_for_mteb(sets, folder=Path(data)):
        results = evaluate(model, tasks=tasks, data=data, columns=columns, device=device, console=console)
        return next(iter(results.values()))
    scored = run_benchmark(
        model,
        folder=files.cache_root() / "mteb",
        tasks=tasks,
        data=Path(data),
        columns=columns,
        device=device,
        console=console,
    )
    return replace(scored.comparable, failures=scored.failures)


def _check_kinds(folder: Path, tasks: Sequence[str] | None, *, columns: Mapping[str, str] | None) -> None:
    """Refuse what could not be compared, before hours are spent on it."""
    sets = find_local_sets(folder, tasks, columns=columns)
    if clusters := by_kind(sets).get(SetKind.CLUSTERS):
        raise ConfigError(
            f"{', '.join(clusters)}: the score of a clustering set has no interval over its texts, so a difference "
            "cannot be told from chance.\nLeave it out with --tasks, and score each model with `embedsmith evaluate`."
        )
    if len(by_kind(sets)) > 1:
        raise ConfigError(f"{folder} holds {name_kinds(sets)}.\nCompare them apart, with --tasks.")


def split_seeds(model: str) -> list[str]:
    """The names between commas; as many parts as together name a file or folder that is there are one name."""
    parts = model.split(",")
    names: list[str] = []
    while parts:
        longest = next((end for end in range(len(parts), 1, -1) if Path(",".join(parts[:end])).exists()), 1)
        names.append(",".join(parts[:longest]))
        parts = parts[longest:]
    return names


def _aligned(
    groups: Mapping[str, Sequence[EvaluationResult]], tasks: Sequence[str] | None, *, left_out: Mapping[str, str]
) -> dict[str, Task]:
    """By task, all models; raises DataError where one lacks a task, was scored on other pairs or queries, or both kinds
    are asked for, and ModelError where nothing is left to compare."""
    first = next(iter(groups.values()))[0]
    names = [name for name in tasks or first.parts if name not in left_out]
    if not names:
        raise ModelError("\n".join(left_out.values()))
    faults = []
    for result in (result for results in groups.values() for result in results):
        parts = result.parts
        missing = [name for name in names if name not in parts]
        if missing or (tasks is None and parts.keys() - left_out.keys() != set(names)):
            faults.append(f"{result.model} has {', '.join(parts)}; asked for are {', '.join(names)}")
        faults += [
            f"{result.model} was scored on other {'queries' if name in first.queries else 'pairs'} of {name} than "
            f"{first.model}"
            for name in names
            if name not in missing and name in first.parts
            if parts[name].fingerprint != first.parts[name].fingerprint
        ]
    kinds = {
        SetKind.SCORED_PAIRS: first.similarities,
        SetKind.RETRIEVAL: first.queries,
        SetKind.DUPLICATES: first.duplicates,
    }
    asked = {kind: there for kind, known in kinds.items() if (there := [name for name in names if name in known])}
    if len(asked) > 1:
        named = " and ".join(f"{kind} ({', '.join(there)})" for kind, there in asked.items())
        faults.append(f"they hold {named}: compare them apart")
    if faults:
        raise DataError(
            list_faults(
                "These models cannot be compared:",
                faults,
                advice="Evaluate them on the same files, or name the tasks that all of them have with --tasks. Only "
                "scored pairs, retrieval sets and duplicate sets can be compared.",
            )
        )
    return {name: _task(name, groups, first=first) for name in names}


def _task(name: str, groups: Mapping[str, Sequence[EvaluationResult]], *, first: EvaluationResult) -> Task:
    if name in first.queries:
        return QueryTask(
            {label: [one.queries[name].ndcg_at_10 for one in results] for label, results in groups.items()}
        )
    if name in first.duplicates:
        return DuplicateTask(
            is_duplicate=first.duplicates[name].is_duplicate,
            models={label: [one.duplicates[name].ranks for one in results] for label, results in groups.items()},
        )
    return TaskScores(
        gold=first.similarities[name].gold,
        models={
            label: SeedScores([result.similarities[name].cosine for result in results])
            for label, results in groups.items()
        },
    )
