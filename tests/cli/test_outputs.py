"""Where a command writes is looked at before its work begins."""

from pathlib import Path

import pytest

from embedsmith.cli import run_command

OUTPUTS = [
    ["evaluate", "MODEL", "--data", "sts", "--out"],
    ["baseline", "MODEL", "--dev", "sts/dev.tsv", "--out"],
    ["compare", "MODEL", "MODEL", "--data", "sts", "--out"],
    ["report", "MODEL", "--data", "sts", "--out"],
    ["data", "stats", "t.tsv", "--out"],
    ["data", "check", "t.tsv", "--against", "sts", "--out"],
    ["data", "check", "t.tsv", "--against", "sts", "--drop"],
    ["data", "triplets", "t.tsv", "--out"],
    ["data", "synthesize", "--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--out"],
]


@pytest.mark.parametrize("command", OUTPUTS, ids=lambda command: f"{' '.join(command[:2])} {command[-1]}")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("sts", "which is a folder"),
        ("", "is empty"),
        ("t.tsv/r.json", "cannot be written: Not a directory"),
        ("kept.json", "is there and read-only"),
        ("/dev/null", "is no regular file"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    command: list[str], name: str, told: str, work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("kept.json").write_text("mine")
    Path("kept.json").chmod(0o444)
    assert run_command([*command, name]) == 2  # MODEL is no model, so nothing was begun
    error = capsys.readouterr().err
    assert told in error
    assert command[-1] in error
    assert Path("kept.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["evaluate", "MODEL", "--data", "sts", "--out", "t.tsv"], "t.tsv is there and is no .json file"),
        (["report", "MODEL", "--data", "sts", "--out", "t.tsv"], "t.tsv is there and is no .html file"),
        (["evaluate", "MODEL", "--tasks", "STS12", "--mteb-folder", "t.tsv"], "--mteb-folder: t.tsv is a file"),
        (["export", "MODEL", "t.tsv/x", "--to", "merged"], "FOLDER: t.tsv/x cannot be written: Not a directory"),
        (["demo", "--output-dir", "t.tsv/x"], "output_dir: t.tsv/x cannot be written: Not a directory"),
        (["train", "--output_dir", "t.tsv/x", "--model.model", "MODEL"], "t.tsv/x cannot be written"),
        (["train", "--output_dir", "/proc/x", "--model.model", "MODEL"], "/proc/x cannot be written"),
        (["evaluate", ""], "The name of a model or file is empty"),
        (["compare", "", "x"], "The name of a model or file is empty"),
    ],
)
def test_other_places_that_cannot_be_written(
    command: list[str], told: str, work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("t.tsv").read_bytes()
    assert run_command(command) == 2
    assert told in capsys.readouterr().err
    assert Path("t.tsv").read_bytes() == before
