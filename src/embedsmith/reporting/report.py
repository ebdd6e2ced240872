"""A run -> one self-contained HTML page: what was gained in a sentence, table, pictures, examples, recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith import files
from embedsmith.errors import MissingExtraError
from embedsmith.reporting.tables import Rows, format_score, intervals_overlap
from embedsmith.results import EvaluationResult

_NUM_EXAMPLES = 8


@dataclass(frozen=True)
class ReportContent:
    """What a page shows.

    Attributes:
        title: page title.
        headline: the result in one sentence.
        rows: (column title, result) of each model; the first is the base, the last the tuned one.
        metrics: records of `metrics.jsonl`.
        pairs: (sentence1, sentence2, gold score) behind the similarity picture.
        similarities: model title -> cosine of each pair.
        facts: what was run, name -> value.
        config_yaml: the resolved recipe.
    """

    title: str
    headline: str
    rows: Rows
    metrics: Sequence[Mapping[str, Any]]
    pairs: Sequence[tuple[str, str, float]]
    similarities: Mapping[str, np.ndarray]
    facts: Mapping[str, str]
    config_yaml: str


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

    gold = np.array([score for _, _, score in content.pairs])
    environment = Environment(loader=PackageLoader("embedsmith.reporting"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html").render(
        content=content,
        tasks=list(content.rows[0][1].tasks),
        gains=_gains(content.rows),
        format_score=format_score,
        scores_svg=plots.scores_svg(content.rows),
        similarity_svg=plots.similarity_svg(gold, content.similarities),
        learning_curve_svg=plots.learning_curve_svg(content.metrics),
        examples=_examples(content),
        colours=plots.COLOURS,
    )
    files.write_text(path, page)


def headline(base: EvaluationResult, tuned: EvaluationResult, *, baseline: str) -> str:
    """What was gained, in one sentence, with a warning where intervals overlap."""
    gain = 100 * (tuned.average - base.average)
    scores = f"from {100 * base.average:.1f} to {100 * tuned.average:.1f}"
    overlapping = [name for name, task in base.tasks.items() if intervals_overlap(task, tuned.tasks[name])]
    if gain <= 0:
        return f"Fine-tuning did not help: Spearman × 100 went {scores}, compared with {baseline}."
    sentence = f"Fine-tuning lifted Spearman × 100 {scores} ({gain:+.1f} points), compared with {baseline}"
    if overlapping:
        return f"{sentence}; but on {', '.join(overlapping)} the 95 % intervals overlap."
    return f"{sentence}; the 95 % intervals do not overlap."


def _gains(rows: Rows) -> dict[str, float]:
    first, last = rows[0][1], rows[-1][1]
    gains = {name: last.tasks[name].cosine_spearman - task.cosine_spearman for name, task in first.tasks.items()}
    return {name: 100 * gain for name, gain in gains.items()} | {"average": 100 * (last.average - first.average)}


def _examples(content: ReportContent) -> list[dict[str, Any]]:
    """The pairs whose rank, among all pairs, came closest to the gold rank by training, and those that moved away."""
    from embedsmith.reporting.plots import mid_ranks

    titles = list(content.similarities)
    gold = mid_ranks(np.array([score for _, _, score in content.pairs]))
    before, after = (np.abs(mid_ranks(content.similarities[title]) - gold) for title in (titles[0], titles[-1]))
    order = np.argsort(after - before, kind="stable")
    chosen = [*order[: _NUM_EXAMPLES - 2], *order[::-1][:2]]
    return [
        {
            "sentences": content.pairs[index][:2],
            "gold": content.pairs[index][2],
            "cosines": [float(content.similarities[title][index]) for title in titles],
            "is_better": bool(after[index] < before[index]),
        }
        for index in chosen
    ]
