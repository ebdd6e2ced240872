"""Documentation of installed Python packages -> a retrieval task: what a function is said to do -> its description.

A docstring's first sentence is the query; what follows it, under the function's name, is the passage, so a query's
sentence stands in no passage. Whole packages are held out: none of their texts is trained on. Files are read as text;
nothing of a package is imported or run. Cost: a minute for some twenty packages.

    python -m examples.documentation --out documentation
"""

import argparse
import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedsmith.data.normalise import normalise, words
from embedsmith.support.errors import DataError
from embedsmith.support.files import write_bytes, write_json

TRAIN = (
    "matplotlib", "networkx", "numpy", "pandas", "scipy", "sklearn", "sympy", "torch", "transformers",
)  # fmt: skip
DEV = ("accelerate", "datasets", "fsspec", "pydantic", "rich")
TEST = ("huggingface_hub", "mteb", "peft", "polars", "sentence_transformers")

MIN_QUERY_WORDS, MAX_QUERY_WORDS = 4, 40
MIN_PASSAGE_WORDS, MAX_PASSAGE_WORDS = 10, 50
NEAR = 0.8
"""Queries or passages that share this many of their words say the same: the later ones are left out."""
_NOT_PROSE = re.compile(
    r"\n\s*(?:examples?|references|see also|usage|tests?)\s*(?::|\n\s*[-=~]{3,})|>>>|\n```|^\s*\.\. plot", re.I | re.M
)
_MARKUP = re.compile(
    r":[\w:]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`|\[`~?([^`]*)`\](?:\([^)]*\))?|`{1,3}([^`]*)`{1,3}|[-=~*]{3,}|\.\. [\w-]+::"
)
_SENTENCE = re.compile(r"(.+?(?<!e\.g)(?<!i\.e)[.!?])(?=\s|$)")
_SKIPPED_FOLDERS = {"tests", "test", "testing", "_vendor", "externals", "_testing"}


@dataclass(frozen=True)
class Entry:
    """One function, class or method: its dotted name, what it is said to do, and what else is said of it."""

    name: str
    query: str
    passage: str

    @property
    def title(self) -> str:
        """Its name without the modules it lies in."""
        return self.name.partition(".")[0] + " " + ".".join(self.name.split(".")[-2:])


def read_package(package: str, *, min_passage_words: int = MIN_PASSAGE_WORDS) -> list[Entry]:
    """The documented names of an installed package, each once: a property and its setter have one.

    Args:
        package: its name in imports.
        min_passage_words: so many must be said of a name besides its first sentence.

    Raises:
        DataError: it is not installed, or a file of it cannot be read.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"The package {package} is not installed.\nInstall it, or name others with --train/--dev/--test."
        )
    root = Path(spec.submodule_search_locations[0])
    found: dict[str, Entry] = {}
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root.parent).with_suffix("").parts
        if not _SKIPPED_FOLDERS & set(inside):
            for entry in _entries(_parse(path), (*(part for part in inside if part != "__init__"),)):
                if len(entry.passage.split()) >= min_passage_words:
                    found.setdefault(entry.name, entry)
    return list(found.values())


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no Python of this version: {error}.\nLeave its package out.") from error


def _entries(node: ast.Module | ast.ClassDef, prefix: tuple[str, ...]) -> Iterator[Entry]:
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        name = (*prefix, child.name)
        if entry := read_entry(".".join(name), ast.get_docstring(child) or ""):
            yield entry
        if isinstance(child, ast.ClassDef):
            yield from _entries(child, name)


def read_entry(name: str, docstring: str) -> Entry | None:
    """What a docstring says of a name; None: there is no sentence."""
    first, _, rest = docstring.partition("\n\n")
    rest = _NOT_PROSE.split("\n" + rest, maxsplit=1)[0]
    first = plain(first)
    sentence = _SENTENCE.match(first)
    query = sentence[1] if sentence else first
    passage = f"{first[len(query) :]} {plain(rest)}".split()
    if not MIN_QUERY_WORDS <= len(query.split()) <= MAX_QUERY_WORDS:
        return None
    return Entry(name, query, " ".join(passage[:MAX_PASSAGE_WORDS]))


def plain(text: str) -> str:
    """A text without markup, on one line."""
    return " ".join(_MARKUP.sub(lambda found: next((part for part in found.groups() if part), ""), text).split())


def without_near(entries: Iterable[Entry]) -> list[Entry]:
    """The first one of those whose queries, or whose passages, share most of their words; every two are compared."""
    kept: list[Entry] = []
    seen: list[tuple[frozenset[str], frozenset[str]]] = []
    for entry in entries:
        own = frozenset(words(entry.query)), frozenset(words(entry.passage))
        if not any(_are_near(own[0], query) or _are_near(own[1], passage) for query, passage in seen):
            kept.append(entry)
            seen.append(own)
    return kept


def _are_near(one: frozenset[str], other: frozenset[str]) -> bool:
    return overlap(one, other) >= NEAR


def overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard similarity of two sets, in [0, 1]."""
    return len(one & other) / max(len(one | other), 1)


