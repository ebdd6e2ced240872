"""Results -> tables, for the terminal and for Markdown: score x 100 with its 95 % interval, as papers print it."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.bar import Bar
from rich.console import Group
from rich.table import Table

from embedsmith.records.data_facts import DataFacts, Distribution, LeakageReport, Match
from embedsmith.records.mined import MiningReport
from embedsmith.records.results import BenchmarkResult, Comparison, EvaluationResult, Plan, SourceShare, TaskResult
from embedsmith.reporting.published import Beside

_BAR_WIDTH = 40
Rows = Sequence[tuple[str, EvaluationResult]]
"""(column title, result) of each model, all on the same tasks."""


def results_table(rows: Rows, *, with_gain: bool = True) -> Table:
    """A table for the terminal: a line per task, a column per model, and the last model's gain over the first."""
    table = Table()
    header, *body = _cells(rows, with_gain=with_gain)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right")
    for line in body[:-1]:
        table.add_row(*line)
    table.add_section()
    table.add_row(*body[-1])
    return table


def results_markdown(rows: Rows) -> str:
    """The same table in Markdown."""
    return f"{_markdown(_cells(rows, with_gain=True))}\n"


def published_table(beside: Beside) -> Table:
    """For the terminal: what was published of a model or its family, set by set, beside what was measured."""
    header, *lines = beside.cells()
    table = Table(title=beside.title, title_justify="left", title_style="")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", max_width=None if index == 0 else 13)
    for number, line in enumerate(lines, start=1):
        table.add_row(*line, end_section=number == len(beside.tasks))
    return table


def beside_markdown(beside: Beside) -> str:
    """The same in Markdown, with its sources."""
    sources = "; ".join(f"[{title}]({url}), {places}" for title, url, places in beside.sources)
    return f"{beside.title} ({sources}):\n\n{_markdown(beside.cells())}"


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    header, *body = cells
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def benchmark_table(result: BenchmarkResult) -> Table:
    """For the terminal: a line per task of mteb's, then the mean of each type, then both means."""
    table = Table("task", "type", "metric", "score x 100")
    table.columns[3].justify = "right"
    for name, one in result.scores.items():
        pairs = result.comparable.tasks.get(name)
        interval = pairs.ci95 if pairs else one.ci95
        table.add_row(name, one.kind, one.metric, with_interval(one.score, interval))
        if one.mrr_at_10 is not None:
            table.add_row("", f"{one.num_queries} queries", "mrr_at_10", f"{100 * one.mrr_at_10:.1f}")
        if one.num_pairs is not None:
            table.add_row("", f"{one.num_pairs} pairs")
    for name in result.failures:
        table.add_row(name, "", "", "-")
    table.add_section()
    if len(result.scores) > 1:
        for kind, mean in result.by_kind.items():
            table.add_row("mean", kind, "", f"{100 * mean:.1f}")
        table.add_row("mean over tasks", "", "", f"{100 * result.mean:.1f}")
    if len(result.by_kind) > 1:
        table.add_row("mean over types", "", "", f"{100 * result.mean_of_kinds:.1f}")
    return table


def plan_table(plan: Plan) -> Table:
    """What a run will take, for the terminal."""
    table = Table(show_header=False)
    for name, value in (
        ("data", f"{plan.num_rows} rows, {plan.num_epochs:.2f} passes"),
        *((f"  {source.name}", describe_share(source)) for source in plan.sources),
        ("steps", f"{plan.num_steps}"),
        ("tokens", f"{plan.tokens_per_step:.0f} a step, {plan.total_tokens / 1e6:.2f} million in all"),
        ("step", f"{plan.step_s:.2f} s, {plan.tokens_per_step / plan.step_s:.0f} tokens a second"),
        ("evaluations", f"{plan.num_evaluations} of {_duration(plan.evaluation_s)}"),
        ("start", _duration(plan.start_s)),
        *([("teacher's vectors", _duration(plan.teacher_s))] if plan.teacher_s else []),
        ("time in all", _duration(plan.total_s)),
        ("memory", f"{plan.peak_bytes / 1e9:.1f} GB in these few steps; a long run may take half as much again"),
        ("on", plan.device),
        (
            f"on {plan.num_processes} processes",
            f"each sends {plan.embedding_bytes / 1e6:.1f} MB of embeddings and {plan.gradient_bytes / 1e6:.1f} MB of "
            "gradients a step",
        ),
    ):
        table.add_row(name, value)
    return table


