"""mteb's tasks and benchmarks by name; STS tasks as the same scored pairs that local files give.

Their data comes from the hub; `mteb_local.py` makes tasks of files.
"""

import difflib
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from embedsmith.data.pairs import ScoredPairs
from embedsmith.support.errors import DataError, MissingExtraError


def load_mteb_tasks(names: Sequence[str]) -> dict[str, ScoredPairs]:
    """English test pairs of mteb's STS tasks.

    Raises:
        MissingExtraError: mteb is not installed.
        DataError: an unknown name, no STS task, or the hub cannot be reached.
    """
    mteb = import_mteb()
    tasks = mteb.get_tasks(task_types=["STS"], languages=["eng"], exclude_superseded=False)
    known = [task.metadata.name for task in tasks if _has_english_subset(task)]
    unknown = [name for name in names if name not in known]
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.4)
        raise DataError(
            f"mteb has no English STS task {', '.join(unknown)}."
            + (f" Did you mean {close[0]}?" if close else "")
            + f"\nKnown are: {', '.join(known)}. For files of your own add --data DIR."
        )
    tasks = {name: mteb.get_task(name, languages=["eng"], exclusive_language_filter=True) for name in names}
    for task in tasks.values():
        load_task(task)
    return {name: task_pairs(task) for name, task in tasks.items()}


def find_mteb_tasks(names: Sequence[str] | None, *, benchmark: str | None = None) -> list[Any]:
    """Tasks of any type, in English where they have it, not loaded yet.

    Args:
        names: of tasks; None: all of the benchmark.
        benchmark: such as "MTEB(eng, v2)"; None: any task that mteb knows.

    Raises:
        MissingExtraError: mteb is not installed.
        DataError: no such task or benchmark, or it is not of texts alone.
    """
    mteb = import_mteb()
    if benchmark is None:
        _check_names(names or [], _known_tasks(mteb), what="task", of="mteb")
        return _text_tasks([_english(mteb, name) for name in names or []])
    benchmarks = {one.name: one for one in mteb.get_benchmarks()}
    _check_names([benchmark], benchmarks, what="benchmark", of="mteb")
    tasks = {task.metadata.name: task for task in benchmarks[benchmark].tasks}
    _check_names(names or [], tasks, what="task", of=benchmark)
    return _text_tasks([tasks[name] for name in names or tasks])


def find_task_data(names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Where mteb has the data of those tasks that it knows: name -> path on the hub, revision, split.

    Raises:
        MissingExtraError: mteb is not installed.
    """
    mteb = import_mteb()
    known = _known_tasks(mteb)
    found = {name: mteb.get_task(name).metadata for name in names if name in known}
    return {
        name: (str(data.dataset["path"]), str(data.dataset["revision"]), data.eval_splits[0])
        for name, data in found.items()
    }


def import_mteb() -> ModuleType:
    """The package mteb; raises MissingExtraError when it is not installed."""
    try:
        import mteb
    except ImportError:
        raise MissingExtraError("mteb", extra="mteb", needed_for="Running mteb's tasks") from None
    return mteb


def load_task(task: Any) -> None:
    """Have a task load its data from the hub; raises DataError when that fails."""
    name = task.metadata.name
    try:
        task.load_data()
    except Exception as error:  # the hub libraries raise many kinds when it cannot be reached
        offline = {
            "STS": f", or keep its pairs as {name}.tsv.gz in a folder and add --data FOLDER",
            "Retrieval": f", or keep it in BEIR's layout as FOLDER/{name} and add --data FOLDER",
        }
        advice = f"Check the network{offline.get(task.metadata.type, '')}."
        raise DataError(f"The task {name} cannot be loaded from the hub: {error}\n{advice}") from error


def task_pairs(task: Any) -> ScoredPairs:
    """Scored pairs of a loaded STS task's first subset; of its test split, where it has one."""
    dataset = task.dataset[task.hf_subsets[0]] if task.metadata.is_multilingual else task.dataset
    # Some tasks list their validation split first.
    splits = task.metadata.eval_splits
    return pairs_of_rows(dataset["test" if "test" in splits else splits[0]], column_names=task.column_names)


def _text_tasks(tasks: list[Any]) -> list[Any]:
    for task in tasks:
        if set(task.metadata.modalities) != {"text"}:
            kinds = ", ".join(task.metadata.modalities)
            raise DataError(f"The task {task.metadata.name} is of {kinds}; a text-embedding model takes text alone.")
    return tasks


def _known_tasks(mteb: ModuleType) -> list[str]:
    return [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]


def _english(mteb: ModuleType, name: str) -> Any:
    task = mteb.get_task(name)
    if task.metadata.is_multilingual and _has_english_subset(task):
        return mteb.get_task(name, languages=["eng"], exclusive_language_filter=True)
    return task


def _check_names(names: Iterable[str], known: Iterable[str], *, what: str, of: str) -> None:
    choice = list(known)
    for name in names:
        if name not in choice:
            close = difflib.get_close_matches(name, choice, n=3, cutoff=0.4)
            hint = f"\nDid you mean {' or '.join(close)}?" if close else ""
            raise DataError(f"{of} has no {what} {name}.{hint}")


def _has_english_subset(task: Any) -> bool:
    """False for tasks that pair English with other languages only, such as IndicCrosslingualSTS."""
    subsets = task.metadata.hf_subsets_to_langscripts.values()
    return any(all(language.startswith("eng-") for language in languages) for languages in subsets)


def pairs_of_rows(rows: Any, *, column_names: Sequence[str]) -> ScoredPairs:
    """Pairs of one split of a loaded mteb dataset."""
    first, second = column_names
    return ScoredPairs(list(rows[first]), list(rows[second]), np.asarray(rows["score"], dtype=np.float64))
