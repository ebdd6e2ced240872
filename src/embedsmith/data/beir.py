"""A retrieval set in BEIR's layout -> its documents, queries and judgements.

`corpus.jsonl` (`_id`, maybe `title`, `text`), `queries.jsonl` (`_id`, `text`), `qrels/test.tsv` (`query-id`,
`corpus-id`, `score`); each may also be `.gz`.

Reference: Thakur et al. 2021, BEIR (arXiv 2104.08663), and its repository's data format.
"""

import hashlib
import json
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith.data.columns import text_fault
from embedsmith.data.faults import Faults
from embedsmith.data.pairs import ScoredPairs
from embedsmith.data.readers import FileRow, read_rows
from embedsmith.support.errors import DataError

_CORPUS, _QUERIES, _QRELS = "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"
_JUDGED = ("query-id", "corpus-id", "score")
_GRADE = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True)
class RetrievalSet:
    """Documents, queries, and which belong together.

    Attributes:
        documents: id -> (title, text); a title may be empty.
        queries: id -> text; only those that have a judgement.
        judgements: query id -> document id -> grade; 0 is not relevant.
    """

    documents: dict[str, tuple[str, str]]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]

    @property
    def relevant_pairs(self) -> ScoredPairs:
        """Every query with each document relevant to it, title before text as they are embedded, and its grade."""
        found = [
            (self.queries[query], " ".join(self.documents[document]).strip(), grade)
            for query, grades in self.judgements.items()
            for document, grade in grades.items()
            if grade > 0
        ]
        queries, documents, grades = zip(*found, strict=True)
        return ScoredPairs(list(queries), list(documents), np.array(grades, dtype=np.float64))

    @property
    def fingerprint(self) -> str:
        """Equal for equal sets."""
        text = json.dumps([self.documents, self.queries, self.judgements], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def find_retrieval_sets(folder: Path) -> dict[str, Path]:
    """Name -> folder of every set in BEIR's layout: in `folder`, or `folder` itself.

    Raises:
        DataError: two of them have one name.
    """
    candidates = [folder, *(sorted(folder.iterdir()) if folder.is_dir() else [])]
    found: dict[str, Path] = {}
    for path in candidates:
        if path.is_dir() and any(place.exists() for place in _places(path, _CORPUS)):
            name = path.resolve().name
            if name in found:
                raise DataError(f"Two retrieval sets have the name {name}: {found[name]} and {path}.\nRename one.")
            found[name] = path
    return found


def find_corpus(folder: Path) -> Path | None:
    """The file with the documents of a set in BEIR's layout; None: the folder holds none, or is no folder."""
    return next((place for place in _places(folder, _CORPUS) if place.exists()), None)


def load_retrieval_set(folder: Path) -> RetrievalSet:
    """Read and check a set.

    Raises:
        DataError: a file is missing or there twice, rows are faulty, ids or judgements occur twice, ids are unknown, no
            document is relevant.
    """
    faults = Faults()
    corpus, queries, qrels = (_find(folder, name, faults=faults) for name in (_CORPUS, _QUERIES, _QRELS))
    documents = {key: (row.get("title") or "", row["text"]) for key, row in _texts(corpus, faults=faults)}
    asked = {key: row["text"] for key, row in _texts(queries, faults=faults)}
    judgements = _judgements(qrels, queries=asked, documents=documents, faults=faults)
    if faults.count == 0 and not any(grade > 0 for grades in judgements.values() for grade in grades.values()):
        faults.add(qrels, None, "no document is relevant to any query")
    faults.raise_if_any(what="retrieval set in BEIR's layout")
    return RetrievalSet(documents, {key: text for key, text in asked.items() if key in judgements}, judgements)


def _places(folder: Path, name: str) -> list[Path]:
    return [folder / name, folder / f"{name}.gz"]


def _find(folder: Path, name: str, *, faults: Faults) -> Path:
    plain, packed = _places(folder, name)
    if plain.exists() and packed.exists():
        faults.add(plain, None, f"stands there twice: {packed} is there too; remove one")
    return packed if packed.exists() else plain


def _texts(path: Path, *, faults: Faults) -> Iterator[tuple[str, FileRow]]:
    """(id, row) of a corpus or of queries; a document may be empty, a title or text that is none may not."""
    first_lines: dict[str, int] = {}
    for line, row in read_rows(path, faults=faults):
        key = row.get("_id", row.get("id"))
        wrong = [f"{name} {fault}" for name in ("title", "text") if (fault := _fault(row.get(name), name))]
        if isinstance(key, bool) or not isinstance(key, str | int) or text_fault(str(key)):
            faults.add(path, line, f"needs `_id`, a text or a whole number, and has {key!r:.60}")
        elif wrong:
            faults.add(path, line, f"id {str(key)!r:.60}: {'; '.join(wrong)}")
        elif str(key) in first_lines:
            faults.add(path, line, f"the id {str(key)!r:.60} stands there twice, first on line {first_lines[str(key)]}")
        else:
            first_lines[str(key)] = line
            yield str(key), row


def _fault(value: Any, name: str) -> str | None:
    may_lack = name == "title" if value is None else isinstance(value, str) and not value.strip()
    return None if may_lack else text_fault(value)


def _judgements(
    path: Path, *, queries: Container[str], documents: Container[str], faults: Faults
) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for line, row in read_rows(path, faults=faults):
        if missing := [name for name in _JUDGED if name not in row]:
            faults.add(path, line, f"has no column {', '.join(missing)}; the first line names {', '.join(_JUDGED)}")
            break
        query, document, score = (str(row[name]) for name in _JUDGED)
        if query not in queries:
            faults.add(path, line, f"there is no query with the id {query!r:.60}")
        elif document not in documents:
            faults.add(path, line, f"there is no document with the id {document!r:.60}")
        elif not _GRADE.fullmatch(score):
            faults.add(path, line, f"score must be a whole number, but is {score!r:.60}")
        elif document in found.get(query, {}):
            faults.add(path, line, f"query {query!r:.60} and document {document!r:.60} are judged twice")
        else:
            found.setdefault(query, {})[document] = int(score)
    return found
