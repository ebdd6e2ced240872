"""performance.json -> performance.md and images/performance-*.svg beside it. Nothing is measured here."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.rows import Row, read_results, rows_of
from benchmarks.tables import comparison_table, encoding_table, growth_table, per_item_table, table
from embedsmith.support import files

EXPLANATION_FILE = Path(__file__).parent / "explanation.md"
NOTES_FILE = Path(__file__).parent / "notes.md"
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


def render(folder: Path) -> None:
    """Write the page and its plots from `folder/performance.json`."""
    results = read_results(folder / "performance.json")
    if not results["parts"]:
        raise SystemExit(f"{folder / 'performance.json'} holds no results; measure first: python -m benchmarks")
    sections = [_head(results), EXPLANATION_FILE.read_text(encoding="utf-8"), _machine(results)]
    makers = {
        "step": _step,
        "gradcache": _gradcache,
        "encode": _encode,
        "prompt": _prompt,
        "growth": _growth,
        "families": _families,
        "start": _start,
    }
    for part, make in makers.items():
        rows = rows_of(results, part)
        if rows:
            sections.append(make(rows, folder / "images"))
    sections.append(NOTES_FILE.read_text(encoding="utf-8"))
    files.write_text(folder / "performance.md", "\n".join(section.rstrip() + "\n" for section in sections))


# ---- sections -----------------------------------------------------------------------------------------------------


def _head(results: dict[str, Any]) -> str:
    commands = dict.fromkeys(values["command"] for values in results["parts"].values())
    missing = dict.fromkeys(line for values in results["parts"].values() for line in values["missing"])
    lines = [
        "<!-- Made by `python -m benchmarks`; edit benchmarks/explanation.md and notes.md instead. -->",
        "# Performance",
        "",
        "Every figure is the median of rounds in which all variants took turns on the same texts, each in a process of",
        "its own; IQR is the interquartile range; ratios are taken within each round. Peak memory is that of the whole",
        "process while it works, loading aside. Made by:",
        "",
        "<!-- not run: it takes an hour or more -->",
        "```bash",
        *commands,
        "```",
    ]
    lines += [f"\nLeft out: {line}." for line in missing]
    return "\n".join(lines)


def _machine(results: dict[str, Any]) -> str:
    machine = results["machine"]
    facts = {
        "processor": machine["processor"],
        "cores": machine["cores"],
        "memory": f"{machine['memory_gb']} GB",
        "instructions": machine["instructions"] + (", bf16 products" if machine["bf16_in_hardware"] else ""),
        **machine["versions"],
    }
    lines = []
    for part, values in results["parts"].items():
        used, before, after = (values["limits"][name] for name in ("used", "before", "after"))
        cells = [f"{used[key]:.0f} ({before[key]:.0f}, {after[key]:.0f})" for key in used]
        lines.append([part, str(values["scale"]["repetitions"]), values["texts"], *cells])
    limits = table(
        ["part", "rounds", "texts", "bf16 GFLOPS (before, after)", "of `torch.mm`", "fp32 GFLOPS", "copying GB/s"],
        lines,
    )
    return (
        "## The machine\n\n"
        + table(["", "value"], [[name, str(value)] for name, value in facts.items()])
        + "\nA peak is the best median over the shapes a step consists of: of `torch.mm`, and of any product, weights\n"
        "laid out beforehand included. A step on a frozen base needs 4 operations per parameter outside the embedding\n"
        "and token, encoding 2; fractions below are of the two bf16 peaks.\n\n" + limits
    )


def _step(rows: Sequence[Row], images: Path) -> str:
    parts = ["## Training step", ""]
    for work, own in _by_work(rows):
        path = images / f"performance-step-{own[0].items}.svg"
        plots.draw_bars(own, path, title=f"A training step of {work}", xlabel="seconds, median and IQR")
        parts += [f"### {work}, {own[0].tokens:,.0f} real tokens", "", _image(path, f"Step time, {work}"), ""]
        parts += [comparison_table(own), ""]
    return "\n".join(parts)


def _gradcache(rows: Sequence[Row], images: Path) -> str:
    return "\n".join(["## A large batch in bounded memory", "", per_item_table(rows)])


def _encode(rows: Sequence[Row], images: Path) -> str:
    parts = ["## Encoding", ""]
    for number, (work, own) in enumerate(_by_work(rows)):
        path = images / f"performance-encode-{number + 1}.svg"
        plots.draw_bars(own, path, title=f"Encoding {work}", xlabel="seconds, median and IQR")
        parts += [f"### {work}, {own[0].tokens:,.0f} tokens", "", _image(path, f"Encoding, {work}"), ""]
        parts += [encoding_table(own), ""]
    return "\n".join(parts)


def _prompt(rows: Sequence[Row], images: Path) -> str:
    parts = ["## Under a prompt", "", "Tokens are those of the texts without a prompt.", ""]
    for work, own in _by_work(rows):
        show = encoding_table if "sentences" in work else comparison_table
        parts += [f"### {work}, {own[0].tokens:,.0f} real tokens", "", show(own, with_fraction=False), ""]
    return "\n".join(parts)


def _growth(rows: Sequence[Row], images: Path) -> str:
    panels = {part: [row for row in rows if row.part == part] for part in _AXES}
    panels = {part: own for part, own in panels.items() if own}
    path = images / "performance-growth.svg"
    plots.draw_growth({_AXES[part]: own for part, own in panels.items()}, path)
    parts = ["## How cost grows", "", "Slopes are of log cost on log size: 1 is in proportion.", ""]
    parts += [_image(path, "Growth of time and memory"), ""]
    for part, own in panels.items():
        parts += [f"### {_HEADINGS[part]}", "", growth_table(own, axis=_AXES[part]), ""]
    return "\n".join(parts)


def _families(rows: Sequence[Row], images: Path) -> str:
    parts = ["## Other families", "", "Random weights, about 100M parameters outside the embedding.", ""]
    for work, own in _by_work(rows):
        is_encoding = "sentences" in work
        parts += [f"### {work}", "", encoding_table(own) if is_encoding else comparison_table(own), ""]
    return "\n".join(parts)


def _start(rows: Sequence[Row], images: Path) -> str:
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
