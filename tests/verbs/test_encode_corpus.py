"""encode into a folder: the vectors of `Embedder.encode` in Parquet shards, gone on with, within one shard's memory.

That a killed one ends with the same bytes: `tests/reliability/test_kills.py`.
"""

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from embedsmith.cli import run_command
from embedsmith.data.corpora import CorpusText
from embedsmith.model.embedder import Embedder
from embedsmith.model.vector_precision import Ranges
from embedsmith.settings.choices import StoredPrecision, VectorPrecision
from embedsmith.support import files
from embedsmith.support.lock import only_one
from embedsmith.verbs.vector_maker import VectorMaker
from embedsmith.verbs.vector_manifest import Manifest, Shard
from tests.run_folders import read_folder

NUM_ROWS, SHARD_ROWS = 25, 10
TEXTS = [f"w{number} cat w{number * 7 % 200}" for number in range(NUM_ROWS)]
OPTIONS = ["--id-column", "key", "--shard-rows", str(SHARD_ROWS)]


@pytest.fixture
def work(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"key": f"k{number}", "sentence": text} for number, text in enumerate(TEXTS)]
    Path("c.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path


@pytest.fixture
def model(model_folders: dict[str, str]) -> str:
    return model_folders["llama"]


def _shards(folder: str = "out") -> list[Path]:
    return sorted(Path(folder, "shards").iterdir())


def _vectors(folder: str = "out") -> np.ndarray:
    columns = [pq.read_table(path)["vector"].combine_chunks() for path in _shards(folder)]
    return np.concatenate([one.flatten().to_numpy().reshape(len(one), -1) for one in columns])


def _manifest(folder: str = "out") -> dict[str, Any]:
    return json.loads(Path(folder, "manifest.json").read_text())


def test_shards_hold_the_vectors_of_encode_in_order_with_ids_and_places(
    work: Path, model: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert run_command(["encode", model, "c.jsonl", "--out", "out", *OPTIONS]) == 0
    said = capsys.readouterr().out
    assert "25 of 25 texts, " in said and " a second, 0:00 left\n" in said
    assert "out/manifest.json: 25 vectors of 64 dimensions, float32, in 3 shards" in said
    assert "The texts are in the column sentence." in caplog.text
    live = Embedder.load(model)
    for number, path in enumerate(_shards()):
        place = slice(number * SHARD_ROWS, min((number + 1) * SHARD_ROWS, NUM_ROWS))
        table = pq.read_table(path)
        assert str(table.schema.field("vector").type) == "fixed_size_list<element: float>[64]"
        vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, 64)
        np.testing.assert_array_equal(vectors, live.encode(TEXTS[place]))
        expected = [("c.jsonl", row + 1, f"k{row}", TEXTS[row]) for row in range(place.start, place.stop)]
        assert list(zip(*(table[name].to_pylist() for name in ("file", "row", "id", "text")), strict=True)) == expected


def test_the_manifest_says_what_is_there_and_what_it_was_made_from(work: Path, model: str) -> None:
    assert run_command(["encode", model, "c.jsonl", "--out", "out", *OPTIONS, "--dim", "12", "--side", "query"]) == 0
    manifest = _manifest()
    assert (manifest["num_texts"], manifest["num_empty"], manifest["num_cut"], manifest["dim"]) == (25, 0, 0, 12)
    made_from = manifest["made_from"]
    weights = Embedder.load(model).describe(weights=made_from["embedding"]["weights"], dim=12)
    assert made_from["embedding"] == json.loads(json.dumps(weights))
    assert (made_from["side"], made_from["id_column"], made_from["shard_rows"]) == ("query", "key", 10)
    assert made_from["inputs"][0]["sha256"] == files.read_digest(Path("c.jsonl"))
    assert [one["num_rows"] for one in manifest["shards"]] == [10, 10, 5]
    for one in manifest["shards"]:
        path = Path("out", one["name"])
        assert (files.read_digest(path), path.stat().st_size) == (one["sha256"], one["size_bytes"])
    assert {path.name for path in Path("out").iterdir()} == {"manifest.json", "shards", ".lock"}


@pytest.mark.parametrize("precision", StoredPrecision)
def test_each_number_format_is_that_of_encode(
    precision: StoredPrecision, work: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    live = Embedder.load(model).encode(TEXTS)
    ranges = Ranges.of(live)
    ranges.save("r.json")
    given = ["--ranges", "r.json"] if precision in ("int8", "uint8") else []
    assert (
        run_command(
            ["encode", model, "c.jsonl", "--out", "out", "--shard-rows", "25", "--vector-precision", precision, *given]
        )
        == 0
    )
    if precision is StoredPrecision.FLOAT16:
        expected = live.astype(np.float16)
    else:
        expected = Embedder.load(model).encode(TEXTS, vector_precision=str(precision), ranges=ranges if given else None)
    found = _vectors()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert Path("out/ranges.json").exists() is bool(given)
    if given:
        np.testing.assert_array_equal(Ranges.read("out/ranges.json").bounds, ranges.bounds)


def test_number_formats_are_those_of_vectors_and_float16() -> None:
    assert {*StoredPrecision} == {*VectorPrecision, "float16"}


def test_numbers_of_8_bits_take_a_byte_each(work: Path, model: str) -> None:
    Path("many.txt").write_text("\n".join(f"w{number % 200} cat w{number}" for number in range(1000)))
    encode = ["encode", model, "many.txt", "--out", "out", "--vector-precision", "int8", "--no-keep-text"]
    assert run_command(encode) == 0
    assert _manifest()["shards"][0]["size_bytes"] < 1.2 * 1000 * 64


def test_ranges_are_the_first_shards_or_those_of_texts_to_calibrate_on(
    work: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    encode = ["encode", model, "c.jsonl", *OPTIONS, "--vector-precision", "int8"]
    assert run_command([*encode, "--out", "out"]) == 0
    assert "calibrated on the first shard's. Embed queries and later texts with --ranges out/ranges.json" in caplog.text
    live = Embedder.load(model)
    bounds = Ranges.of(live.encode(TEXTS[:SHARD_ROWS])).bounds
    np.testing.assert_array_equal(Ranges.read("out/ranges.json").bounds, bounds)
    Path("some.txt").write_text("rain falls\na cat\nthe park\n")
    assert run_command([*encode, "--out", "out2", "--calibration", "some.txt"]) == 0
    bounds = Ranges.of(live.encode(["rain falls", "a cat", "the park"])).bounds
    np.testing.assert_array_equal(Ranges.read("out2/ranges.json").bounds, bounds)
    # gone on with, the ranges are those that are there
    before = read_folder(Path("out2"))
    _shards("out2")[1].unlink()
    assert run_command([*encode, "--out", "out2", "--calibration", "some.txt"]) == 0
    assert read_folder(Path("out2")) == before


def test_empty_texts_are_left_out_and_those_cut_counted(
    work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["a cat", "", "rain falls", "the cat " * 100, "   "]
    Path("t.csv").write_text("content\n" + "".join(f'"{text}"\n' for text in texts))
    assert run_command(["encode", model, "t.csv", "--out", "out"]) == 0
    assert "; 2 empty texts were left out; 1 texts were cut\n" in capsys.readouterr().out
    assert pq.read_table("out/shards")["row"].to_pylist() == [1, 3, 4]
    assert [_manifest()[name] for name in ("num_texts", "num_empty", "num_cut")] == [3, 2, 1]


def test_the_rows_of_two_shards_are_held_at_most(work: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    embed = VectorMaker.embed

    def count(self: VectorMaker, *arguments: Any, **named: Any) -> np.ndarray:
        gc.collect()
        found = [type(one) for one in gc.get_objects()]
        held.append(found.count(CorpusText))
        return embed(self, *arguments, **named)

    monkeypatch.setattr(VectorMaker, "embed", count)
    assert run_command(["encode", model, "c.jsonl", "--out", "out", *OPTIONS]) == 0
    assert max(held) <= 2 * SHARD_ROWS  # and those of the next, which are read meanwhile
    assert len(held) == 3


def test_what_is_whole_is_kept_and_what_is_damaged_made_again(
    work: Path, model: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    encode = ["encode", model, "c.jsonl", "--out", "out", *OPTIONS]
    assert run_command(encode) == 0
    before = read_folder(Path("out"))
    damaged = _shards()[1]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    embedded = []
    embed = VectorMaker.embed

    def note(self: VectorMaker, texts: list[str], **named: Any) -> np.ndarray:
        embedded.append(texts)
        return embed(self, texts, **named)

    monkeypatch.setattr(VectorMaker, "embed", note)
    assert run_command(encode) == 0
    assert embedded == [TEXTS[10:20]]
    assert "out: missing or damaged, and made anew: shards/000001.parquet" in caplog.text
    assert "out: 15 of 25 vectors are there already." in caplog.text
    assert read_folder(Path("out")) == before
    assert run_command(encode) == 0
    assert len(embedded) == 1


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (["--no-keep-text"], "keep_text: it was True, now it is False"),
        (["--dim", "8"], "dim: it was None, now it is 8"),
        (["--prompt", "a {text}"], "prompt: it was None, now it is 'a {text}'"),
        (["--side", "query"], "side: it was 'document', now it is 'query'"),
        (["--vector-precision", "float16"], "vector_precision: it was 'float32', now it is 'float16'"),
        (["--precision", "bf16"], "precision: it was 'torch.float32', now it is 'torch.bfloat16'"),
        (["--text-column", "key"], "c.jsonl: the column of its texts was 'sentence', now it is 'key'"),
        (["d.jsonl"], "the inputs: they were c.jsonl; now they are c.jsonl, d.jsonl"),
        ("other contents", "  c.jsonl: its contents\n"),
        ("other model", "  the model's files\n"),
    ],
)
def test_a_folder_goes_on_only_with_what_it_was_begun_with(
    changed: list[str] | str,
    fault: str,
    work: Path,
    model: str,
    model_folders: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("d.jsonl").write_bytes(Path("c.jsonl").read_bytes())
    encode = ["encode", model, "c.jsonl", "--out", "out", *OPTIONS, "--precision", "fp32"]
    assert run_command(encode) == 0
    before = read_folder(Path("out"))
    if changed == "other contents":
        Path("c.jsonl").write_text(Path("c.jsonl").read_text().replace("w3 ", "w4 "))
    elif changed == "other model":
        encode[1] = model_folders["mistral"]
    else:
        encode += changed
    assert run_command(encode) == 2
    said = capsys.readouterr().err
    assert said.startswith("out was begun with something else, and nothing was changed. Others by now are:\n")
    assert fault in said
    assert read_folder(Path("out")) == before


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--out", "x.npy", "--id-column", "key"], "--id-column is for a folder, and --out is the file x.npy"),
        (["--out", "x.npy", "--shard-rows", "5"], "--shard-rows is for a folder"),
        (["--out", "x.npy", "--no-keep-text"], "--keep-text is for a folder"),
        (["--out", "x", "--shard-rows", "0"], "greater than or equal to 1"),
        (["--out", "x", "--ranges", "r.json"], "float32 vectors need no ranges"),
        (["--out", "x", "--vector-precision", "float16", "--calibration", "c.jsonl"], "float16 vectors have no ranges"),
        (["--out", "x", "--text-column", "body"], "has no 'body', but key, sentence"),
        (["--out", "x", "--dim", "99"], "dim is 99"),
        (["--out", "c.jsonl"], "--out: c.jsonl is a file"),
        (["--out", "full"], "full holds other files than this command's: mine.txt"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(
    arguments: list[str], fault: str, work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    assert run_command(["encode", model, "c.jsonl", *arguments]) == 2
    assert fault in capsys.readouterr().err
    assert not list(work.glob("x*"))
    assert {path.name for path in Path("full").iterdir()} == {"mine.txt"}


def test_a_journal_whose_last_line_is_torn_goes_on(work: Path, model: str, caplog: pytest.LogCaptureFixture) -> None:
    encode = ["encode", model, "c.jsonl", "--out", "out", *OPTIONS]
    assert run_command(encode) == 0
    before = read_folder(Path("out"))
    manifest = Manifest.read(Path("out"))
    assert manifest
    for num_kept in (0, 40, 1):  # bytes of the line that is under way
        manifest.begin_journal(Path("out"))
        path = Path("out/unfinished.jsonl")
        *lines, last = path.read_text().splitlines()
        assert json.loads(last)["shard"]["name"] == "shards/000002.parquet"
        path.write_text("\n".join(lines) + "\n" + last[:num_kept])
        Path("out/manifest.json").unlink()
        caplog.clear()
        assert run_command(encode) == 0
        assert "20 of 25 vectors are there already" in caplog.text or not caplog.text
        assert read_folder(Path("out")) == before


def test_a_journal_that_is_damaged_before_its_end_is_refused(
    work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    encode = ["encode", model, "c.jsonl", "--out", "out", *OPTIONS]
    assert run_command(encode) == 0
    manifest = Manifest.read(Path("out"))
    assert manifest
    manifest.begin_journal(Path("out"))
    Path("out/manifest.json").unlink()
    path = Path("out/unfinished.jsonl")
    path.write_text(path.read_text().replace('"num_rows"', '"num', 1))
    assert run_command(encode) == 2
    assert "out/unfinished.jsonl is damaged" in capsys.readouterr().err


def test_a_shard_costs_the_journal_a_line_however_many_there_are(
    work: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    add = Manifest.add_shard

    def note(self: Manifest, shard: Shard, folder: Path) -> None:
        path = folder / "unfinished.jsonl"
        before, node = path.stat().st_size, path.stat().st_ino
        add(self, shard, folder)
        assert path.stat().st_ino == node  # the same file, not another under its name
        sizes.append(path.stat().st_size - before)

    monkeypatch.setattr(Manifest, "add_shard", note)
    assert run_command(["encode", model, "c.jsonl", "--out", "out", "--shard-rows", "2"]) == 0
    assert len(sizes) == 13 and max(sizes) < 250


@pytest.mark.parametrize("text", ["", "[]", '{"made_from": 3}', '{"made_from": {"inputs": []}, "shards": 3}'])
def test_a_manifest_that_is_none_of_ours_is_refused(
    text: str, work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").mkdir()
    Path("out/manifest.json").write_text(text)
    assert run_command(["encode", model, "c.jsonl", "--out", "out"]) == 2
    assert "out/manifest.json is damaged, or was not written by embedsmith encode" in capsys.readouterr().err
    assert Path("out/manifest.json").read_text() == text


def test_one_process_at_a_time_works_in_a_folder(work: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with only_one(Path("out"), what="encode"):
        assert run_command(["encode", model, "c.jsonl", "--out", "out"]) == 2
    assert "Another encode works in out" in capsys.readouterr().err
    assert {path.name for path in Path("out").iterdir()} == {".lock"}


def test_a_shard_whose_rows_are_not_those_of_its_place_is_made_again(
    work: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    encode = ["encode", model, "c.jsonl", "--out", "out", *OPTIONS]
    assert run_command(encode) == 0
    before = Path("out/manifest.json").read_text()
    Path("out/manifest.json").write_text(before.replace('"num_rows": 5', '"num_rows": 6'))
    assert run_command(encode) == 0
    assert "made anew: shards/000002.parquet" in caplog.text
    assert Path("out/manifest.json").read_text() == before


def test_ctrl_c_says_how_far_it_came_and_how_it_goes_on(
    work: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encode = ["encode", model, "c.jsonl", "--out", "out", *OPTIONS]
    assert run_command([*encode[:4], "whole", *OPTIONS]) == 0
    embed = VectorMaker.embed

    def stop(self: VectorMaker, texts: list[str], **named: Any) -> np.ndarray:
        if texts[0] == TEXTS[20]:
            raise KeyboardInterrupt
        return embed(self, texts, **named)

    with monkeypatch.context() as patch:
        patch.setattr(VectorMaker, "embed", stop)
        assert run_command(encode) == 130
    said = capsys.readouterr().err
    assert said.startswith("Stopped; 20 of 25 vectors are in out.\nGo on with:\n  embedsmith encode ")
    assert not Path("out/manifest.json").exists()
    assert run_command(encode) == 0
    assert read_folder(Path("out")) == read_folder(Path("whole"))


def test_pandas_and_datasets_open_the_shards(work: Path, model: str) -> None:
    assert run_command(["encode", model, "c.jsonl", "--out", "out", *OPTIONS]) == 0
    vectors = _vectors()
    frame = pd.read_parquet("out/shards")
    np.testing.assert_array_equal(np.stack(frame["vector"].tolist()), vectors)
    rows = load_dataset("parquet", data_files="out/shards/*.parquet", split="train", cache_dir="hf")
    np.testing.assert_array_equal(rows.with_format("numpy")["vector"][:], vectors)
    assert rows["id"][:] == frame["id"].tolist() == [f"k{row}" for row in range(NUM_ROWS)]


def test_duckdb_opens_the_shards(work: Path, model: str) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed: pip install duckdb")
    assert run_command(["encode", model, "c.jsonl", "--out", "out", *OPTIONS]) == 0
    query = "select id, vector::float[64] from 'out/shards/*.parquet' order by file, row"
    found = duckdb.sql(query).fetchall()
    np.testing.assert_array_equal(np.array([row[1] for row in found], dtype=np.float32), _vectors())


def test_embedding_atlas_opens_the_shards(work: Path, model: str) -> None:
    why = "Embedding Atlas is not installed: pip install embedding-atlas"
    cli = pytest.importorskip("embedding_atlas.cli", reason=why, exc_type=ImportError)
    assert run_command(["encode", model, "c.jsonl", "--out", "out", *OPTIONS]) == 0
    frame = cli.load_datasets([str(path) for path in _shards()])  # as its command reads what it is given
    np.testing.assert_array_equal(np.stack(frame["vector"].tolist()), _vectors())
    assert frame["text"].tolist() == TEXTS
    assert cli.find_column_name(frame.columns, "vector") != "vector"  # what --vector names is there
