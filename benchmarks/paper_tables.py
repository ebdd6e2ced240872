"""The paper's arms, its numbers beside ours: facts in tables, and what is written of them. No model here.

Spearman x 100. The paper's scores of single sets are `published.json`'s; those of which it prints an average alone
stand in `FOUND`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any

from embedsmith.reporting.published import load_published, task_name

NINE = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS17", "STSBenchmark", "BIOSSES", "SICK-R")
"""The paper's sets, by mteb's names."""
PAPER = "arXiv 2408.00690"
UNTRAINED = "untrained"
NO_PROMPT = "none"
PROMPTS = ("paper-p1", "paper-p2", "paper-p3")
ARMS = {
    "published": "minicpm-2b",
    "learning-rate-5e-5": "learning-rate-5e-5",
    "learning-rate-5e-4": "learning-rate-5e-4",
    "learning-rate-5e-3": "learning-rate-5e-3",
    "no-hard-negatives": "no-hard-negatives",
    "no-hard-negatives-5e-4": "no-hard-negatives-5e-4",
}
"""Arm -> its recipe in recipes/paper/."""
PROMPTED = "published"
"""The arm that the paper tries prompts on, at test only, besides the untrained model."""
VARIES = {
    "learning-rate-5e-4": ("learning-rate-5e-5", "published"),
    "learning-rate-5e-3": ("learning-rate-5e-5", "published"),
    "no-hard-negatives": ("published",),
    "no-hard-negatives-5e-4": ("learning-rate-5e-4",),
}
"""Arm -> what it is compared with: the first of them that is there."""


@dataclass(frozen=True)
class Found:
    """An average over the nine sets that the paper prints of MiniCPM-2B, and the arm here that stands beside it.

    Attributes:
        what, value: of the ablation.
        average: as printed, its spread over the sets included; "" where the paper has no such arm.
        table: of the paper.
        arms: the arm here: the first of them that is there; of none, the one that prompts were tried on.
        prompt: at test.
    """

    what: str
    value: str
    average: str
    table: str
    arms: tuple[str, ...]
    prompt: str = NO_PROMPT


_TUNED, _UNTUNED = "prompt at test, tuned model", "prompt, untrained model"
_P1, _P2, _P3 = (
    "P1, `This sentence: {text} means in one word: `",
    "P2, `This sentence {text} means: `",
    "P3, `{text} is: `",
)
FOUND = (
    Found("learning rate", "5e-3", "36.19 ± 8.91", "4", ("learning-rate-5e-3",)),
    Found("learning rate", "5e-4", "82.41 ± 5.01", "4", ("learning-rate-5e-4",)),
    Found("learning rate", "5e-5", "82.31 ± 5.27", "4", ("learning-rate-5e-5", "published")),
    Found(_TUNED, "none", "83.84", "5", ()),
    Found(_TUNED, _P1, "81.81", "5", (), "paper-p1"),
    Found(_TUNED, _P2, "83.03", "5", (), "paper-p2"),
    Found(_TUNED, _P3, "84.32", "5", (), "paper-p3"),
    Found(_UNTUNED, "none", "27.51", "5", (UNTRAINED,)),
    Found(_UNTUNED, "P1", "34.76", "5", (UNTRAINED,), "paper-p1"),
    Found(_UNTUNED, "P2", "26.92", "5", (UNTRAINED,), "paper-p2"),
    Found(_UNTUNED, "P3", "28.79", "5", (UNTRAINED,), "paper-p3"),
    Found("hard negatives", "with", "83.84 ± 4.27", "6", ("published",)),
    Found("hard negatives", "without", "81.97 ± 5.37", "6", ("no-hard-negatives",)),
    Found("hard negatives, 5e-4", "with", "", "", ("learning-rate-5e-4",)),
    Found("hard negatives, 5e-4", "without", "", "", ("no-hard-negatives-5e-4",)),
)
Results = Mapping[str, Any]
"""`results.json` of `python -m benchmarks.paper`."""


def place_of(name: str) -> int:
    """Where a set stands among the paper's; behind them if it is none."""
    return NINE.index(task_name(name)) if task_name(name) in NINE else len(NINE)


def results_page(results: Sequence[Results]) -> str:
    """All tables, for the folder of the runs."""
    parts = [("Scores", scores_table), ("Arms", arms_table), ("Steps", steps_table), ("Runs", runs_table)]
    return "\n\n".join(f"## {title}\n\n{text}" for title, table in parts if (text := table(results))) + "\n"


def scores_table(results: Sequence[Results]) -> str:
    """Set by set: the paper's models and the rerun of its code, untrained and trained, then ours."""
    measured = [_sets(one) for one in results if _sets(one)]
    sets = [*NINE, *(name for name in dict.fromkeys(chain(*measured)) if name not in NINE)]
    shared = [name for name in sets if measured and all(name in of_one for of_one in measured)]
    averaged = [shared, list(NINE)] if shared and shared != list(NINE) else [list(NINE)]
    rows = [
        [one.model, f"{one.stage}, [{one.place}]({one.url})", *_cells(one.scores, sets, _plain)]
        + [one.average_text if over == list(one.average_over) else _average(one.scores, over) for over in averaged]
        for one in load_published()
        if PAPER in one.method or "the paper's code" in one.method
    ]
    for one in results:
        for name, arm in one["arms"].items():
            scores = {task_name(task): score for task, score in arm["scores"][NO_PROMPT].items()}
            values = {task: 100 * score["cosine_spearman"] for task, score in scores.items()}
            rows.append(
                [one["model"], f"here: {arm_title(name, arm)}", *_cells(scores, sets, _interval)]
                + [_average(values, over) for over in averaged]
            )
    header = ["model", "what", *sets, *("average of " + (_words(over)) for over in averaged)]
    return _markdown(header, rows, num_left=2)


