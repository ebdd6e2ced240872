"""Published scores, each with the source it was read in, to stand beside what is measured here.

A figure that could not be opened in a source is not in `published.json`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from statistics import fmean

from embedsmith.records.results import EvaluationResult


@dataclass(frozen=True)
class Published:
    """One published result; scores are Spearman x 100 as printed.

    Attributes:
        base_models: hub ids of what was used or tuned.
        family: of these, all its generations together (`settings.families.line_of`).
        model: its usual name.
        method: what was done with it.
        stage: the same in a word or two: untrained, tuned.
        scores: mteb's task name -> score, where tasks were printed.
        average: as printed.
        average_over: the tasks it is over.
        spread: as printed behind a plus-minus, or None.
        title, url, place: where it was read.
        remark: what is unclear about it.
    """

    base_models: tuple[str, ...]
    family: str
    model: str
    method: str
    stage: str
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


@dataclass(frozen=True)
class Beside:
    """Published results of a model, or of its family, to stand beside what was measured.

    Attributes:
        rows: the results; before and after, where both were published.
        family: what they have in common with the model, if they are another's; None: they are the model's own.
        measured: (title, result) of what they stand beside.
    """

    rows: tuple[Published, ...]
    family: str | None
    measured: Sequence[tuple[str, EvaluationResult]]

    @property
    def tasks(self) -> dict[str, str]:
        """Tasks that were measured and published: name of the measured one -> mteb's."""
        known = {task for one in self.rows for task in one.scores}
        return {name: task_name(name) for name in self.measured[0][1].tasks if task_name(name) in known}

    @property
    def title(self) -> str:
        """Whose results they are, in a sentence."""
        models = ", ".join(self._models)
        others = "another model" if len(self._models) == 1 else "other models"
        whose = f"{others} of the {self.family} family: {models}" if self.family else models
        where = "" if self.tasks else "; none of the sets measured here is among them"
        return f"Published results of {whose}{where}"

    @property
    def _models(self) -> list[str]:
        return list(dict.fromkeys(one.model for one in self.rows))

    @property
    def sources(self) -> list[tuple[str, str, str]]:
        """(title, url, places) of every source, once."""
        places: dict[tuple[str, str], list[str]] = {}
        for one in self.rows:
            places.setdefault((one.title, one.url), []).append(one.place)
        return [(title, url, ", ".join(dict.fromkeys(found))) for (title, url), found in places.items()]

    def cells(self) -> list[list[str]]:
        """Header and lines: a set each, the average of these sets, and the averages as they were printed."""
        measured = [title for title, _ in self.measured] if self.tasks else []
        of_one = len(self._models) == 1
        lines = [["set", *(one.stage if of_one else f"{one.model}, {one.stage}" for one in self.rows), *measured]]
        for name, task in self.tasks.items():
            own = [f"{100 * result.tasks[name].cosine_spearman:.1f}" for _, result in self.measured]
            lines.append([name, *(_score(one.scores.get(task)) for one in self.rows), *own])
        if len(self.tasks) > 1:
            averages = [_mean([one.scores.get(task) for task in self.tasks.values()]) for one in self.rows]
            own = [
                f"{100 * fmean(result.tasks[name].cosine_spearman for name in self.tasks):.1f}"
                for _, result in self.measured
            ]
            lines.append([f"average of these {len(self.tasks)}", *map(_score, averages), *own])
        printed = [f"{one.average:.2f} of {len(one.average_over)}" for one in self.rows]
        return [*lines, ["average as printed", *printed, *([""] * len(measured))]]


def task_name(name: str) -> str:
    """mteb's name of a set: what a folder calls STSBenchmark-test is its STSBenchmark."""
    return name.removesuffix("-test")


def published_beside(
    measured: Sequence[tuple[str, EvaluationResult]], *, base_model: str, family: str | None
) -> Beside | None:
    """What was published of a model, else of its family where sets of theirs were measured; None: nothing.

    Args:
        measured: (title, result) of each model shown, all on the same tasks.
        base_model: what they build on: a hub id, or a folder that carries the last part of one as its name.
        family: see `settings.families.line_of`.
    """
    name = PurePath(base_model).name.lower()
    published = load_published()
    own = tuple(one for one in published if name in {PurePath(base).name.lower() for base in one.base_models})
    if own:
        return Beside(own, None, measured)
    found = Beside(tuple(one for one in published if one.family == family), family, measured)
    return found if found.rows and found.tasks else None


def load_published() -> list[Published]:
    """All of them."""
    records = json.loads(files("embedsmith.reporting").joinpath("published.json").read_text(encoding="utf-8"))
    return [
        Published(
            base_models=tuple(record["base_models"]),
            average_over=tuple(record["average_over"]),
            **record["source"],
            **{
                key: record[key]
                for key in ("family", "model", "method", "stage", "scores", "average", "spread", "remark")
            },
        )
        for record in records
    ]


def _score(score: float | None) -> str:
    return "–" if score is None else f"{score:.2f}"


def _mean(scores: Sequence[float | None]) -> float | None:
    """None where one is not known."""
    known = [score for score in scores if score is not None]
    return fmean(known) if len(known) == len(scores) else None


def published_markdown() -> str:
    """docs/published.md."""
    tasks = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS17", "STSBenchmark", "BIOSSES", "SICK-R")
    lines = [
        "# Published results",
        "",
        "Spearman × 100 as printed, each with the source it was read in. `embedsmith evaluate` and the report put "
        "those of a model, or of its family, beside what they measure.",
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
        "computed again from the scores of the single sets, and agrees with what is printed to 0.01. What the paper "
        "varies, and the same here: [the paper, table by table](paper.md).",
        "",
    ]
    return "\n".join(lines)
