"""Hub datasets: streamed into the table at one commit, and not read again until there is another one."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data.triplets import load_triplets
from embedsmith.support.errors import DataError, MissingExtraError
from tests.dataset_hub import DatasetHub, dataset_hub

NAME = "owner/name"


def _parquet(first: int, num_rows: int) -> bytes:
    numbers = range(first, first + num_rows)
    file = io.BytesIO()
    pq.write_table(pa.table({role: [f"{role} {row}" for row in numbers] for role in ("anchor", "positive")}), file)
    return file.getvalue()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[DatasetHub]:
    with dataset_hub(monkeypatch, cache) as made:
        made.datasets[NAME] = {
            "data/train-00000-of-00002.parquet": _parquet(0, 9000),
            "data/train-00001-of-00002.parquet": _parquet(9000, 500),
        }
        yield made


def test_a_dataset_is_streamed_once_for_each_commit(hub: DatasetHub, cache: Path) -> None:
    table = load_triplets([NAME])
    assert table.size == "9,500 pairs"
    assert table.rows(np.array([0, 9499])).positives == ["positive 0", "positive 9499"]
    assert table.place(9499) == f"{NAME}, line 9500"
    assert not list((cache / "datasets").rglob("*.arrow"))  # nothing is kept but the table
    hub.asked.clear()
    assert load_triplets([NAME]).fingerprint == table.fingerprint
    assert not [one for one in hub.asked if "resolve" in one]
    hub.datasets[NAME]["data/train-00001-of-00002.parquet"] = _parquet(9000, 501)
    assert len(load_triplets([NAME])) == 9501
    assert len(list((cache / "triplets").glob("*.arrow"))) == 2


def test_a_revision_is_read_as_it_is_named(hub: DatasetHub) -> None:
    commit = hub.commit(NAME)
    table = load_triplets([f"{NAME}@{commit}"])
    assert table.fingerprint == load_triplets([NAME]).fingerprint
    asked = [one for one in hub.asked if "resolve" in one]
    assert asked and all(commit in one for one in asked)


def test_the_commit_of_last_time_counts_where_the_hub_does_not_answer(
    hub: DatasetHub, caplog: pytest.LogCaptureFixture
) -> None:
    table = load_triplets([NAME])
    hub.is_down = True
    assert load_triplets([NAME]).fingerprint == table.fingerprint
    assert f"The hub cannot be asked about '{NAME}'" in caplog.text
    assert hub.commit(NAME) in caplog.text


def test_faults_of_rows_are_named(hub: DatasetHub, cache: Path) -> None:
    rows = [{"query": f"q {row}", "pos": ["p"], "neg": ["n"] * (row % 3)} for row in range(9000)]
    rows[8500]["query"] = " "
    hub.datasets[NAME] = {"train.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()}
    with pytest.raises(DataError, match=f"{NAME}, line 8501: anchor is empty"):
        load_triplets([NAME])
    assert not list(cache.rglob("*.arrow"))


def test_what_is_not_there_is_told(hub: DatasetHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="'who/nobody' is no file, and as a hub dataset it cannot be loaded"):
        load_triplets(["who/nobody"])
    with pytest.raises(DataError, match="'owner/name:other' is no file, and as a hub dataset it cannot be loaded"):
        load_triplets(["owner/name:other"])
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"embedsmith\[hub\]"):
        load_triplets([NAME])
