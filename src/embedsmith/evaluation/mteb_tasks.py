"""STS tasks by their mteb name, from the hub, as the same scored pairs that local files give."""

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np

from embedsmith.data.pairs import ScoredPairs
from embedsmith.errors import DataError, MissingExtraError


def load_mteb_tasks(names: Sequence[str]) -> dict[str, ScoredPairs]:
    """English test pairs of mteb's STS tasks.

    Raises:
        MissingExtraError: mteb is not installed.
        DataError: an unknown name, no STS task, or the hub cannot be reached.
    """
    try:
        import mteb
    except ImportError:
        raise MissingExtraError("mteb", extra="mteb", needed_for="Loading tasks by name from the hub") from None
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
    return {name: _pairs(mteb.get_task(name, languages=["eng"], exclusive_language_filter=True)) for name in names}


def _has_english_subset(task: Any) -> bool:
    """False for tasks that pair English with other languages only, such as IndicCrosslingualSTS."""
    subsets = task.metadata.hf_subsets_to_langscripts.values()
    return any(all(language.startswith("eng-") for language in languages) for languages in subsets)


def _pairs(task: Any) -> ScoredPairs:
    name = task.metadata.name
    try:
        task.load_data()
    except Exception as error:  # the hub libraries raise many kinds when it cannot be reached
        raise DataError(
            f"The task {name} cannot be loaded from the hub: {error}\n"
            f"Check the network, or keep its pairs as {name}.tsv.gz in a folder and add --data FOLDER."
        ) from error
    dataset = task.dataset[task.hf_subsets[0]] if task.metadata.is_multilingual else task.dataset
    # Some tasks list their validation split first.
    splits = task.metadata.eval_splits
    return pairs_of_rows(dataset["test" if "test" in splits else splits[0]], column_names=task.column_names)


def pairs_of_rows(rows: Any, *, column_names: Sequence[str]) -> ScoredPairs:
    """Pairs of one split of a loaded mteb dataset."""
    first, second = column_names
    return ScoredPairs(list(rows[first]), list(rows[second]), np.asarray(rows["score"], dtype=np.float64))