def describe_share(source: SourceShare) -> str:
    """What a source gets of a run, in words."""
    batches = "batch" if source.num_batches == 1 else "batches"
    return f"{source.num_rows} rows, {source.num_batches} {batches}, {source.num_epochs:.2f} passes"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_score(task: TaskResult) -> str:
    """For example `67.5 [65.1, 69.8]`."""
    return with_interval(task.cosine_spearman, task.ci95)


def with_interval(score: float, interval: tuple[float, float] | None) -> str:
    """The same of any score; without an interval that is not known."""
    bounds = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    return f"{100 * score:.1f}{bounds}"


def leakage_table(report: LeakageReport) -> Table:
    """For the terminal: a line per evaluation set, with its distinct texts and pairs in the training data."""
    table = Table(*leakage_header())
    for column in table.columns[1:]:
        column.justify = "right"
    for line in leakage_lines(report):
        table.add_row(*line)
    return table


def leakage_header() -> list[str]:
    """Column titles of `leakage_lines`."""
    kinds = [kind.word for kind in sorted(Match, reverse=True)]
    return ["evaluation set", "texts", *kinds, "pairs", *kinds]


def leakage_lines(report: LeakageReport) -> list[list[str]]:
    """Cells of a leakage report; a dash where near ones were not looked for."""

    def cells(counts: Mapping[Match, int]) -> list[str]:
        known = [kind for kind in counts if report.threshold is not None or kind is not Match.NEAR]
        return [str(counts[kind]) if kind in known else "-" for kind in counts]

    return [
        [one.name, str(one.num_texts), *cells(one.texts), str(one.num_pairs), *cells(one.pairs)]
        for one in report.overlaps
    ]


def facts_table(facts: DataFacts) -> Table:
    """For the terminal: the counts of training data."""
    table = Table(show_header=False)
    for name, value in facts.counts.items():
        table.add_row(name, value)
    return table


def mining_table(report: MiningReport) -> Table:
    """For the terminal: what came of mining hard negatives."""
    table = Table(show_header=False)
    table.add_row("rows", f"{report.num_rows:,}, with {report.num_anchors:,} distinct anchors")
    skipped = f"; {report.num_placeholders:,} texts such as n/a are none" if report.num_placeholders else ""
    table.add_row("candidates", f"{report.num_candidates:,} distinct texts{skipped}")
    if report.recall is not None:
        table.add_row("found by the index", f"{100 * report.recall:.1f} % of the nearest, on a sample")
    table.add_row("rows written", f"{report.num_written:,}")
    table.add_row("negatives mined", f"{report.num_negatives:,}, of {report.num_wanted} a row")
    table.add_row("rows with fewer", f"{report.num_short:,}, of which {report.num_none:,} got none")
    table.add_row("rows without a common text", f"{report.num_disjoint:,}: about the largest training.batch_size")
    table.add_section()
    table.add_row("near texts looked at", f"{report.num_looked_at:,}")
    for rule, count in report.dropped.items():
        table.add_row(f"left out: {rule.value}", f"{count:,} ({100 * count / report.num_looked_at:.1f} %)")
    table.add_section()
    for name, values in (("positives", report.positives), ("negatives", report.negatives)):
        _, few, _, most, _ = values.quantiles
        table.add_row(f"similarity of {name}", f"{values.mean:.3f} on average; 5 to 95 %: {few:.3f} to {most:.3f}")
    return table


