"""search: the texts that `Embedder.encode`'s own vectors have nearest, in every number format, and what is refused."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedsmith.cli import run_command
from embedsmith.model.embedder import Embedder
from embedsmith.model.vector_precision import Ranges, as_numbers
from embedsmith.settings.choices import StoredPrecision, VectorPrecision

TEXTS = [f"w{number} cat w{number * 7 % 200}" for number in range(60)]
QUERIES = ["w3 cat", "a cat sleeps", "rain falls on w17"]


@pytest.fixture
def work(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"key": f"k{number}", "sentence": text} for number, text in enumerate(TEXTS)]
    Path("c.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path


@pytest.fixture
def model(model_folders: dict[str, str]) -> str:
    return model_folders["llama"]


def _encode(model: str, *more: str, out: str = "out") -> None:
    encode = ["encode", model, "c.jsonl", "--out", out, "--id-column", "key", "--shard-rows", "25", *more]
    assert run_command(encode) == 0


def _search(model: str, *more: str, capsys: pytest.CaptureFixture[str], folder: str = "out") -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run_command(["search", model, folder, *more, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def _check(found: Sequence[dict[str, Any]], vectors: np.ndarray, queries: np.ndarray, *, k: int) -> None:
    """The hits are the k nearest by the plain product, whichever of two equally near ones is left out."""
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (vectors, queries)]
    cosines = unit[1] @ unit[0].T
    assert [one["query"] for one in found] == QUERIES
    for one, row in zip(found, cosines, strict=True):
        numbers = [int(hit["id"][1:]) for hit in one["hits"]]
        scores = np.array([hit["score"] for hit in one["hits"]])
        assert len(set(numbers)) == k
        np.testing.assert_allclose(scores, row[numbers], atol=2e-6)  # products in another order
        np.testing.assert_allclose(scores, np.sort(row)[::-1][:k], atol=2e-6)


@pytest.mark.parametrize("precision", StoredPrecision)
def test_the_shards_give_the_nearest_in_every_number_format(
    precision: StoredPrecision, work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _encode(model, "--vector-precision", precision)
    found = _search(model, *QUERIES, "--top-k", "7", "--store", "shards", capsys=capsys)
    live = Embedder.load(model)
    vectors, queries = live.encode(TEXTS), live.encode(QUERIES, side="query")
    if precision is StoredPrecision.FLOAT16:
        both = [rows.astype(np.float16).astype(np.float32) for rows in (vectors, queries)]
    else:
        ranges = Ranges.read("out/ranges.json") if precision in ("int8", "uint8") else None
        both = [
            as_numbers(
                live.encode(texts, vector_precision=precision, ranges=ranges),
                vector_precision=VectorPrecision(precision),
                dim=64,
            )
            for texts in (TEXTS, QUERIES)
        ]
    _check(found, both[0], both[1], k=7)
    assert found[0]["how"] == "exact: all 60 vectors compared, in the shards"
    hit = found[1]["hits"][0]
    number = int(hit["id"][1:])
    assert (hit["rank"], hit["file"], hit["row"], hit["text"]) == (1, "c.jsonl", number + 1, TEXTS[number])


def test_a_text_finds_itself_first(work: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    _encode(model)
    capsys.readouterr()
    assert run_command(["search", model, "out", TEXTS[31], "--top-k", "2", "--store", "shards"]) == 0
    first, second, how = capsys.readouterr().out.splitlines()
    assert first == f"  1  1.000  {TEXTS[31]}  (c.jsonl:32, k31)"
    assert second.startswith("  2  0.")
    assert how == "exact: all 60 vectors compared, in the shards"


def test_texts_that_were_not_kept_are_told_by_their_place(
    work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["encode", model, "c.jsonl", "--out", "out", "--no-keep-text"]) == 0
    assert pq.read_schema("out/shards/000000.parquet").names == ["file", "row", "vector"]
    capsys.readouterr()
    assert run_command(["search", model, "out", TEXTS[31], "--top-k", "1", "--store", "shards"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "  1  1.000  c.jsonl:32"


def test_queries_come_from_a_file_too_and_more_than_there_is_may_be_asked_for(
    work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _encode(model)
    Path("q.txt").write_text("\n".join(QUERIES[1:]) + "\n")
    arguments = [QUERIES[0], "--queries", "q.txt", "--top-k", "100", "--store", "shards"]
    found = _search(model, *arguments, capsys=capsys)
    live = Embedder.load(model)
    _check(found, live.encode(TEXTS), live.encode(QUERIES, side="query"), k=60)


def test_queries_stand_under_the_prompt_of_queries_or_that_the_folder_was_made_with(
    work: Path, model: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    own = "asked"
    Embedder.load(model, prompt="a {text}", query_prompt="the {text}", fused=False).save(work / own)
    _encode(own)
    live = Embedder.load(own)
    documents, queries = live.encode(TEXTS), live.encode(QUERIES, side="query")
    assert not np.allclose(queries, live.encode(QUERIES))
    found = _search(own, *QUERIES, "--top-k", "5", "--store", "shards", capsys=capsys)
    _check(found, documents, queries, k=5)
    found = _search(own, *QUERIES, "--top-k", "5", "--store", "shards", "--prompt", "rain {text}", capsys=capsys)
    live.change_prompt("rain {text}")
    _check(found, documents, live.encode(QUERIES, side="query"), k=5)
    # one given to encode is that of queries, too
    _encode(model, "--prompt", "rain {text}", out="out2")
    plain = Embedder.load(model)
    plain.change_prompt("rain {text}")
    found = _search(model, *QUERIES, "--top-k", "5", "--store", "shards", capsys=capsys, folder="out2")
    _check(found, plain.encode(TEXTS), plain.encode(QUERIES, side="query"), k=5)
    assert "The queries stand under the prompt that the folder was made with: 'rain {text}'." in caplog.text


def test_first_dimensions_are_compared_where_the_folder_has_those(
    work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _encode(model, "--dim", "12")
    found = _search(model, *QUERIES, "--top-k", "5", "--store", "shards", capsys=capsys)
    live = Embedder.load(model)
    _check(found, live.encode(TEXTS, dim=12), live.encode(QUERIES, side="query", dim=12), k=5)


def test_another_model_is_refused(
    work: Path, model: str, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _encode(model)
    other = model_folders["mistral"]
    assert run_command(["search", other, "out", "a cat"]) == 2
    said = capsys.readouterr().err
    assert f"out holds vectors of {model}, and {other} makes others. They differ in:\n  the model's files\n" in said
    assert "encode the texts with this one into another folder" in said


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["nowhere", "a cat"], "nowhere is not there.\nName a folder that `embedsmith encode MODEL FILE --out FOLDER`"),
        (["c.jsonl", "a cat"], "c.jsonl is a file.\n"),
        (["empty", "a cat"], "empty has no manifest.json.\n"),
        (["begun", "a cat"], "Not all vectors of begun are there yet.\nGive its `embedsmith encode` again first."),
        (["out"], "A query is empty, or there is none.\nGive texts behind the folder, or --queries FILE."),
        (["out", "a cat", " "], "A query is empty"),
        (["out", "a cat", "--queries", "none.txt"], "none.txt: no such file"),
        (["out", "a cat", "--top-k", "0"], "greater than or equal to 1"),
        (["out", "a cat", "--recall"], "--recall compares an index with exact search.\nAsk for one: --search index."),
        (["out", "a cat", "--text-column", "x"], "--text-column is that of a file of queries, and there is none"),
        (
            ["out", "a cat", "--search", "index", "--store", "shards"],
            "An index is LanceDB's, and --store shards",
        ),
        (["bits", "a cat", "--search", "index"], "bits holds ubinary vectors, which are compared by equal bits"),
        (["bits", "a cat", "--store", "lancedb"], "Leave --store and --search away"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    arguments: list[str], fault: str, work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    if "out" in arguments or "begun" in arguments:
        _encode(model)
    if "begun" in arguments:
        Path("out").rename("begun")
        Path("begun/manifest.json").unlink()
        Path("begun/unfinished.jsonl").write_text("")
    if "bits" in arguments:
        _encode(model, "--vector-precision", "ubinary", out="bits")
    capsys.readouterr()
    assert run_command(["search", model, *arguments]) == 2
    assert fault in capsys.readouterr().err


def test_who_searches_for_a_recipe_is_told_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["search", "--config", "my.yaml"]) == 2
    assert "embedsmith optimize --config my.yaml" in capsys.readouterr().err


def test_a_damaged_shard_is_refused_and_made_anew_as_told(
    work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _encode(model)
    search = ["search", model, "out", "a cat", "--store", "shards"]
    assert run_command(search) == 0
    damaged = Path("out/shards/000001.parquet")
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    assert run_command(search) == 2
    assert "out/shards/000001.parquet is missing or is not the one that manifest.json" in capsys.readouterr().err
    _encode(model)
    assert run_command(search) == 0
    Path("out/ranges.json").write_text("{}")  # of nobody, and not looked at
    assert run_command(search) == 0


def test_without_lancedb_the_shards_are_searched_and_it_is_said(
    work: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setitem(sys.modules, "lancedb", None)
    _encode(model)
    (found,) = _search(model, TEXTS[5], "--top-k", "3", capsys=capsys)
    assert found["hits"][0]["id"] == "k5" and found["how"].endswith("in the shards")
    assert "LanceDB is not installed (pip install 'embedsmith[search]'), so the shards are searched" in caplog.text
    for asked in (["--search", "index"], ["--store", "lancedb"]):
        assert run_command(["search", model, "out", "a cat", *asked]) == 2
        assert "Install it with: pip install 'embedsmith[search]'" in capsys.readouterr().err
