"""Published scores, each with the source it was read in, to stand beside what is measured here.

A figure that could not be opened in a source is not in `published.json`.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath

from embedsmith.records.results import EvaluationResult


@dataclass(frozen=True)
class Published:
    """One published result; scores are Spearman x 100 as printed.

    Attributes:
        base_models: hub ids of what was used or tuned.
        model: its usual name.
        method: what was done with it.
        scores: mteb's task name -> score, where tasks were printed.
        average: as printed.
        average_over: the tasks it is over.
        spread: as printed behind a plus-minus, or None.
        title, url, place: where it was read.
        remark: what is unclear about it.
    """

    base_models: tuple[str, ...]
    model: str
    method: str
    scores: dict[str, float]
    average: float
    average_over: tuple[str, ...]
    spread: float | None
    title: str
    url: str
    place: str
    remark: str

    @property
    def average_text(self) -> str:
        """The average, with its spread where one was printed."""
        return f"{self.average:.2f}" + (f" ± {self.spread:.2f}" if self.spread else "")

    @property
    def summary(self) -> str:
        """In a line, with its source."""
        return (
            f"published: {self.model}, {self.method}: {self.average_text} on average over "
            f"{', '.join(self.average_over)} ({self.url}, {self.place})"
        )


def load_published() -> list[Published]:
    """All of them."""
    records = json.loads(files("embedsmith.reporting").joinpath("published.json").read_text(encoding="utf-8"))
    return [
        Published(
            base_models=tuple(record["base_models"]),
            average_over=tuple(record["average_over"]),
            **record["source"],
            **{key: record[key] for key in ("model", "method", "scores", "average", "spread", "remark")},
        )
        for record in records
    ]


def published_for(base_model: str) -> list[Published]:
    """Those of a base model: a hub id, or a folder that carries the last part of one as its name."""
    name = PurePath(base_model).name.lower()
    return [one for one in load_published() if name in {PurePath(base).name.lower() for base in one.base_models}]


def beside(result: EvaluationResult, *, base_model: str) -> list[str]:
    """Lines to print under a result: published averages, and whether the tasks measured here are the same."""
    lines = []
    for one in published_for(base_model):
        missing = [task for task in one.average_over if task not in result.tasks]
        if missing:
            lines.append(f"{one.summary}; not measured here: {', '.join(missing)}, so the averages do not compare")
        else:
            own = 100 * sum(result.tasks[task].cosine_spearman for task in one.average_over) / len(one.average_over)
            lines.append(f"{one.summary}; measured here, over the same: {own:.2f}")
    return lines


def published_markdown() -> str:
    """docs/published.md."""
    tasks = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS17", "STSBenchmark", "BIOSSES", "SICK-R")
    lines = [
        "# Published results",
        "",
        "Spearman × 100 as printed, each with the source it was read in. `embedsmith evaluate` prints those of a model "
        "under what it measures.",
        "",
        f"| model | method | {' | '.join(tasks)} | average | source |",
        f"| --- | --- |{' ---: |' * (len(tasks) + 1)} --- |",
    ]
    for one in load_published():
        cells = [f"{one.scores[task]:.2f}" if task in one.scores else "" for task in tasks]
        average = f"{one.average_text} of {len(one.average_over)}"
        source = f"[{one.title}]({one.url}), {one.place}"
        lines.append(f"| {one.model} | {one.method} | {' | '.join(cells)} | {average} | {source} |")
    remarks = [f"{one.model}, {one.method}: {one.remark}" for one in load_published() if one.remark]
    lines += [
        "",
        *remarks,
        "",
        "A spread behind ± is the standard deviation over the sets. Every average and spread of arXiv 2408.00690 was "
        "computed again from the scores of the single sets, and agrees with what is printed to 0.01. The paper's "
        "ablations stand in [ablations](ablations.md#what-the-paper-found).",
        "",
    ]
    return "\n".join(lines)
