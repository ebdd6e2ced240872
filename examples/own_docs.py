"""This project's own pages -> a search among their sections: pairs to train on, and questions to choose and to test on.

The questions of questions.jsonl were written for this project from the pages, before any model had been asked, and each
has the one section that answers it best. None of them is trained on: training pairs are made of the pages alone, a
heading or a sentence and the section that it is from. Cost: a second.

    python -m examples.own_docs --out own-docs
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedsmith.support.errors import DataError
from embedsmith.support.files import write_bytes
from examples.beyond_sts import Section, read_sections
from examples.documentation import write_rows

QUESTIONS = Path(__file__).with_name("questions.jsonl")
LEFT_OUT = ("cheat-sheet.md", "commands.md", "gallery.md", "recipes.md", "settings.md")
"""Tables of what there is, which `--help` shows as well; and the page that shows this search."""
DEV_SHARE = 3
"""Every third question is for choosing."""
MAX_WORDS = 60
"""Of a section: so many say what it is about, and cost half of what all of it would."""
NUM_SENTENCES = 2
MIN_SENTENCE_WORDS, MAX_SENTENCE_WORDS = 6, 30
"""Of a section's sentences, those that may stand for a question."""
_END_OF_SENTENCE = re.compile(r"(?<=[a-z)][.?]) (?=[A-Z])")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|\*\*|(?:\| )+(?=\||:)")


@dataclass(frozen=True)
class Question:
    """What a reader asks, and where the answer stands."""

    text: str
    page: str
    heading: str


def read_own_pages(pages: Path) -> list[Section]:
    """Every section of every page, the beginnings under the titles too."""
    sections = read_sections(pages, levels="1,3", min_heading_words=1, left_out=LEFT_OUT)
    return [replace(one, passage=" ".join(_LINK.sub(r"\1", one.passage).split()[:MAX_WORDS])) for one in sections]


def title_of(section: Section) -> str:
    """Its page and its heading: "serving: Limits"."""
    return f"{section.title.removesuffix('.md').replace('-', ' ')}: {section.query}"


def text_of(section: Section, passage: str | None = None) -> str:
    """What is looked through, or with `passage` a part of it, under the title."""
    return f"{title_of(section)} {section.passage if passage is None else passage}"


def read_questions(path: Path = QUESTIONS) -> list[Question]:
    """In the order of the file."""
    rows = map(json.loads, path.read_text(encoding="utf-8").strip().split("\n"))
    return [Question(row["question"], row["page"], row["heading"]) for row in rows]


def pairs_of(sections: Sequence[Section]) -> Iterator[dict[str, str]]:
    """Rows to train on: a heading and what stands under it; a sentence and its section without it, as readers who
    remember a part of it look for the rest (the inverse cloze task of Lee et al. 2019, arXiv 1906.00300)."""
    draws = np.random.default_rng(0)
    for section in sections:
        yield {"anchor": title_of(section), "positive": section.passage}
        every = _END_OF_SENTENCE.split(section.passage)
        fit = [one for one in every if MIN_SENTENCE_WORDS <= len(one.split()) <= MAX_SENTENCE_WORDS]
        if len(every) > 1:
            for one in draws.permutation(fit)[:NUM_SENTENCES].tolist():
                rest = " ".join(other for other in every if other != one)
                yield {"anchor": one, "positive": text_of(section, rest)}


def write_questions(folder: Path, sections: Sequence[Section], questions: Sequence[Question]) -> None:
    """A retrieval set in BEIR's layout: all sections, and for each question the one that answers it.

    Raises:
        DataError: a section that a question names is not there.
    """
    names = {(Path(one.name.partition("#")[0]).name, one.query): one.name for one in sections}
    if missing := [f"  {one.page}: {one.heading}" for one in questions if (one.page, one.heading) not in names]:
        raise DataError(
            "\n".join(["Questions are about sections that are not there:", *missing])
            + f"\nGive these headings in {QUESTIONS.name} as the pages have them now."
        )
    numbered = [(f"question-{number}", one) for number, one in enumerate(questions, start=1)]
    lines = [f"{name}\t{names[one.page, one.heading]}\t1" for name, one in numbered]
    write_rows(folder / "corpus.jsonl", ({"_id": s.name, "title": title_of(s), "text": s.passage} for s in sections))
    write_rows(folder / "queries.jsonl", ({"_id": name, "text": one.text} for name, one in numbered))
    write_bytes(folder / "qrels" / "test.tsv", "\n".join(["query-id\tcorpus-id\tscore", *lines, ""]).encode())


def make(out: Path, *, pages: Path = Path("docs"), questions: Sequence[Question] | None = None) -> dict[str, int]:
    """Write `pairs.jsonl` and the sets `dev` and `test`; returns how many pairs, sections and questions there are.

    Args:
        out: folder to write.
        pages: folder of Markdown files.
        questions: None: those of questions.jsonl.

    Raises:
        DataError: there are no pages, or a question's section is not there.
    """
    sections = read_own_pages(pages)
    asked = read_questions() if questions is None else questions
    dev = asked[::DEV_SHARE]
    test = [one for number, one in enumerate(asked) if number % DEV_SHARE]
    write_questions(out / "dev" / "questions", sections, dev)
    write_questions(out / "test" / "questions", sections, test)
    rows = list(pairs_of(sections))
    write_rows(out / "pairs.jsonl", rows)
    return {"pairs": len(rows), "sections": len(sections), "dev": len(dev), "test": len(test)}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--pages", type=Path, default=Path("docs"), help="folder of Markdown files")
    given = parser.parse_args(arguments)
    try:
        counts = make(given.out, pages=given.pages)
    except (DataError, OSError) as error:
        parser.error(str(error))
    print(", ".join(f"{count:,} {part}" for part, count in counts.items()), "->", given.out)


if __name__ == "__main__":
    main()
