"""encode of a hub dataset into a folder: as of a local file, and at one commit, with which alone the folder goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.cli import run_command
from embedsmith.verbs.vector_maker import VectorMaker
from tests.dataset_hub import DatasetHub, dataset_hub
from tests.run_folders import read_folder

NAME = "owner/name"
ROWS = [{"key": number, "sentence": f"w{number} cat w{number * 7 % 200}" if number % 5 else ""} for number in range(25)]
OPTIONS = ["--id-column", "key", "--shard-rows", "8"]


def _shards(path: str) -> pa.Table:
    return pq.read_table(Path(path, "shards"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> Iterator[DatasetHub]:
    monkeypatch.chdir(tmp_path)
    with dataset_hub(monkeypatch, cache) as made:
        for number, part in enumerate((ROWS[:15], ROWS[15:])):
            pq.write_table(pa.Table.from_pylist(part), "part.parquet")
            contents = Path("part.parquet").read_bytes()
            made.datasets.setdefault(NAME, {})[f"data/train-{number:05d}-of-00002.parquet"] = contents
        Path("part.parquet").unlink()
        yield made


@pytest.fixture
def model(model_folders: dict[str, str]) -> str:
    return model_folders["llama"]


def _change(hub: DatasetHub) -> None:
    hub.datasets[NAME] = {"train.jsonl": b'{"key": 1, "sentence": "another text"}\n'}


def test_vectors_rows_and_ids_are_those_of_a_local_file(hub: DatasetHub, model: str, cache: Path) -> None:
    Path("c.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    assert run_command(["encode", model, NAME, "--out", "out", *OPTIONS]) == 0
    assert run_command(["encode", model, "c.jsonl", "--out", "local", *OPTIONS]) == 0
    found, local = _shards("out"), _shards("local")
    assert found.drop_columns("file") == local.drop_columns("file")
    assert set(found["file"].to_pylist()) == {NAME}
    assert found["row"].to_pylist() == [row["key"] + 1 for row in ROWS if row["sentence"]]
    manifest = json.loads(Path("out/manifest.json").read_text())
    expected = {"file": NAME, "column": "sentence", "num_texts": 20, "num_empty": 5, "commit": hub.commit(NAME)}
    assert manifest["made_from"]["inputs"] == [expected]
    assert not list((cache / "datasets").rglob("*.arrow"))  # nothing else is kept


def test_files_and_datasets_come_in_the_order_given(hub: DatasetHub, model: str) -> None:
    Path("a.txt").write_text("first\n")
    Path("z.txt").write_text("last\n")
    assert run_command(["encode", model, "z.txt", NAME, "a.txt", "--out", "out"]) == 0
    names = _shards("out")["file"].to_pylist()
    assert names == ["z.txt", *[NAME] * 20, "a.txt"]


def _stop_at(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = VectorMaker.embed

    def stop(self: VectorMaker, texts: list[str], **named: Any) -> np.ndarray:
        if text in texts:
            raise KeyboardInterrupt
        return embed(self, texts, **named)

    monkeypatch.setattr(VectorMaker, "embed", stop)


def test_what_was_stopped_goes_on_and_ends_with_the_same_bytes(
    hub: DatasetHub, model: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_command(["encode", model, NAME, "--out", "whole", *OPTIONS]) == 0
    with monkeypatch.context() as patch:
        _stop_at(ROWS[12]["sentence"], patch)
        assert run_command(["encode", model, NAME, "--out", "out", *OPTIONS]) == 130
    caplog.set_level("INFO")
    assert run_command(["encode", model, NAME, "--out", "out", *OPTIONS]) == 0
    assert "out: 8 of 20 vectors are there already." in caplog.text
    assert read_folder(Path("out")) == read_folder(Path("whole"))


def test_another_commit_is_refused_and_the_one_before_is_named(
    hub: DatasetHub, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        _stop_at(ROWS[12]["sentence"], patch)
        assert run_command(["encode", model, NAME, "--out", "out", *OPTIONS]) == 130
    before, then = read_folder(Path("out")), hub.commit(NAME)
    _change(hub)
    capsys.readouterr()
    assert run_command(["encode", model, NAME, "--out", "out", *OPTIONS]) == 2
    said = capsys.readouterr().err
    assert f"its commit at the hub was {then}, now it is {hub.commit(NAME)}" in said
    assert f"is named as {NAME}@{then}" in said
    assert read_folder(Path("out")) == before


def test_a_commit_that_is_named_is_that_of_the_folder(hub: DatasetHub, model: str) -> None:
    encode = ["encode", model, "--out", "out", *OPTIONS]
    assert run_command([*encode, NAME]) == 0
    before = read_folder(Path("out"))
    hub.asked.clear()
    assert run_command([*encode, f"{NAME}@{hub.commit(NAME)}"]) == 0
    assert read_folder(Path("out")) == before


def test_the_only_split_of_a_corpus_is_taken_and_several_are_not(
    hub: DatasetHub, model: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    rows = b'{"_id": "d1", "title": "Pets", "text": "a cat"}\n'
    hub.datasets[NAME] = {"test.jsonl": rows}
    caplog.set_level("INFO")
    assert run_command(["encode", model, NAME, "--out", "out", "--id-column", "_id"]) == 0
    assert "no split 'train'; the texts are those of 'test'" in caplog.text
    (row,) = _shards("out").drop_columns("vector").to_pylist()
    assert row == {"file": NAME, "row": 1, "id": "d1", "text": "Pets a cat"}
    hub.datasets[NAME]["validation.jsonl"] = rows
    assert run_command(["encode", model, NAME, "--out", "out2"]) == 2
    assert "has no split 'train', but validation, test" in capsys.readouterr().err
    assert not Path("out2").exists()


@pytest.mark.parametrize(
    ("source", "rows", "fault"),
    [
        ("who/nobody", None, "'who/nobody' is no file, and the hub does not say at which commit"),
        (f"{NAME}:other", None, f"'{NAME}:other' is no file, and as a hub dataset it cannot be loaded"),
        (NAME, b'{"text": null}\n{"text": 3}\n', f"{NAME}, line 2: text must be a text, but is 3"),
        (NAME, b'{"a": "x"}\n', "has the columns a, none of a usual name; name it with --text-column"),
    ],
)
def test_what_cannot_be_embedded_is_told_and_nothing_written(
    source: str, rows: bytes | None, fault: str, hub: DatasetHub, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if rows:
        hub.datasets[NAME] = {"train.jsonl": rows}
    assert run_command(["encode", model, source, "--out", "out"]) == 2
    assert fault in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_same_twice_a_file_of_vectors_and_a_missing_package_are_refused(
    hub: DatasetHub, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["encode", model, NAME, f"{NAME}@main", "--out", "out"]) == 2
    assert f"{NAME}@main: is named twice" in capsys.readouterr().err
    assert run_command(["encode", model, NAME, "--out", "out.npy"]) == 2
    assert f"{NAME} is no file here, and hub datasets are embedded into a folder" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    assert run_command(["encode", model, NAME, "--out", "out"]) == 2
    assert "pip install 'embedsmith[hub]'" in capsys.readouterr().err
    assert not list(Path().glob("out*"))