def histogram(title: str, values: Distribution) -> Group:
    """For the terminal: a title, and a line per bin; empty bins at either end are left out."""
    filled = [index for index, count in enumerate(values.counts) if count]
    smallest, few, median, most, largest = values.quantiles
    table = Table("", "", "", box=None, show_header=False)
    table.columns[0].justify = table.columns[2].justify = "right"
    for index in range(filled[0], filled[-1] + 1):
        count = values.counts[index]
        bar = Bar(max(values.counts), 0, count, width=_BAR_WIDTH)
        table.add_row(f"{values.edges[index]:.3g} ..", bar, f"{count:,}")
    return Group(
        f"\n{title}\nmedian {median:.3g}; 5 to 95 %: {few:.3g} to {most:.3g}; all: {smallest:.3g} to {largest:.3g}",
        table,
    )


def comparison_table(comparison: Comparison) -> Table:
    """For the terminal: a line per task, and the average."""
    table = Table()
    for index, name in enumerate(comparison_header(comparison)):
        table.add_column(name, justify="left" if index in (0, 6) else "right")
    *body, average = comparison_lines(comparison)
    for line in body:
        table.add_row(*line)
    if len(body) > 1:
        table.add_section()
        table.add_row(*average)
    return table


def comparison_header(comparison: Comparison) -> list[str]:
    """Column titles of `comparison_lines`."""
    return ["task", comparison.units, comparison.base, comparison.model, "difference", "p", "verdict"]


def comparison_lines(comparison: Comparison) -> list[list[str]]:
    """Cells of a comparison, the average last; scores and differences x 100."""
    rows = [*comparison.tasks.items(), ("average", comparison.average)]
    return [
        [
            name,
            str(one.num_pairs),
            f"{100 * one.base:.1f}",
            f"{100 * one.model:.1f}",
            f"{100 * one.gain:+.1f} [{100 * one.ci95[0]:+.1f}, {100 * one.ci95[1]:+.1f}]",
            f"{one.p_value:.4f}",
            str(one.verdict),
        ]
        for name, one in rows
    ]


def intervals_overlap(first: TaskResult, second: TaskResult) -> bool:
    """Whether two 95 % intervals share a value."""
    return first.ci95[0] <= second.ci95[1] and second.ci95[0] <= first.ci95[1]


def _cells(rows: Rows, *, with_gain: bool) -> list[list[str]]:
    assert rows, "no results to show"
    with_gain = with_gain and len(rows) > 1
    cells = [["task", "pairs", *(title for title, _ in rows), *(["gain"] if with_gain else [])]]
    names = list(dict.fromkeys(name for _, result in rows for name in (*result.tasks, *result.failures)))
    for name in names:
        scored = [result.tasks.get(name) for _, result in rows]
        num_pairs = next((str(one.num_pairs) for one in scored if one), "")
        line = [name, num_pairs, *(format_score(one) if one else "-" for one in scored)]
        if with_gain:
            line.append(_gain(scored[0], scored[-1]))
        cells.append(line)
    # Averages of different tasks would say nothing of one another.
    shared = [name for name in names if all(name in result.tasks for _, result in rows)]
    title = "average" if len(shared) == len(names) else f"average of {len(shared)}"
    means = [fmean(result.tasks[name].cosine_spearman for name in shared) if shared else None for _, result in rows]
    average = [title, "", *(f"{100 * mean:.1f}" if mean is not None else "-" for mean in means)]
    gain = [f"{100 * (means[-1] - means[0]):+.1f}" if means[0] is not None and means[-1] is not None else "-"]
    return [*cells, [*average, *(gain if with_gain else [])]]


def _gain(first: TaskResult | None, last: TaskResult | None) -> str:
    if first is None or last is None:
        return "-"
    mark = " (intervals overlap)" if intervals_overlap(first, last) else ""
    return f"{100 * (last.cosine_spearman - first.cosine_spearman):+.1f}{mark}"
