"""performance/<machine>.json -> performance.md and images/performance-*.svg beside it. Nothing is measured here."""

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.machine import instruction_sets, machine_slug, machine_title, peak_precision
from benchmarks.rows import Row, read_results, rows_of
from benchmarks.tables import (
    busy_table,
    comparison_table,
    encoding_table,
    growth_table,
    long_table,
    per_item_table,
    percent_cell,
    ratio_cell,
    table,
)
from benchmarks.variants import REFERENCE
from embedsmith.support import files

EXPLANATION_FILE = Path(__file__).parent / "explanation.md"
NOTES_FILE = Path(__file__).parent / "notes.md"
RESULTS_FOLDER = "performance"
_HEAD = """\
<!-- Made by `python -m benchmarks`; edit benchmarks/explanation.md and notes.md instead. -->
# Performance

Every figure is the median of rounds in which all variants took turns on the same texts, each in a process of
its own; IQR is the interquartile range; ratios are taken within each round. Peak memory is that of the whole
process while it works, loading aside.
"""
_AXES = {
    "growth-batch": "triplets a step",
    "growth-length": "tokens of each text",
    "growth-model": "million parameters",
}
_HEADINGS = {
    "growth-batch": "With the batch (default bound on memory)",
    "growth-length": "With the length of texts (one forward)",
    "growth-model": "With the size of the model (parameters outside the embedding)",
}


_LIMITS = {
    "bf16_gflops": "bf16 GFLOPS",
    "bf16_mm_gflops": "of `torch.mm`",
    "fp32_gflops": "fp32 GFLOPS",
    "fp32_mm_gflops": "of `torch.mm`",
    "copy_gb_s": "copying GB/s",
}


def render(folder: Path) -> None:
    """Write the page and its plots from the results of every machine in `folder/performance`."""
    every = [read_results(path) for path in sorted((folder / RESULTS_FOLDER).glob("*.json"))]
    # The one that was measured most comes first: links to a heading that every machine has lead to its.
    every = sorted((results for results in every if results["parts"]), key=lambda results: -len(results["parts"]))
    if not every:
        raise SystemExit(f"{folder / RESULTS_FOLDER} holds no results; measure first: python -m benchmarks")
    sections = [_HEAD, EXPLANATION_FILE.read_text(encoding="utf-8"), _overview(every)]
    for results in every:
        sections += _machine_sections(results, folder / "images", is_first=results is every[0])
    sections.append(NOTES_FILE.read_text(encoding="utf-8"))
    files.write_text(folder / "performance.md", "\n".join(section.rstrip() + "\n" for section in sections))


def _overview(every: Sequence[dict[str, Any]]) -> str:
    """A line a machine: what its sections say in full."""
    header = ["machine", "step of 32 triplets", "encoding", "beside a busy process", "memory over a long run"]
    header[1:3] = [f"{name}: of the peak; sentence-transformers takes" for name in header[1:3]]
    lines = []
    for results in every:
        cells = [machine_title(results["machine"])]
        for part in ("step", "encode"):
            rows = rows_of(results, part)
            precision = _precision(results, part)
            work = rows[0].work if rows else None
            ours, theirs = (
                next((row for row in rows if (row.work, row.variant) == (work, name)), None)
                for name in (REFERENCE, f"st-{precision}")
            )
            cells.append(
                f"{precision}: {percent_cell(ours.fraction)}; {ratio_cell(theirs)} times" if ours and theirs else "-"
            )
        beside = [row for row in rows_of(results, "busy") if row.variant == REFERENCE][1:]
        cells.append(f"{ratio_cell(beside[0])} times idle" if beside else "-")
        blocks = rows_of(results, "long")
        grown = [(row.peak_bytes or 0) / (blocks[0].peak_bytes or 1) for row in blocks]
        cells.append(f"{grown[-1]:.2f} times, {blocks[-1].work} against {blocks[0].work}" if blocks else "-")
        lines.append(cells)
    return "## Every machine that was measured\n\n" + table(header, lines)


def _precision(results: dict[str, Any], part: str) -> str:
    """That in which everybody was measured, who has no other one in its name."""
    return peak_precision(results["parts"][part]["limits"]["used"]) if part in results["parts"] else "bf16"


def _machine_sections(results: dict[str, Any], images: Path, *, is_first: bool) -> list[str]:
    """Headings below the machine's own; of any but the first one they name it, so that each leads to one place."""
    slug = machine_slug(results["machine"])
    makers: dict[str, Callable[[Sequence[Row], Path, str], str]] = {
        "step": _step,
        "gradcache": _gradcache,
        "encode": _encode,
        "prompt": _prompt,
        "adapter": _adapter,
        "growth": _growth,
        "families": _families,
        "busy": _busy,
        "long": _long,
        "start": _start,
    }
    kept = {part: rows for part in makers if (rows := rows_of(results, part))}
    sections = [_machine(results), *(makers[part](rows, images, slug) for part, rows in kept.items())]
    title = machine_title(results["machine"])
    named = r"#\1" if is_first else rf"#\1, {title}"
    return [f"## {title}\n", *(re.sub("^(#.*)$", named, section, flags=re.MULTILINE) for section in sections)]


# ---- sections -----------------------------------------------------------------------------------------------------


