"""Tasks by mteb name: unknown names, no network, and the shapes that mteb's datasets have."""

import sys
from typing import Any

import mteb
import pytest
from datasets import Dataset, DatasetDict

from embedsmith.evaluation.mteb_tasks import load_mteb_tasks
from embedsmith.support.errors import DataError, MissingExtraError

ROWS = Dataset.from_dict({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1, 2.5]})


@pytest.mark.parametrize("name", ["STS12", "STSBenchmark.v2", "STS17", "STS22", "SemRel24STS"])
def test_the_english_test_split_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of multilingual tasks, and of tasks that list their validation split first."""

    def load_data(task: Any) -> None:
        splits = DatasetDict({"validation": ROWS.select([0]), "test": ROWS})
        task.dataset = dict.fromkeys(task.hf_subsets, splits) if task.metadata.is_multilingual else splits
        assert task.hf_subsets in (["default"], ["en"], ["en-en"], ["eng"])

    monkeypatch.setattr(type(mteb.get_task(name)), "load_data", load_data)
    pairs = load_mteb_tasks([name])[name]
    assert (pairs.sentence1, pairs.sentence2, pairs.scores.tolist()) == (["a", "b"], ["c", "d"], [1.0, 2.5])


def test_a_task_without_english_pairs_is_unknown() -> None:
    with pytest.raises(DataError, match="no English STS task IndicCrosslingualSTS"):
        load_mteb_tasks(["IndicCrosslingualSTS"])


def test_an_unknown_name_gets_the_closest() -> None:
    with pytest.raises(DataError, match=r"no English STS task STSBenchmarkk\. Did you mean STSBenchmark\?"):
        load_mteb_tasks(["STSBenchmarkk"])


def test_without_a_hub_the_way_out_is_named() -> None:
    with pytest.raises(DataError, match=r"STS12 cannot be loaded from the hub[\s\S]*STS12\.tsv\.gz"):
        load_mteb_tasks(["STS12"])


def test_without_mteb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingExtraError, match=r"embedsmith\[mteb\]"):
        load_mteb_tasks(["STS12"])
