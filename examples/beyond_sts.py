"""Installed Python packages and this project's pages -> sets of other kinds than scored pairs: clustering, duplicates,
retrieval.

Clustering: what functions are said to do, by the library or the part of a library that they belong to. Duplicates:
functions of one name in several data frame libraries, beside others that share as many words. Retrieval: the headings
of pages, and the sections under them. Files are read as text; nothing of a package is imported or run. Cost: a minute.

    python -m examples.beyond_sts --out beyond
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from embedsmith.data.normalise import words
from embedsmith.support.errors import DataError
from embedsmith.support.files import write_json
from examples.documentation import (
    MIN_PASSAGE_WORDS,
    Entry,
    count_packages,
    overlap,
    plain,
    read_package,
    without_near,
    write_retrieval_set,
    write_rows,
)

LIBRARIES = (
    "PIL", "anyio", "fontTools", "huggingface_hub", "hypothesis", "mteb", "optuna", "polars", "pygments", "sqlalchemy",
)  # fmt: skip
"""Of one subject each, and none of those that `examples.documentation` trains on."""
PARTED = "scipy"
"""A library whose parts are of one subject each."""
SAME_SUBJECT = {"fftpack": "fft"}
"""Parts of it that others replaced."""
MIN_TEXTS, MAX_TEXTS = 30, 100
"""Of a label: one with fewer is left out, of one with more so many are drawn."""

FRAMES = ("narwhals", "pandas", "polars")
_CLASSES = {
    "table": "DataFrame LazyFrame NDFrame",
    "column": "Series Expr IndexOpsMixin",
    "strings": "StringMethods StringNameSpace ExprStringNameSpace ExprStringNamespace SeriesStringNamespace",
    "times": "DatetimeProperties DatetimeArray DatetimeIndex TimedeltaArray DateTimeNameSpace ExprDateTimeNameSpace "
    "ExprDateTimeNamespace SeriesDateTimeNamespace",
    "lists": "ListAccessor ListNameSpace ExprListNameSpace ExprListNamespace SeriesListNamespace",
    "groups": "GroupBy DataFrameGroupBy SeriesGroupBy LazyGroupBy",
}
ROLES = {name: role for role, names in _CLASSES.items() for name in names.split()}
"""Class -> what it stands for in each of the data frame libraries."""
MAX_SHARED = 0.6
"""Duplicates that share so many of their words are left out: anything finds them."""
ALIASES = 0.8
"""Functions of one library whose sentences share so many words may be one under two names."""
MAX_USES = 2
"""Of a sentence in pairs that are no duplicates."""

MIN_HEADING_WORDS, MAX_SECTION_WORDS = 3, 100
_CODE = re.compile(r"^```.*?^```$|<!--.*?-->", re.M | re.S)


@dataclass(frozen=True)
class LabelledPair:
    """Two functions, and whether they do the same thing."""

    first: Entry
    second: Entry
    is_duplicate: bool


class Section(Entry):
    """A heading, and what stands under it."""

    @property
    def title(self) -> str:
        """Its page."""
        return self.name.partition("#")[0]


def clusters(entries: Iterable[Entry], *, label_of: Callable[[Entry], str]) -> list[tuple[str, str]]:
    """(sentence, label), no two nearly alike; a sentence that names its label, and a label with few, is left out."""
    by_label: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        label = label_of(entry)
        if not label.startswith("_") and not set(words(label)) <= set(words(entry.query)):
            by_label[label].append(entry)
    drawn = [
        own[row]
        for _, own in sorted(by_label.items())
        if len(own) >= MIN_TEXTS
        for row in np.random.default_rng(0).permutation(len(own))[:MAX_TEXTS]
    ]
    return [(entry.query, label_of(entry)) for entry in without_near(drawn)]


def subject_of(entry: Entry) -> str:
    """The part of its library that it belongs to."""
    part = entry.name.split(".")[1]
    return SAME_SUBJECT.get(part, part)


def key_of(entry: Entry) -> tuple[str, str] | None:
    """What makes functions of several data frame libraries the same: what they belong to, and their name; None: nothing
    says what it belongs to."""
    *modules, parent, name = entry.name.split(".")
    plain = name.replace("_", "").lower()
    if parent in ROLES:
        return ROLES[parent], plain
    is_public = parent.islower() and name[0].islower() and not any(part.startswith("_") for part in (*modules, parent))
    return ("function", plain) if is_public else None


def by_key(packages: Mapping[str, Iterable[Entry]]) -> dict[tuple[str, str], dict[str, Entry]]:
    """Key -> package -> the first of its entries with that key; only keys that several packages have."""
    found: dict[tuple[str, str], dict[str, Entry]] = defaultdict(dict)
    for package, entries in packages.items():
        for entry in entries:
            if (key := key_of(entry)) is not None and "alias" not in words(entry.query):  # which say nothing else
                found[key].setdefault(package, entry)
    return {key: own for key, own in found.items() if len(own) > 1}


def duplicates(found: Mapping[tuple[str, str], Mapping[str, Entry]]) -> list[LabelledPair]:
    """Each pair of one key in two packages, followed by one that is none: the same first function, and the function of
    the second package that shares the most words with it among those that the first package has, too, by another name.
    """
    uses: Counter[str] = Counter()
    pairs = []
    for key, own in found.items():
        for one, other in combinations(own, 2):
            first, second = own[one], own[other]
            if shared(first, second) >= MAX_SHARED:
                continue
            near = [
                entries[other]
                for name, entries in found.items()
                if name[1] != key[1] and one in entries and other in entries and uses[entries[other].name] < MAX_USES
                if max(shared(first, entries[one]), shared(second, entries[other])) < ALIASES
            ]
            if near:
                nearest = max(near, key=lambda entry: shared(first, entry))
                uses[nearest.name] += 1
                pairs += [LabelledPair(first, second, True), LabelledPair(first, nearest, False)]
    return pairs


def shared(one: Entry, other: Entry) -> float:
    """Share of the words of two sentences that both have."""
    return overlap(frozenset(words(one.query)), frozenset(words(other.query)))


def read_sections(
    pages: Path, *, levels: str = "2,3", min_heading_words: int = MIN_HEADING_WORDS, left_out: Collection[str] = ()
) -> list[Section]:
    """Headings of Markdown pages and what stands under each, without its code.

    Args:
        pages: their folder.
        levels: the first and the last level of headings that count; 1 is a page's title.
        min_heading_words: a heading of fewer words is left out.
        left_out: names of pages that are.

    Raises:
        DataError: there are none.
    """
    found = []
    heading_of = re.compile(rf"^#{{{levels}}} ", re.M)
    for page in sorted(path for path in pages.glob("*.md") if path.name not in left_out):
        _, *sections = heading_of.split(_CODE.sub("", page.read_text(encoding="utf-8")))
        for number, section in enumerate(sections, start=1):
            heading, _, body = section.partition("\n")
            passage = plain(body).split()[:MAX_SECTION_WORDS]
            if len(heading.split()) >= min_heading_words and len(passage) >= MIN_PASSAGE_WORDS:
                found.append(Section(f"{page.name}#{number}", plain(heading), " ".join(passage)))
    if not found:
        raise DataError(f"No page of {pages} has a heading with a text.\nName a folder of Markdown files: --pages.")
    return without_near(found)


def make(out: Path, *, libraries: Sequence[str], parted: str, frames: Sequence[str], pages: Path) -> dict[str, int]:
    """Write all sets into one folder; returns how many rows each has.

    Args:
        out: folder to write.
        libraries: whose sentences are told apart in the first clustering set.
        parted: whose parts are told apart in the second one.
        frames: whose functions are paired.
        pages: folder of Markdown files.

    Raises:
        DataError: a package is not installed, or too little is found for a set.
    """
    sections = read_sections(pages)
    of_libraries = [entry for name in libraries for entry in read_package(name)]
    of_parts = read_package(parted)
    of_frames = {name: read_package(name, min_passage_words=0) for name in frames}
    sets = {
        "libraries": clusters(of_libraries, label_of=lambda entry: entry.name.partition(".")[0]),
        parted: clusters(of_parts, label_of=subject_of),
    }
    pairs = duplicates(by_key(of_frames))
    too_small = [name for name, rows in sets.items() if len({label for _, label in rows}) < 2]
    if too_small or not pairs:
        raise DataError(f"Too little is documented there for {', '.join(too_small) or 'duplicates'}.\nName others.")
    for name, rows in sets.items():
        write_rows(out / f"{name}.jsonl", ({"text": text, "label": label} for text, label in rows))
    write_rows(out / "dataframes.jsonl", map(pair_row, pairs))
    write_retrieval_set(out / "pages", sections)
    every = [*of_libraries, *of_parts, *(entry for own in of_frames.values() for entry in own)]
    write_json(out / "packages.json", count_packages(every))
    return {name: len(rows) for name, rows in sets.items()} | {"dataframes": len(pairs), "pages": len(sections)}


def pair_row(pair: LabelledPair) -> dict[str, str | int]:
    """As a row of a duplicate set."""
    return {
        "sentence1": pair.first.query,
        "sentence2": pair.second.query,
        "label": int(pair.is_duplicate),
        "names": f"{pair.first.name} {pair.second.name}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--libraries", nargs="+", default=LIBRARIES, metavar="PACKAGE", help="told apart by sentences")
    parser.add_argument("--parted", default=PARTED, metavar="PACKAGE", help="whose parts are told apart")
    parser.add_argument("--frames", nargs="+", default=FRAMES, metavar="PACKAGE", help="whose functions are paired")
    parser.add_argument("--pages", type=Path, default=Path("docs"), help="folder of Markdown files")
    given = parser.parse_args(arguments)
    try:
        counts = make(given.out, libraries=given.libraries, parted=given.parted, frames=given.frames, pages=given.pages)
    except (DataError, OSError) as error:
        parser.error(str(error))
    print(", ".join(f"{count:,} {name}" for name, count in counts.items()), "->", given.out)


if __name__ == "__main__":
    main()
