"""What is tried before the first step: every instruction of the rows under the prompts."""

import json
from pathlib import Path

import pytest

from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.model.embedder import Embedder
from embedsmith.support.errors import DataError
from embedsmith.training.step import check_instructions

LONG = "w1 " * 30


def _table(path: Path, instructions: list[str]) -> TripletTable:
    rows = [{"anchor": f"w{n}", "positive": f"w{n} cat", "instruction": text} for n, text in enumerate(instructions)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_triplets([str(path)])


def _embedder(folder: str, *, prompt: str = "the {text}") -> Embedder:
    return Embedder.load(folder, max_length=20, query_prompt="{instruction} {text}", prompt=prompt, instruction="w0")


def test_instructions_that_leave_no_room_are_named_all_at_once(
    model_folders: dict[str, str], tmp_path: Path, cache: Path
) -> None:
    instructions = ["w2", LONG, "w3", f"{LONG} w4", LONG, "w2"]
    table = _table(tmp_path / "t.jsonl", instructions)
    with pytest.raises(DataError) as caught:
        check_instructions(_embedder(model_folders["llama"]), data=table)
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 instructions of the training data do not fit the prompts:"
    assert [line.strip().split(":")[0] for line in lines[1:3]] == [
        f"{tmp_path / 't.jsonl'}, line 2",
        f"{tmp_path / 't.jsonl'}, line 4",
    ]
    assert "model.max_length is 20, but start token, prompt and end token alone take 32" in lines[1]
    assert "alone take 33" in lines[2]
    assert lines[3] == "Shorten them, or raise model.max_length."


def test_the_prompt_of_documents_is_tried_too(model_folders: dict[str, str], tmp_path: Path, cache: Path) -> None:
    fits = "w1 " * 15
    table = _table(tmp_path / "t.jsonl", ["w2", fits])
    check_instructions(_embedder(model_folders["llama"]), data=table)
    embedder = _embedder(model_folders["llama"], prompt="{instruction} w1 w2 w3 w4 w5 {text}")
    with pytest.raises(DataError, match=r"t\.jsonl, line 2: "):
        check_instructions(embedder, data=table)


def test_only_rows_that_are_drawn_count(model_folders: dict[str, str], tmp_path: Path, cache: Path) -> None:
    table = _table(tmp_path / "t.jsonl", [f"w{n} {LONG if n == 3 else ''}" for n in range(10)])
    embedder = _embedder(model_folders["llama"])
    for size in range(1, 11):
        drawn = table.draw(size)
        if any(drawn.place(row).endswith("line 4") for row in range(size)):
            with pytest.raises(DataError, match="line 4"):
                check_instructions(embedder, data=drawn)
        else:
            check_instructions(embedder, data=drawn)
