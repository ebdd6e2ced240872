"""Models, or files that hold their evaluation -> which is better, with what certainty.

A model is one name or several with commas between them: the seeds of one recipe, which count as one model. A comma that
is part of a file's or folder's name parts nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from embedsmith.evaluation.correlation import NUM_DRAWS
from embedsmith.evaluation.per_query import QueryTask
from embedsmith.evaluation.saved import load_evaluation
from embedsmith.evaluation.significance import SEED_SPREAD, SeedScores, Task, TaskScores, compare
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.records.results import (
    NDCG,
    SPEARMAN,
    Comparison,
    EvaluationResult,
    PairSimilarities,
    QueryScores,
)
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, DataError, ModelError, list_faults
from embedsmith.support.free_memory import let_go
from embedsmith.verbs.benchmark import holds_retrieval_sets, run_benchmark
from embedsmith.verbs.evaluate import evaluate

SAVED_SUFFIX = ".json"


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
        data: folder of the tasks' files, or of retrieval sets in BEIR's layout.
        columns: {sentence1: ..., sentence2: ..., score: ...} where they name them otherwise.
        num_draws: of bootstrap and permutations.
        seed_spread: see `significance.compare`.
        device: a torch device; None: CUDA where there is one, else the CPU.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError: fewer than two models.
        DataError: files hold other tasks, other pairs or queries, or both kinds.
        ModelError, MissingExtraError: by their names. A task that some model cannot be scored on is left out, and the
            reason given with each comparison.
    """
    if len(models) < 2:
        raise ConfigError("A comparison needs two models or more: embedsmith compare A B")
    names = dict.fromkeys(name for model in models for name in split_seeds(model))
    if not all(name.strip() for name in names):
        raise ConfigError("A name is empty; seeds of one recipe stand as A,B with one comma between them.")
    evaluated = {name: load_evaluation(Path(name)) for name in names if name.endswith(SAVED_SUFFIX)}
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
    metric = NDCG if any(isinstance(task, QueryTask) for task in scores.values()) else SPEARMAN
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
    """On scored pairs, or on the retrieval sets of a folder."""
    if data is None or not holds_retrieval_sets(Path(data), tasks):
        results = evaluate(model, tasks=tasks, data=data, columns=columns, device=device, console=console)
        return next(iter(results.values()))
    scored = run_benchmark(
        model, folder=files.cache_root() / "mteb", tasks=tasks, data=Path(data), device=device, console=console
    )
    return replace(scored.comparable, failures=scored.failures)


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
    names = [name for name in tasks or _parts(first) if name not in left_out]
    if not names:
        raise ModelError("\n".join(left_out.values()))
    faults = []
    for result in (result for results in groups.values() for result in results):
        parts = _parts(result)
        missing = [name for name in names if name not in parts]
        if missing or (tasks is None and parts.keys() - left_out.keys() != set(names)):
            faults.append(f"{result.model} has {', '.join(parts)}; asked for are {', '.join(names)}")
        faults += [
            f"{result.model} was scored on other {'queries' if name in first.queries else 'pairs'} of {name} than "
            f"{first.model}"
            for name in names
            if name not in missing and name in _parts(first)
            if parts[name].fingerprint != _parts(first)[name].fingerprint
        ]
    if (found := set(names) & first.queries.keys()) and found != set(names):
        faults.append(f"{', '.join(sorted(found))} are retrieval sets, the others scored pairs: compare them apart")
    if faults:
        raise DataError(
            list_faults(
                "These models cannot be compared:",
                faults,
                advice="Evaluate them on the same files, or name the tasks that all of them have with --tasks.",
            )
        )
    if found:
        by_label = {
            name: {label: [one.queries[name].ndcg_at_10 for one in results] for label, results in groups.items()}
            for name in names
        }
        return {name: QueryTask(models) for name, models in by_label.items()}
    return {
        name: TaskScores(
            gold=first.similarities[name].gold,
            models={
                label: SeedScores([result.similarities[name].cosine for result in results])
                for label, results in groups.items()
            },
        )
        for name in names
    }


def _parts(result: EvaluationResult) -> dict[str, PairSimilarities | QueryScores]:
    """What its scores were made of, by task."""
    return {**result.similarities, **result.queries}
