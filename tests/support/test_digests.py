import os
import time
from pathlib import Path

import pytest

from embedsmith.support import files
from embedsmith.support.digests import kept_digest


@pytest.fixture
def weights(tmp_path: Path, cache: Path) -> Path:
    """A large file that was changed an hour ago."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a" * 2**20)
    _set_age(path, hours=1)
    return path


def _set_age(path: Path, *, hours: int) -> None:
    then = time.time_ns() - hours * 3600 * 10**9
    os.utime(path, ns=(then, then))


def test_a_file_is_read_once_until_it_changes(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = list[Path](), files.read_digest
    monkeypatch.setattr(files, "read_digest", lambda path: read.append(path) or real(path))
    first = kept_digest(weights)
    assert kept_digest(weights) == first == real(weights)
    assert len(read) == 1
    weights.write_bytes(b"b" * 2**20)  # of the same size; its time is another
    _set_age(weights, hours=2)
    assert kept_digest(weights) == real(weights) != first
    assert len(read) == 2


def test_what_was_changed_just_now_is_not_kept(weights: Path, cache: Path) -> None:
    weights.write_bytes(b"c" * 2**20)
    assert kept_digest(weights) == files.read_digest(weights)
    assert not (cache / "digests").exists()


def test_a_link_is_the_file_it_leads_to(weights: Path, tmp_path: Path) -> None:
    kept_digest(weights)
    link = tmp_path / "link"
    link.symlink_to(weights)
    assert kept_digest(link) == files.read_digest(weights)


@pytest.mark.parametrize("note", ["{", "[]", "{}", '{"state": [1]}'])
def test_a_damaged_or_unwritable_cache_is_none(weights: Path, cache: Path, note: str) -> None:
    kept_digest(weights)
    (kept,) = (cache / "digests").iterdir()
    kept.write_text(note)
    assert kept_digest(weights) == files.read_digest(weights)
    kept.unlink()
    (cache / "digests").rmdir()
    (cache / "digests").write_text("in the way")
    assert kept_digest(weights) == files.read_digest(weights)


def test_small_files_are_read(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    _set_age(path, hours=1)
    assert kept_digest(path) == files.read_digest(path)
    assert not (cache / "digests").exists()
