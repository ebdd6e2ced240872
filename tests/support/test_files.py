"""Atomic writing: what is there afterwards is the whole new thing or the whole old one."""

import os
from pathlib import Path

import pytest

from embedsmith.support import files
from embedsmith.support.errors import RunError


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with files.atomic_folder(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), files.atomic_folder(target) as folder:
        (folder / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    for name in ("a", "b"):
        with files.atomic_folder(target) as folder:
            (folder / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["b"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "results.json"
    files.write_json(target, {"a": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(target, {"a": 2})
    assert target.read_text() == '{\n  "a": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDSMITH_CACHE", "/somewhere")
    assert files.cache_root() == Path("/somewhere")
    monkeypatch.delenv("EMBEDSMITH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert files.cache_root() == Path("/xdg/embedsmith")


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "there.json")
    files.write_text(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "there.json").read_text() == "new"


def test_outputs_that_can_be_written_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    for name in ("old.json", "new.json", "a/b/new.json", "[x], ü.json"):
        files.check_output(tmp_path / name, option="--out", suffix=".json")
    for name in ("", "new", "a/b"):
        files.check_output_folder(tmp_path / name, option="--mteb-folder")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "which is a folder"),
        ("folder", "which is a folder"),
        ("kept.json", "is there and read-only"),
        ("data.tsv", r"is there and is no \.json file"),
        ("data.tsv/r.json", "cannot be written: Not a directory"),
        ("a" * 250, "cannot be written: File name too long"),
        ("/dev/null", "is no regular file"),
        ("/proc/nowhere/r.json", "cannot be written"),
    ],
)
def test_outputs_that_cannot_be_written_are_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("data.tsv").write_text("mine")
    Path("kept.json").write_text("mine")
    Path("kept.json").chmod(0o444)
    with pytest.raises(RunError, match=message):
        files.check_output(name, option="--out", suffix=".json")
    assert [Path(kept).read_text() for kept in ("data.tsv", "kept.json")] == ["mine", "mine"]


def test_output_folders_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for name, message in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "x", "Not a directory"),
        ("", "empty"),
    ):
        with pytest.raises(RunError, match=message):
            files.check_output_folder(name, option="--mteb-folder")


def test_a_fingerprint_holds_names_contents_and_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("1")
    second.write_text("2")
    known = files.fingerprint([first, second])
    status = first.stat()
    assert files.fingerprint([second, first]) != known
    first.write_text("3")
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))  # as large and as old as it was
    assert files.fingerprint([first, second]) != known
    first.write_text("1")
    assert files.fingerprint([first, second]) == known
    assert files.fingerprint([first.rename(tmp_path / "c"), second]) != known


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a file"):
            files.read_text(path)
    reading, writing = os.pipe()
    os.write(writing, b"what a shell hands over")
    os.close(writing)
    assert files.read_text(Path(f"/dev/fd/{reading}")) == "what a shell hands over"
    os.close(reading)
