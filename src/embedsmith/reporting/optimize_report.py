"""What a search found -> lines, tables, Markdown and one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from embedsmith.records.optimized import Finalist, SearchFindings, Trial
from embedsmith.support import files
from embedsmith.support.errors import MissingExtraError

_IN_TERMINAL = 10


def trial_line(trial: Trial, findings: SearchFindings) -> str:
    """A trial in one line: what became of it, the best until now, what it was."""
    best = next(iter(findings.ranked), None)
    told = f"trial {trial.number}: {_outcome(trial)}, {trial.elapsed_s:.0f} s"
    told += f" (best {_number(best.score)}, trial {best.number})" if best else ""
    return f"{told}; {describe_point(trial.point)}"


def final_line(trial: Trial, *, seed: int, score: float | None) -> str:
    """A finalist's run in one line."""
    return f"trial {trial.number} with seed {seed}: {_number(score) if score is not None else 'failed'}"


def best_line(findings: SearchFindings) -> str:
    """Which trial is the best, of how many, by which score."""
    trial = findings.winner
    if trial is None:
        return "No trial has won yet."
    place = f"Trial {trial.number} is the best of {len(findings.trials)}"
    finalist = next((one for one in findings.finalists if one.number == trial.number), None)
    if finalist is None:
        return f"{place}: {_number(trial.score)} on the development set, the best of many and so too good."
    spread = "" if finalist.spread is None else f" (standard deviation {_number(finalist.spread, digits=2)})"
    seeds = ", ".join(map(str, findings.final_seeds))
    word = "seed" if len(findings.final_seeds) == 1 else "seeds"
    return f"{place}: {_number(finalist.mean)}{spread} on the development set with {word} {seeds}."


def describe_point(point: Mapping[str, str | int | float]) -> str:
    """What a trial chose, in words."""
    return ", ".join(f"{name.split('.')[-1]} {_value(value)}" for name, value in point.items())


def trial_header(findings: SearchFindings) -> list[str]:
    """Of `trial_rows`."""
    return ["trial", "score", "what became of it", "minutes", *(findings.trials[0].point if findings.trials else ())]


def trial_rows(trials: Sequence[Trial]) -> list[list[str]]:
    """Cells of the table of trials; scores are Spearman x 100."""
    return [
        [
            str(trial.number),
            _number(trial.score),
            _state(trial),
            f"{trial.elapsed_s / 60:.1f}",
            *map(_value, trial.point.values()),
        ]
        for trial in trials
    ]


FINAL_HEADER = ("trial", "mean", "spread", "seeds", "scores", "when it was chosen")


def final_rows(findings: SearchFindings) -> list[list[str]]:
    """Cells of the table of finalists; the spread is the standard deviation over seeds."""
    return [
        [
            str(one.number),
            _number(one.mean),
            _number(one.spread, digits=2),
            f"{len(one.known)} of {len(one.scores)}",
            _scores(one),
            _number(findings.trials[one.number].score),
        ]
        for one in findings.finalists
    ]


def search_table(findings: SearchFindings) -> Table:
    """For the terminal: the finalists, or the best trials where there are none."""
    rows = final_rows(findings) or trial_rows(findings.ranked[:_IN_TERMINAL])
    table = Table(*(FINAL_HEADER if findings.finalists else trial_header(findings)))
    for row in rows:
        table.add_row(*row)
    return table


def search_markdown(findings: SearchFindings) -> str:
    """All of it in Markdown."""
    parts = [f"{best_line(findings)}\n"]
    if findings.finalists:
        parts.append(_markdown_table(FINAL_HEADER, final_rows(findings)))
    if findings.importances:
        shares = [[name, f"{share:.2f}"] for name, share in findings.importances.items()]
        parts.append(_markdown_table(("setting", "importance"), shares))
    parts.append(_markdown_table(trial_header(findings), trial_rows(findings.trials)))
    return "\n".join(parts)


def write_search_page(path: Path, findings: SearchFindings, *, title: str, recipe_yaml: str) -> None:
    """Write the page, atomically.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        OSError: the file cannot be written.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("jinja2", extra="report", needed_for="Writing the search's page") from None
    from embedsmith.reporting.optimize_plot import best_so_far_svg, setting_svg

    names = list(findings.trials[0].point) if findings.trials else []
    ordered = sorted(names, key=lambda name: -findings.importances.get(name, 0.0))
    environment = Environment(loader=PackageLoader("embedsmith.reporting"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("optimize.html").render(
        title=title,
        best=best_line(findings),
        findings=findings,
        counts={
            state: sum(one.state == state for one in findings.trials) for state in ("complete", "stopped", "failed")
        },
        progress_svg=best_so_far_svg(findings) if findings.best_so_far else "",
        settings=[(name, setting_svg(name, findings), findings.importances.get(name)) for name in ordered],
        final_header=FINAL_HEADER,
        finals=final_rows(findings),
        header=trial_header(findings),
        rows=trial_rows(findings.trials),
        recipe_yaml=recipe_yaml,
    )
    files.write_text(path, page)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def _outcome(trial: Trial) -> str:
    return _state(trial) if trial.score is None else f"{_number(trial.score)}, {_state(trial)}"


def _state(trial: Trial) -> str:
    again = "" if trial.repeats is None else f"trial {trial.repeats} again: "
    if trial.state == "stopped":
        return f"{again}stopped after step {trial.evaluations[-1][0]}"
    return again + (f"failed: {trial.failed}".split("\n")[0] if trial.state == "failed" else "complete")


def _scores(finalist: Finalist) -> str:
    failed = "".join(f"; {failure}".split("\n")[0] for failure in finalist.failures[:1])
    return ", ".join(map(_number, finalist.scores)) + failed


def _number(score: float | None, digits: int = 1) -> str:
    return "-" if score is None else f"{100 * score:.{digits}f}"


def _value(value: str | int | float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
