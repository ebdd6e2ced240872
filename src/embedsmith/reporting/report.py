"""Models and their runs -> one self-contained HTML page: the result in a sentence, tables, pictures, what it took.

Nothing is fetched. A little script sorts, filters and highlights; the page says all it has to say without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.records.data_facts import DataFacts, LeakageReport
from embedsmith.records.findings import Analysis, RunRecord, Slice, WrongPair
from embedsmith.reporting.published import Beside
from embedsmith.reporting.tables import comparison_lines, format_score, leakage_header, leakage_lines
from embedsmith.support import files
from embedsmith.support.errors import MissingExtraError

_NUM_WORST = 6  # of each kind


@dataclass(frozen=True)
class ReportContent:
    """What a page shows.

    Attributes:
        title: page title.
        headline: the result in one sentence.
        analysis: of the models.
        runs: those of the models that are runs.
        published: results of the base model or its family, as published, beside those here.
        data: facts of the training data, if it was looked into.
        leakage: what it has in common with the tasks.
        remarks: what could not be found out, and why.
    """

    title: str
    headline: str
    analysis: Analysis
    runs: Sequence[RunRecord]
    published: Beside | None = None
    data: DataFacts | None = None
    leakage: LeakageReport | None = None
    remarks: Sequence[str] = ()


def write_report(path: Path, content: ReportContent) -> None:
    """Write the page atomically.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        OSError: the file cannot be written.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("jinja2", extra="report", needed_for="Writing the report") from None
    from embedsmith.reporting import plots

    analysis, data = content.analysis, content.data
    environment = Environment(
        loader=PackageLoader("embedsmith.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        content=content,
        analysis=analysis,
        titles=[title for title, _ in analysis.rows],
        tasks=list(analysis.rows[0][1].tasks),
        comparisons=[(one, comparison_lines(one)) for one in analysis.comparisons],
        format_score=format_score,
        worst=_worst_pairs(analysis.slices),
        leakage_table=(leakage_header(), leakage_lines(content.leakage)) if content.leakage else None,
        scores_svg=plots.scores_svg(analysis.rows),
        similarity_svg=plots.similarity_svg(analysis),
        cosines_svg=plots.cosines_svg(analysis),
        curves=[(run, plots.learning_curve_svg(run.metrics)) for run in content.runs],
        data_svg=plots.data_svg(data) if data else "",
        colours=plots.COLOURS,
    )
    files.write_text(path, page)


def _worst_pairs(slices: Sequence[Slice]) -> list[dict[str, Any]]:
    """The worst pairs of every kind, each once, the worst first."""
    pairs: dict[tuple[str, str], WrongPair] = {}
    for one in slices:
        for pair in one.worst[:_NUM_WORST]:
            pairs.setdefault((pair.sentence1, pair.sentence2), pair)
    last = list(slices[0].errors)[-1]
    ordered = sorted(pairs.values(), key=lambda pair: -abs(pair.ranks[last] - pair.gold_rank))
    return [{"pair": pair, "off": 100 * (pair.ranks[last] - pair.gold_rank)} for pair in ordered]
