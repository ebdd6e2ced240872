"""Tasks by mteb name: unknown names, no network, and the shapes that mteb's datasets have."""

import sys

import pytest
from datasets import Dataset, DatasetDict

from embedsmith.errors import DataError, MissingExtraError
from embedsmith.evaluation.mteb_tasks import load_mteb_tasks, pairs_of_dataset

ROWS = Dataset.from_dict({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1, 2.5]})


def test_rows_of_plain_and_of_multilingual_tasks() -> None:
    plain = DatasetDict({"test": ROWS})
    for dataset in (plain, {"fr-en": None, "en-en": plain}):
        pairs = pairs_of_dataset(dataset, split="test", column_names=("sentence1", "sentence2"))
        assert (pairs.sentence1, pairs.sentence2, pairs.scores.tolist()) == (["a", "b"], ["c", "d"], [1.0, 2.5])


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
