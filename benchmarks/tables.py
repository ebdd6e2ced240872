"""Rows of results -> Markdown tables: medians, interquartile ranges, ratios, slopes."""

from collections.abc import Sequence

import numpy as np

from benchmarks.rows import Row

LIMIT_COLUMN = "of the peak of `torch.mm` (of any product)"


def comparison_table(rows: Sequence[Row], *, with_fraction: bool = True) -> str:
    """One work, a line a variant: seconds, ratio to embedsmith, fraction of the limit, peak memory."""
    header = ["variant", "seconds (IQR)", "times embedsmith (quartiles)", "real tokens computed", "peak memory"]
    if with_fraction:
        header.insert(3, LIMIT_COLUMN)
    lines = []
    for row in rows:
        computed = row.tokens if row.computed_tokens is None else row.computed_tokens
        cells = [row.label, seconds_cell(row), ratio_cell(row), f"{computed:,.0f}", memory_cell(row)]
        if with_fraction:
            cells.insert(3, limit_cell(row))
        lines.append(cells)
    return table(header, lines)


def per_item_table(rows: Sequence[Row]) -> str:
    """Seconds for each triplet, for steps of different size."""
    header = ["step", "variant", "seconds (IQR)", "milliseconds a triplet", LIMIT_COLUMN, "peak memory"]
    lines = [
        [
            row.work,
            row.label,
            seconds_cell(row),
            "-" if row.seconds is None else f"{1000 * row.seconds / row.items:.1f}",
            limit_cell(row),
            memory_cell(row),
        ]
        for row in rows
    ]
    return table(header, lines)


def encoding_table(rows: Sequence[Row], *, with_fraction: bool = True) -> str:
    """Texts a second, and how near the embeddings are to the float32 ones."""
    has_cosine = any(row.cosine is not None for row in rows)
    header = ["variant", "seconds (IQR)", "texts a second", "times embedsmith (quartiles)"]
    header += [*([LIMIT_COLUMN] if with_fraction else []), "peak memory"]
    header += [*(["smallest cosine to fp32 (mean)"] if has_cosine else [])]
    lines = []
    for row in rows:
        rate = "-" if row.seconds is None else f"{row.items / row.seconds:,.0f}"
        cells = [row.label, seconds_cell(row), rate, ratio_cell(row)]
        cells += [*([limit_cell(row)] if with_fraction else []), memory_cell(row)]
        if has_cosine:
            cells.append("-" if row.cosine is None else f"{row.cosine:.5f} ({row.mean_cosine:.5f})")
        lines.append(cells)
    return table(header, lines)


def growth_table(rows: Sequence[Row], *, axis: str) -> str:
    """A line for each place on the axis, seconds and peak memory for each variant, slopes at the end."""
    variants = list(dict.fromkeys((row.variant, row.label) for row in rows))
    header = [axis, "real tokens"]
    for _, label in variants:
        header += [f"{label}: seconds (IQR)", "peak memory"]
    lines = []
    for x in sorted({row.x for row in rows if row.x is not None}):
        here = {row.variant: row for row in rows if row.x == x}
        cells = [f"{x:,.0f}", f"{next(iter(here.values())).tokens:,.0f}"]
        for name, _ in variants:
            cells += [seconds_cell(here[name]), memory_cell(here[name])] if name in here else ["-", "-"]
        lines.append(cells)
    for title, last in (("slope", None), ("slope, last three", 3)):
        cells = [title, ""]
        for name, _ in variants:
            own = [row for row in rows if row.variant == name]
            cells += [_slope_cell(own, "seconds", last=last), _slope_cell(own, "peak_bytes", last=last)]
        if any(cells[2:]):
            lines.append(cells)
    return table(header, lines)


def busy_table(rows: Sequence[Row]) -> str:
    """A line a variant: idle, and beside a busy process, against the reference and against itself."""
    idle, busy = ([row for row in rows if ("busy" in row.work) is is_busy] for is_busy in (False, True))
    header = ["variant", "idle: seconds (IQR)", "times embedsmith (quartiles)", "beside a busy process: seconds (IQR)"]
    header += ["times its own when idle (quartiles)"]
    beside = {row.variant: row for row in busy}
    lines = [
        [
            row.label,
            seconds_cell(row),
            ratio_cell(row),
            seconds_cell(beside[row.variant]),
            ratio_cell(beside[row.variant]),
        ]
        for row in idle
    ]
    return table(header, lines)


def long_table(rows: Sequence[Row]) -> str:
    """A line a block of steps: seconds a step, share of the peak, memory afterwards and against the first block's."""
    header = ["", "real tokens a step", "seconds a step (IQR)", LIMIT_COLUMN, "memory afterwards", "times the first"]
    first = rows[0].peak_bytes or 0
    lines = [
        [
            row.work,
            f"{row.tokens:,.0f}",
            seconds_cell(row),
            limit_cell(row),
            f"{(row.peak_bytes or 0) / 1e9:.2f} GB",
            f"{(row.peak_bytes or 0) / first:.2f}",
        ]
        for row in rows
    ]
    return table(header, lines)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent of growth: slope of the straight line through (log x, log y)."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines)) + "\n"


def seconds_cell(row: Row) -> str:
    """Median and interquartile range, or why there is none."""
    # The allocator's own words are long and say nothing more.
    failure = "out of memory" if row.failure and "can't allocate memory" in row.failure else row.failure
    if row.seconds is None or row.spread is None:
        return failure or "-"
    text = f"{_short(row.seconds)} ({_short(row.spread)})"
    return f"{text}; then {failure}" if failure else text


def ratio_cell(row: Row) -> str:
    """Median and quartiles of the ratio to the reference."""
    if row.ratio is None or row.ratio_low is None or row.ratio_high is None:
        return "-"
    return f"{row.ratio:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f})"


def memory_cell(row: Row) -> str:
    """Gigabytes."""
    return "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.1f} GB"


def limit_cell(row: Row) -> str:
    """Share of `torch.mm`'s peak, and of any product's."""
    return f"{percent_cell(row.fraction_of_mm)} ({percent_cell(row.fraction)})" if row.fraction else "-"


def percent_cell(fraction: float | None) -> str:
    """Whole per cent, with one digit below ten."""
    if fraction is None:
        return "-"
    return f"{100 * fraction:.0f} %" if fraction >= 0.0995 else f"{100 * fraction:.1f} %"


def _slope_cell(rows: Sequence[Row], field: str, *, last: int | None) -> str:
    points = sorted((row.x, getattr(row, field)) for row in rows if row.x and getattr(row, field))
    points = points[-last:] if last else points
    if len(points) < max(2, last or 2):
        return ""
    return f"{slope([x for x, _ in points], [y for _, y in points]):.2f}"


def _short(value: float) -> str:
    """Three significant digits, never an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    digits = 2 if value >= 10 or value == 0 else 2 - int(np.floor(np.log10(value)))
    return f"{value:.{min(digits, 4)}f}"
