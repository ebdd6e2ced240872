"""The pages as a Markdown parser sees them: tables, headings, links, code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.rules_block.table import escapedSplit
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
}
_PARSER = MarkdownIt("commonmark").enable("table")
_NOT_RUN = re.compile(r"<!-- (?:not run|run by (tests/[\w/]+\.py))(?:, `([^`]+)`)?: (.+?) -->")


@dataclass(frozen=True)
class NotRun:
    """What is said in front of a block that is not run as it stands there.

    Attributes:
        reason: why it is not.
        start: of the line that is meant, or "" for the whole block.
        by: the file of tests that runs it, or "": none does.
    """

    reason: str
    start: str = ""
    by: str = ""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: of the page, counted from 1, where it begins.
        language: what is named behind the opening fence.
        text: what stands in it.
        not_run: each `<!-- not run: ... -->` and `<!-- run by tests/...: ... -->` in front of it.
    """

    line: int
    language: str
    text: str
    not_run: tuple[NotRun, ...]


@dataclass(frozen=True)
class Span:
    """Code in a sentence, or a whole block, by where it stands."""

    line: int
    code: str | Block


@cache
def parse(text: str) -> list[Token]:
    return _PARSER.parse(text)


def table_faults(text: str) -> list[str]:
    """Rows that have not as many cells as their header, and what looks like a table and is none."""
    lines = text.splitlines()
    faults = []
    for token in parse(text):
        first, last = token.map or (0, 0)
        if token.type == "table_open":
            counts = {number + 1: len(_cells(lines[number])) for number in range(first, last)}
            faults += [
                f"line {number}: {count} cells under a header of {counts[first + 1]}"
                for number, count in counts.items()
                if count != counts[first + 1]
            ]
        elif token.type == "paragraph_open" and any(line.lstrip().startswith("|") for line in lines[first:last]):
            faults.append(f"line {first + 1}: no table, because the rule does not fit the header, or is missing")
    return faults


def rows(text: str) -> list[list[str]]:
    """The cells of every row under a header, of all tables of a page."""
    tokens, found = parse(text), list[list[str]]()
    for token, content in pairwise(tokens):
        if token.type == "tr_open":
            found.append([])
        elif token.type == "td_open":
            found[-1].append(_plain(content))
    return [row for row in found if row]


def _cells(line: str) -> list[str]:
    cells = escapedSplit(line.strip())
    return cells[not cells[0] : len(cells) - (not cells[-1])]


def anchors(text: str) -> list[str]:
    """The anchor of every heading, as GitHub makes it; a second heading of a name would get another one."""
    tokens = parse(text)
    inner = [tokens[index + 1] for index, token in enumerate(tokens) if token.type == "heading_open"]
    return [re.sub(r"[^\w\- ]", "", _plain(token).lower()).replace(" ", "-") for token in inner]


def _plain(token: Token) -> str:
    return "".join(child.content for child in token.children or [] if child.type in ("text", "code_inline"))


def links(text: str) -> list[str]:
    """Where links and pictures of a page lead."""
    children = [child for token in parse(text) for child in token.children or []]
    return [str(child.attrs[key]) for child in children for key in ("href", "src") if key in child.attrs]


def code(text: str) -> Iterator[Span]:
    """Code spans and fenced blocks in reading order."""
    not_run: list[NotRun] = []
    line = 0
    for token in parse(text):
        line = token.map[0] + 1 if token.map else line
        if token.type == "fence":
            yield Span(line, Block(line, token.info, token.content, tuple(not_run)))
        for child in token.children or []:
            if child.type == "code_inline":
                yield Span(line, child.content)
        if token.type == "html_block":
            not_run += [NotRun(reason, start, by) for by, start, reason in _NOT_RUN.findall(token.content)]
        elif token.type != "inline":
            not_run = []
