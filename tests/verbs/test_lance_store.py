"""A LanceDB table beside the shards: finds what they give, is never of other vectors, tells its index's recall."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsmith.cli import run_command
from embedsmith.model.embedder import Embedder
from embedsmith.support import files
from embedsmith.verbs.lance_store import LanceStore
from embedsmith.verbs.search import ShardSearch
from embedsmith.verbs.vector_folder import VectorFolder

pytest.importorskip("lancedb", reason="lancedb is not installed: pip install 'embedsmith[search]'")

TEXTS = [f"w{number % 200} cat w{number * 7 % 199} w{number * 3 % 151}" for number in range(400)]


@pytest.fixture
def work(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("c.txt").write_text("\n".join(TEXTS) + "\n")
    return tmp_path


@pytest.fixture
def model(model_folders: dict[str, str]) -> str:
    return model_folders["llama"]


def _encode(model: str, *more: str, source: str = "c.txt") -> None:
    assert run_command(["encode", model, source, "--out", "out", "--shard-rows", "128", *more]) == 0


def _search(model: str, *more: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert run_command(["search", model, "out", *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_damaged_shard_behind_the_first_leaves_no_table(
    work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _encode(model)
    damaged = Path("out/shards/000002.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert run_command(["search", model, "out", "a cat", "--store", "lancedb"]) == 2
    assert "out/shards/000002.parquet is missing or is not the one that manifest.json" in capsys.readouterr().err
    assert not list(Path("out").glob("*lance*"))


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_it_finds_exactly_what_the_shards_give(precision: str, work: Path, model: str) -> None:
    _encode(model, "--vector-precision", precision)
    folder = VectorFolder.open(Path("out"))
    queries = (
        folder.as_unit(
            Embedder.load(model).encode(["a cat w3", "rain w17", *TEXTS[100:170]])  # more than go at one time
        )
        if precision == "float32"
        else np.concatenate(list(folder.blocks()))[5::50]
    )
    store, shards = LanceStore(folder), ShardSearch(folder)
    for k in (1, 9, 400):
        (numbers, scores), (expected, cosines) = (one.find(queries, k=k) for one in (store, shards))
        np.testing.assert_allclose(scores, cosines, atol=2e-6)
        is_clear = np.abs(np.diff(cosines, axis=1, prepend=2, append=-2)).min(initial=2) > 1e-5
        if is_clear or k == 1:
            np.testing.assert_array_equal(numbers, expected)
        else:  # texts as near as another one may change places with it
            assert np.mean(numbers == expected) > 0.9
    wanted = [399, 0, 200]
    assert store.places(wanted) == shards.places(wanted)
    assert [place.text for place in store.places(wanted)] == [TEXTS[number] for number in wanted]


def test_it_is_made_once_and_anew_when_the_shards_are_others(
    work: Path, model: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    _encode(model)
    found = _search(model, TEXTS[7], "--top-k", "1", capsys=capsys)
    assert found["how"] == "exact: all 400 vectors compared, in out/lance"
    assert (found["hits"][0]["row"], found["hits"][0]["text"]) == (8, TEXTS[7])
    assert "Making out/lance of the 400 vectors in out; once." in caplog.text
    before = Path("out/lance/store.json").stat().st_mtime_ns
    caplog.clear()
    assert _search(model, TEXTS[7], "--top-k", "1", capsys=capsys) == found
    assert Path("out/lance/store.json").stat().st_mtime_ns == before and not caplog.text
    _encode(model)  # gone on with, the table is no file of another command
    # the same folder with other vectors
    Path("d.txt").write_text("\n".join(["rain falls", *TEXTS[1:]]) + "\n")
    Path("out/lance").rename("lance")
    shutil.rmtree("out")
    _encode(model, source="d.txt")
    Path("lance").rename("out/lance")
    assert _search(model, "rain falls", "--top-k", "1", capsys=capsys)["hits"][0]["text"] == "rain falls"
    assert "out/lance is of other vectors than the shards by now; it is made anew." in caplog.text


def test_a_table_that_was_not_finished_is_none(work: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    _encode(model)
    for left in ("out/.lance.abc.tmp", "out/lance"):
        Path(left).mkdir()
        Path(left, "vectors.lance").write_text("half")
    assert _search(model, TEXTS[7], "--top-k", "1", capsys=capsys)["hits"][0]["row"] == 8
    assert not Path("out/.lance.abc.tmp").exists()


def test_the_index_finds_what_its_recall_says(
    work: Path, model: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    _encode(model)
    found = _search(model, TEXTS[7], "--top-k", "10", "--search", "index", "--recall", capsys=capsys)
    recall = json.loads(Path("out/lance/store.json").read_text())["recall"]
    assert 0.9 <= recall <= 1
    told = f"approximate: through the index in out/lance, which finds {100 * recall:.1f} % of the nearest 10 texts"
    assert found["how"].startswith(told)
    exact = _search(model, TEXTS[7], "--top-k", "10", "--search", "exact", capsys=capsys)
    rows = [{hit["row"] for hit in one["hits"]} for one in (found, exact)]
    assert found["recall"] == len(rows[0] & rows[1]) / 10
    assert found["hits"][0]["row"] == 8 and found["hits"][0]["score"] == pytest.approx(1, abs=1e-6)
    caplog.clear()
    _search(model, TEXTS[7], "--search", "index", capsys=capsys)
    assert not caplog.text  # it is there


def test_a_recall_is_measured_not_assumed(work: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _encode(model)
    store = LanceStore(VectorFolder.open(Path("out")))

    def half(queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
        numbers, scores = store.find(queries, k=k)
        numbers[:, 1::2] = -1
        return numbers, scores

    monkeypatch.setattr(store, "find_through_index", half)
    assert store.make_index() == pytest.approx(0.5, abs=0.01)


def test_a_full_disk_is_said_before_the_table_is_made(
    work: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _encode(model)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert run_command(["search", model, "out", "a cat"]) == 2
    assert re.search(r"LanceDB's vectors need 0\.\d+ MB in out", capsys.readouterr().err)
    assert not Path("out/lance").exists()
