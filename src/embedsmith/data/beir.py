"""A retrieval set in BEIR's layout -> its documents, queries and judgements.

`corpus.jsonl` (`_id`, maybe `title`, `text`), `queries.jsonl` (`_id`, `text`), `qrels/test.tsv` (`query-id`,
`corpus-id`, `score`); each may also be `.gz`.

Reference: Thakur et al. 2021, BEIR (arXiv 2104.08663), and its repository's data format.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embedsmith.data.readers import Faults, Row, read_rows

_CORPUS, _QUERIES, _QRELS = "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"


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
    def fingerprint(self) -> str:
        """Equal for equal sets."""
        text = json.dumps([self.documents, self.queries, self.judgements], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def find_retrieval_sets(folder: Path) -> dict[str, Path]:
    """Name -> folder of every set in BEIR's layout: in `folder`, or `folder` itself."""
    candidates = [folder, *(sorted(folder.iterdir()) if folder.is_dir() else [])]
    return {path.resolve().name: path for path in candidates if path.is_dir() and _find(path, _CORPUS).exists()}


def load_retrieval_set(folder: Path) -> RetrievalSet:
    """Read and check a set.

    Raises:
        DataError: a file is missing, rows are faulty, ids occur twice or are unknown, no document is relevant.
    """
    faults = Faults()
    documents = {
        key: (str(row.get("title") or ""), str(row["text"]))
        for key, row in _texts(_find(folder, _CORPUS), faults=faults)
    }
    queries = {key: str(row["text"]) for key, row in _texts(_find(folder, _QUERIES), faults=faults)}
    judgements: dict[str, dict[str, int]] = {}
    qrels = _find(folder, _QRELS)
    for line, row in read_rows(qrels, faults=faults):
        query, document, score = (str(row.get(name, "")) for name in ("query-id", "corpus-id", "score"))
        if query not in queries:
            faults.add(qrels, line, f"there is no query with the id {query!r}")
        elif document not in documents:
            faults.add(qrels, line, f"there is no document with the id {document!r}")
        elif not score.lstrip("-").isdecimal():
            faults.add(qrels, line, f"score must be a whole number, but is {score!r}")
        else:
            judgements.setdefault(query, {})[document] = int(score)
    if faults.count == 0 and not any(grade > 0 for grades in judgements.values() for grade in grades.values()):
        faults.add(qrels, None, "no document is relevant to any query")
    faults.raise_if_any(what="a retrieval set in BEIR's layout")
    return RetrievalSet(documents, {key: text for key, text in queries.items() if key in judgements}, judgements)


def _find(folder: Path, name: str) -> Path:
    packed = folder / f"{name}.gz"
    return packed if packed.exists() else folder / name


def _texts(path: Path, *, faults: Faults) -> Iterator[tuple[str, Row]]:
    seen = set()
    for line, row in read_rows(path, faults=faults):
        key = row.get("_id", row.get("id"))
        if key is None or not isinstance(row.get("text"), str):
            faults.add(path, line, "needs `_id` and `text` (a string)")
        elif str(key) in seen:
            faults.add(path, line, f"the id {key!r} stands there twice")
        else:
            seen.add(str(key))
            yield str(key), row
