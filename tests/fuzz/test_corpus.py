"""Every input of the corpus ends in values or in an error of ours; and a target that raises something else is seen."""

from pathlib import Path

import pytest

from tests.fuzz import NAMES, corpus_of
from tests.fuzz.targets import TARGETS, run

INPUTS = [path for name in NAMES for path in sorted(corpus_of(name).iterdir())]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside each other's folders lies the tiny model that some targets need."""
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_ends_in_values_or_in_an_error_of_ours(path: Path, room: Path) -> None:
    folder = room / f"{path.parent.name}-{path.name}"
    folder.mkdir()
    run(path.parent.name, path.read_bytes(), folder)


def test_every_kind_of_file_has_an_input() -> None:
    assert set(TARGETS) == set(NAMES)
    for name, (kinds, _) in TARGETS.items():
        given = {(path.read_bytes()[0] - ord("0")) % len(kinds) for path in corpus_of(name).iterdir()}
        assert given == set(range(len(kinds))), name


def test_what_is_no_error_of_ours_comes_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read(kind: str, content: bytes, folder: Path) -> None:
        raise IndexError(kind)

    monkeypatch.setitem(TARGETS, "gguf", (("model.gguf",), read))
    with pytest.raises(IndexError, match=r"model\.gguf"):
        run("gguf", b"0", tmp_path)