def _sets(one: Results) -> list[str]:
    """What a model was scored on, by mteb's names."""
    scores = one["arms"].get(UNTRAINED, {"scores": {}})["scores"].get(NO_PROMPT, {})
    return [task_name(name) for name in scores]


def _words(sets: Sequence[str]) -> str:
    return f"{len(sets)}" if sets == list(NINE) else f"the {len(sets)} measured here"


def arms_table(results: Sequence[Results]) -> str:
    """What the paper varies: its average of nine sets, our averages, and differences with their 95 % intervals."""
    rows = []
    for found in FOUND:
        ours = [cell for one in results for cell in _ours(found, one)]
        if found.average or any(ours):
            rows.append([found.what, found.value, found.average, found.table, *ours])
    header = ["what", "value", "paper, MiniCPM-2B, nine sets", "its table"]
    header += [title for one in results for title in (f"{one['model']}, {len(_sets(one))} sets", "difference")]
    return _markdown(header, rows, num_left=2)


def _ours(found: Found, one: Results) -> tuple[str, str]:
    arms = one["arms"]
    arm = next((arm for arm in found.arms or _prompted(one) if arm in arms), None)
    scores = arms[arm]["scores"].get(found.prompt) if arm else None
    if not scores:
        return "", ""
    average = f"{100 * fmean(score['cosine_spearman'] for score in scores.values()):.2f}"
    if not found.arms and arm != PROMPTED:
        average += f" ({arm})"
    difference = one["differences"].get(arm if found.prompt == NO_PROMPT else f"{arm}, {found.prompt}")
    # Of an arm that stands in two tables of the paper, the difference stands where it is the one that is varied.
    if difference is None or (found.prompt == NO_PROMPT and found.value in ("with", "none")):
        return average, ""
    lower, upper = (100 * bound for bound in difference["ci95"])
    return average, f"{100 * difference['difference']:+.1f} [{lower:+.1f}, {upper:+.1f}]"


def _prompted(one: Results) -> list[str]:
    """The arms that prompts were tried on, the paper's first."""
    found = [arm for arm in ARMS if PROMPTS[0] in one["arms"].get(arm, {"scores": {}})["scores"]]
    return found or [PROMPTED]


def steps_table(results: Sequence[Results]) -> str:
    """STSBenchmark-dev over the steps: a column for each run that was watched."""
    curves = {
        f"{one['model']}, {arm_title(name, arm)}": dict(arm["curve"])
        for one in results
        for name, arm in one["arms"].items()
        if arm.get("curve")
    }
    steps = sorted({step for curve in curves.values() for step in curve})
    rows = [
        [str(step), *(f"{100 * curve[step]:.1f}" if step in curve else "" for curve in curves.values())]
        for step in steps
    ]
    return _markdown(["step", *curves], rows, num_left=0) if rows else ""


def runs_table(results: Sequence[Results]) -> str:
    """Which runs these are, what they took, and the command that makes them."""
    header = ["model", "arm", "recipe", "learning rate", "batch", "steps", "warm-up", "hard negatives", "minutes"]
    rows = [
        [
            one["model"],
            name,
            f"`{arm['recipe']}`",
            f"{arm['learning_rate']:g}",
            str(arm["batch_size"]),
            str(arm["max_steps"]),
            str(arm["warmup_steps"]),
            "yes" if arm["use_hard_negatives"] else "no",
            f"{arm['seconds'] / 60:.1f}",
        ]
        for one in results
        for name, arm in one["arms"].items()
        if name != UNTRAINED
    ]
    made = [f"{one['model']}: {one['triplets']:,} triplets; {_machine(one)}. `{one['command']}`" for one in results]
    failed = [
        f"{one['model']}, {arm} failed: {' '.join(why.split())}"
        for one in results
        for arm, why in one["failures"].items()
    ]
    return "\n\n".join([*([_markdown(header, rows, num_left=3)] if rows else []), *made, *failed])


# ---- cells ----------------------------------------------------------------------------------------------------------


def arm_title(name: str, arm: Mapping[str, Any]) -> str:
    """What the tables call an arm: with its steps, as runs of several lengths may stand in one."""
    if name == UNTRAINED:
        return name
    return f"{'published settings' if name == 'published' else name}, {arm['max_steps']} steps"


def _machine(one: Results) -> str:
    machine = one["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads; {machine['software']}"


def _cells(scores: Mapping[str, Any], sets: Sequence[str], show: Callable[[Any], str]) -> list[str]:
    return [show(scores[name]) if name in scores else "" for name in sets]


def _plain(score: float) -> str:
    return f"{score:.2f}"


def _interval(score: Mapping[str, Any]) -> str:
    lower, upper = (100 * bound for bound in score["ci95"])
    return f"{100 * score['cosine_spearman']:.1f} [{lower:.1f}, {upper:.1f}]"


def _average(scores: Mapping[str, float], sets: Sequence[str]) -> str:
    """Over the sets shown, if all of them were scored."""
    return f"{fmean(scores[name] for name in sets):.2f}" if all(name in scores for name in sets) else ""


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]], *, num_left: int) -> str:
    bounds = ["---" if column < num_left else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, bounds, *rows))