def _machine(results: dict[str, Any]) -> str:
    machine = results["machine"]
    facts = {
        "processor": machine["processor"],
        "cores": machine["cores"],
        "memory": f"{machine['memory_gb']} GB",
        "instructions": ", ".join(instruction_sets(machine)),
        **machine["versions"],
    }
    lines = []
    for part, values in results["parts"].items():
        used, before, after = (values["limits"][name] for name in ("used", "before", "after"))
        cells = [f"{used[key]:.0f} ({before[key]:.0f}, {after[key]:.0f})" for key in used]
        lines.append([part, str(values["scale"]["repetitions"]), values["texts"], *cells])
    names = next(iter(results["parts"].values()))["limits"]["used"]
    first, *others = (_LIMITS[name] for name in names)
    limits = table(["part", "rounds", "texts", f"{first} (before, after)", *others], lines)
    precision = _precision(results, next(iter(results["parts"])))
    commands = dict.fromkeys(values["command"] for values in results["parts"].values())
    missing = dict.fromkeys(line for values in results["parts"].values() for line in values["missing"])
    made = ["Made by:", "", "<!-- not run: it takes an hour or more -->", "```bash", *commands, "```", ""]
    made += [f"Left out: {line}." for line in missing]
    return (
        "\n".join(made)
        + "\n## The machine\n\n"
        + table(["", "value"], [[name, str(value)] for name, value in facts.items()])
        + "\nA peak is the best median over the shapes a step consists of: of `torch.mm`, and of any product, weights\n"
        "laid out beforehand included. A step on a frozen base needs 4 operations per parameter outside the embedding\n"
        f"and token, encoding 2; fractions below are of the two {precision} peaks.\n\n" + limits
    )


def _step(rows: Sequence[Row], images: Path, slug: str) -> str:
    parts = ["## Training step", ""]
    for work, own in _by_work(rows):
        path = images / f"performance-{slug}-step-{own[0].items}.svg"
        plots.draw_bars(own, path, title=f"A training step of {work}", xlabel="seconds, median and IQR")
        parts += [f"### {work}, {own[0].tokens:,.0f} real tokens", "", _image(path, f"Step time, {work}"), ""]
        parts += [comparison_table(own), ""]
    return "\n".join(parts)


def _gradcache(rows: Sequence[Row], images: Path, slug: str) -> str:
    return "\n".join(["## A large batch in bounded memory", "", per_item_table(rows)])


def _encode(rows: Sequence[Row], images: Path, slug: str) -> str:
    parts = ["## Encoding", ""]
    for number, (work, own) in enumerate(_by_work(rows)):
        path = images / f"performance-{slug}-encode-{number + 1}.svg"
        plots.draw_bars(own, path, title=f"Encoding {work}", xlabel="seconds, median and IQR")
        parts += [f"### {work}, {own[0].tokens:,.0f} tokens", "", _image(path, f"Encoding, {work}"), ""]
        parts += [encoding_table(own), ""]
    return "\n".join(parts)


def _prompt(rows: Sequence[Row], images: Path, slug: str) -> str:
    parts = ["## Under a prompt", ""]
    for work, own in _by_work(rows):
        show = encoding_table if "sentences" in work else comparison_table
        parts += [
            f"### {work} under a prompt, {own[0].tokens:,.0f} real tokens without it",
            "",
            show(own, with_fraction=False),
            "",
        ]
    return "\n".join(parts)


def _adapter(rows: Sequence[Row], images: Path, slug: str) -> str:
    return (
        "## By rank and adapted layers\n\nThe published adapter has rank 8, on query and value projections. A step of "
        f"{rows[0].work}, {rows[0].tokens:,.0f} real tokens.\n\n" + comparison_table(rows)
    )


def _growth(rows: Sequence[Row], images: Path, slug: str) -> str:
    panels = {part: [row for row in rows if row.part == part] for part in _AXES}
    panels = {part: own for part, own in panels.items() if own}
    path = images / f"performance-{slug}-growth.svg"
    plots.draw_growth({_AXES[part]: own for part, own in panels.items()}, path)
    parts = ["## How cost grows", "", "Slopes are of log cost on log size: 1 is in proportion.", ""]
    parts += [_image(path, "Growth of time and memory"), ""]
    for part, own in panels.items():
        parts += [f"### {_HEADINGS[part]}", "", growth_table(own, axis=_AXES[part]), ""]
    return "\n".join(parts)


def _families(rows: Sequence[Row], images: Path, slug: str) -> str:
    parts = ["## Other families", "", "Random weights, about 100M parameters outside the embedding.", ""]
    for work, own in _by_work(rows):
        is_encoding = "sentences" in work
        parts += [f"### {work}", "", encoding_table(own) if is_encoding else comparison_table(own), ""]
    return "\n".join(parts)


def _busy(rows: Sequence[Row], images: Path, slug: str) -> str:
    return (
        f"## Beside a busy process\n\nA step of {rows[0].work}, idle and beside a process that wants a core.\n\n"
        + busy_table(rows)
    )


def _long(rows: Sequence[Row], images: Path, slug: str) -> str:
    return f"## A long run\n\nSteps of {rows[0].items} triplets, none met before, in one process.\n\n" + long_table(
        rows
    )


def _start(rows: Sequence[Row], images: Path, slug: str) -> str:
    return "\n".join(
        [
            "## From the start of the process to the first finished step",
            "",
            "Imports, loading, set-up and the step. With empty caches, what is prepared once is prepared anew.",
            "",
            comparison_table(rows, with_fraction=False),
        ]
    )


def _by_work(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Works in the order they first come in; a group's rows may lie apart."""
    order = {work: number for number, work in enumerate(dict.fromkeys(row.work for row in rows))}
    in_order = sorted(rows, key=lambda row: order[row.work])
    return [(work, list(own)) for work, own in groupby(in_order, key=lambda row: row.work)]


def _image(path: Path, title: str) -> str:
    return f"![{title}](images/{path.name})"
