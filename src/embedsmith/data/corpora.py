"""Files of texts and hub datasets -> their texts in order, streamed: once to look at every row, then to embed them.

    sources --survey_corpus--> Corpus: each file's column, counts and SHA-256 --texts--> text, file, row, id

Invariants: every fault of every row is found by the survey, before anything is computed; a file that is another one
when it is read again is refused. Memory: one row (of parquet a batch), whatever the number of rows. Cost: each file is
read three times: for its checksum, for the survey, and for its texts. Of a hub dataset nothing is kept: it is streamed
twice, at one commit, which stands for its checksum.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.beir import find_corpus
from embedsmith.data.candidates import TEXT, read_document
from embedsmith.data.columns import text_fault
from embedsmith.data.faults import Faults
from embedsmith.data.hub import check_extra, hub_rows, is_hub_id, require_commit
from embedsmith.data.readers import FileRow, expand_sources, is_text_file, read_rows
from embedsmith.support.digests import file_state, kept_digest
from embedsmith.support.errors import DataError

USUAL_NAMES = (TEXT, "sentence", "content", "contents", "passage", "document", "body")
"""Of columns that hold the texts."""


@dataclass(frozen=True)
class CorpusText:
    """A text, and where it is from.

    Attributes:
        text: with a character that is no white space, at least.
        file: as it was named; a hub dataset as its name is without a revision.
        row: its number in the file, from 1; of .txt the line.
        id: the file's own; None: none was asked for.
    """

    text: str
    file: str
    row: int
    id: str | None


@dataclass(frozen=True)
class CorpusFile:
    """What the survey found in a file, or in a hub dataset.

    Attributes:
        file: as it was named; a hub dataset as its name is without a revision.
        column: of its texts.
        num_texts: that are there.
        num_empty: rows whose text is missing or white space; they are left out.
        sha256: of its bytes; None of a dataset.
        commit: of a dataset; None of a file.
        state: what tells that a file is still the same (`file_state`); None of a dataset.
    """

    file: str
    column: str
    num_texts: int
    num_empty: int
    sha256: str | None
    commit: str | None
    state: list[int] | None

    def describe(self) -> dict[str, Any]:
        """For a manifest."""
        return {name: value for name, value in asdict(self).items() if name != "state" and value is not None}

    @property
    def place(self) -> "Path | _Dataset":
        """Where its rows are."""
        return Path(self.file) if self.commit is None else _Dataset(self.file, self.commit)


@dataclass(frozen=True)
class _Dataset:
    """A hub dataset at a commit; `name` is without a revision."""

    name: str
    commit: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Corpus:
    """Texts of files.

    Attributes:
        files: in the order of their texts.
        id_column: of the ids; None: none are asked for.
    """

    files: tuple[CorpusFile, ...]
    id_column: str | None

    @property
    def num_texts(self) -> int:
        """Of all files."""
        return sum(file.num_texts for file in self.files)

    @property
    def num_empty(self) -> int:
        """Rows of all files that have no text."""
        return sum(file.num_empty for file in self.files)

    def texts(self) -> Iterator[CorpusText]:
        """Read them.

        Raises:
            DataError: a file has changed since the survey, or the hub does not answer.
        """
        for file in self.files:
            _check_unchanged(file)
            faults = Faults()
            num_texts = 0
            for row, text, own_id in _read_texts(
                file.place, column=file.column, id_column=self.id_column, faults=faults
            ):
                num_texts += bool(text)
                if num_texts > file.num_texts:
                    raise _changed(file)
                if text:
                    yield CorpusText(text, file.file, row, own_id)
            _check_unchanged(file)
            if faults.count or num_texts < file.num_texts:
                raise _changed(file)


def _check_unchanged(file: CorpusFile) -> None:
    if file.commit is not None:  # what it stands for does not change
        return
    try:
        is_same = file_state(Path(file.file)) == file.state
    except OSError:
        is_same = False
    if not is_same:
        raise _changed(file)


def _changed(file: CorpusFile) -> DataError:
    return DataError(
        f"{file.file} has changed while it was read.\nStart again, into another --out, once nothing writes to it."
    )


def survey_corpus(sources: Sequence[str], *, column: str | None = None, id_column: str | None = None) -> Corpus:
    """Look at every row of files and hub datasets.

    Args:
        sources: files, globs, folders in BEIR's layout, or hub datasets (`hub.py`).
        column: of the text, in all of them; None: in each the one that has a usual name.
        id_column: of the ids, texts or whole numbers; None: none are kept.

    Raises:
        DataError: a source is missing, a file has no such column or faulty rows, or there is no text at all; all
            faults are named.
        MissingExtraError: a hub dataset is named without the `datasets` package.
    """
    faults = Faults()
    places = _find_places(sources, faults=faults)
    found = [_survey(place, column=column, id_column=id_column, faults=faults) for place in places]
    faults.raise_if_any(what="corpus")
    corpus = Corpus(tuple(file for file in found if file is not None), id_column)
    if not corpus.num_texts:
        raise DataError(f"There is no text: all {corpus.num_empty:,} rows are empty.\nLook at --text-column.")
    return corpus


def _find_places(sources: Sequence[str], *, faults: Faults) -> "list[Path | _Dataset]":
    """The files and datasets, in the order given."""
    places: list[Path | _Dataset] = []
    found: dict[Path, str] = {}
    for source in sources:
        name = str(find_corpus(Path(source)) or source)
        if not is_hub_id(name):
            places += expand_sources([name], faults=faults, found=found)
            continue
        check_extra(name)
        dataset = _Dataset(name.partition("@")[0], require_commit(name))
        if dataset in places:
            faults.add(source, None, "is named twice")
        places.append(dataset)
    return places


def _survey(
    place: "Path | _Dataset", *, column: str | None, id_column: str | None, faults: Faults
) -> CorpusFile | None:
    """None where it has a fault, which is noted."""
    num_faults = faults.count
    try:
        state = file_state(place) if isinstance(place, Path) else None
        if isinstance(place, Path) and not place.is_file():  # a pipe gives its rows once
            faults.add(place, None, "is no regular file, and is read more than once; write its rows into one")
            return None
        column = column or _guess_column(place, faults=faults)
        if column is None:
            return None
        num_texts = num_empty = 0
        for _, text, _ in _read_texts(place, column=column, id_column=id_column, faults=faults):
            num_texts += bool(text)
            num_empty += not text
        if faults.count > num_faults:
            return None
        sha256, commit = (kept_digest(place), None) if isinstance(place, Path) else (None, place.commit)
        return CorpusFile(str(place), column, num_texts, num_empty, sha256, commit, state)
    except OSError as error:
        faults.add(str(place), None, f"cannot be read: {error.strerror or error}")
        return None


def _guess_column(place: "Path | _Dataset", *, faults: Faults) -> str | None:
    for line, row in _rows_of(place, faults=faults):
        usual = [name for name in USUAL_NAMES if name in row]
        if len(usual) == 1:
            return usual[0]
        which = f"several that may hold the texts: {', '.join(usual)}" if usual else "none of a usual name"
        faults.add(str(place), line, f"has the columns {', '.join(row)}, {which}; name it with --text-column")
        break
    return None


def _rows_of(place: "Path | _Dataset", *, faults: Faults) -> Iterator[tuple[int, FileRow]]:
    if isinstance(place, Path):
        yield from read_rows(place, faults=faults)
        return
    is_empty = True
    for batch in hub_rows(place.name, commit=place.commit, takes_only_split=True):
        for numbered in batch.rows():
            is_empty = False
            yield numbered
    if is_empty:
        faults.add(place.name, None, "is empty")


def _read_texts(
    place: "Path | _Dataset", *, column: str, id_column: str | None, faults: Faults
) -> Iterator[tuple[int, str, str | None]]:
    """Yield (row, text, id) of every row without a fault; a text that is missing or white space is ""."""
    names = [name for name in (column, id_column) if name is not None]
    is_lines = isinstance(place, Path) and is_text_file(place.name)
    last_line = 0
    for number, (line, row) in enumerate(_rows_of(place, faults=faults), start=1):
        if is_lines:  # the reader leaves lines without text out
            yield from ((blank, "", None) for blank in range(last_line + 1, line))
            last_line = line
        if missing := [name for name in names if name not in row]:
            faults.add(str(place), line, f"has no '{missing[0]}', but {', '.join(row)}; {_advice(missing[0], column)}")
            if number == 1:
                return
            continue
        text, fault = ("", None) if row[column] is None else read_document(row, column)
        own_id, id_fault = _read_id(row, id_column)
        for what in filter(None, (fault, id_fault)):
            faults.add(str(place), line, what)
        if not fault and not id_fault:
            yield line if is_lines else number, text if text.strip() else "", own_id


def _advice(missing: str, column: str) -> str:
    return "name the texts' with --text-column" if missing == column else "name the ids' with --id-column"


def _read_id(row: FileRow, id_column: str | None) -> tuple[str | None, str | None]:
    """An id as text, and what is wrong with it."""
    if id_column is None:
        return None, None
    value: Any = row[id_column]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value), None
    if fault := text_fault(value):
        return None, f"{id_column} {fault}".replace("must be a text", "must be a text or a whole number")
    return value, None