def without_equal(entries: Iterable[Entry]) -> list[Entry]:
    """The first one of those with one query or one passage, but for case and punctuation."""
    queries: set[str] = set()
    passages: set[str] = set()
    kept = []
    for entry in entries:
        query, passage = normalise(entry.query), normalise(entry.passage)
        if query not in queries and passage not in passages:
            kept.append(entry)
        queries.add(query)
        passages.add(passage)
    return kept


def write_pairs(path: Path, entries: Iterable[Entry]) -> None:
    """Rows to train on."""
    write_rows(path, ({"anchor": one.query, "positive": f"{one.title} {one.passage}"} for one in entries))


def write_retrieval_set(folder: Path, entries: Sequence[Entry]) -> None:
    """In BEIR's layout: a query has one relevant document, the passage of its own entry."""
    write_rows(folder / "corpus.jsonl", ({"_id": one.name, "title": one.title, "text": one.passage} for one in entries))
    write_rows(folder / "queries.jsonl", ({"_id": one.name, "text": one.query} for one in entries))
    lines = ["query-id\tcorpus-id\tscore", *(f"{one.name}\t{one.name}\t1" for one in entries)]
    write_bytes(folder / "qrels" / "test.tsv", "\n".join([*lines, ""]).encode())


def write_rows(path: Path, rows: Iterable[Mapping[str, str | int]]) -> None:
    """As JSON, a row a line."""
    write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def count_packages(entries: Iterable[Entry]) -> dict[str, dict[str, Any]]:
    """Version and number of entries of each package; one that belongs to no distribution has no version."""
    counts = Counter(one.name.partition(".")[0] for one in entries)
    distributions = packages_distributions()
    return {
        package: {
            "version": version(distributions[package][0]) if package in distributions else None,
            "entries": count,
        }
        for package, count in counts.items()
    }


def make(out: Path, *, packages: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Write the training pairs and both retrieval sets; returns how many entries each part has.

    Args:
        out: folder to write.
        packages: of each part, `train`, `dev` and `test`.

    Raises:
        DataError: a package is not installed, stands in two parts, or a part has no entry.
    """
    every = Counter(package for names in packages.values() for package in names)
    if twice := [package for package, count in every.items() if count > 1]:
        raise DataError(f"{', '.join(twice)} stands twice.\nWhat is tested on must not be trained on.")
    found = {part: [entry for name in names for entry in read_package(name)] for part, names in packages.items()}
    parts = {part: without_equal(own) if part == "train" else without_near(own) for part, own in found.items()}
    if empty := [part for part, own in parts.items() if not own]:
        raise DataError(f"No function of the packages for {', '.join(empty)} has a sentence and a description.")
    write_pairs(out / "train.jsonl", parts["train"])
    write_retrieval_set(out / "dev", parts["dev"])
    write_retrieval_set(out / "test", parts["test"])
    write_json(out / "packages.json", {part: count_packages(own) for part, own in parts.items()})
    return {part: len(own) for part, own in parts.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--train", nargs="+", default=TRAIN, metavar="PACKAGE", help="packages to train on")
    parser.add_argument("--dev", nargs="+", default=DEV, metavar="PACKAGE", help="packages to choose settings on")
    parser.add_argument("--test", nargs="+", default=TEST, metavar="PACKAGE", help="packages to test on")
    given = parser.parse_args(arguments)
    try:
        counts = make(given.out, packages={"train": given.train, "dev": given.dev, "test": given.test})
    except (DataError, OSError) as error:
        parser.error(str(error))
    print(", ".join(f"{count:,} {part}" for part, count in counts.items()), "->", given.out)


if __name__ == "__main__":
    main()
