"""Tuned models beside what is free: scores with intervals, paired differences, and speed, on the same files in one run.

python -m benchmarks.quality contestants.yaml --sts sts --out results/quality

contestants.yaml is a list; the first is what all others are compared with:

    - label: our recipe                    # for people
      column: NLI triplets alone           # what it has learned from; columns are never mixed
      models: [runs/seed7, runs/seed8]     # any MODEL; several are seeds of one recipe
    - label: untrained, best prompt
      column: untrained
      models: [smollm2-135m]
      prompt: pretended-cot                # options of `embedsmith evaluate`: prompt, end_token, pooling
      end_token: false

--out gets evaluations/ (files that `embedsmith compare` takes), comparison.json, and of it a table, comparison.md, and
a picture, comparison.svg. What is scored already is not scored again, as long as the model is the same. Encoding is
timed in rounds in which every model has its turn.
"""

import argparse
import dataclasses
import logging
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from benchmarks.machine import processor_name
from benchmarks.quality_page import comparison_svg, comparison_table
from benchmarks.texts import SEED
from embedsmith.evaluation.saved import load_evaluation, save_evaluation
from embedsmith.evaluation.sts import load_local_tasks
from embedsmith.model.embedding_model import EmbeddingModel, load_embedding_model
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.records.results import EvaluationResult
from embedsmith.settings.choices import Pooling
from embedsmith.support import files
from embedsmith.support.allocator import keep_freed_memory
from embedsmith.verbs.compare import compare_models
from embedsmith.verbs.evaluate import evaluate

FIVE = ("STS12", "STS14", "STS15", "STSBenchmark-test", "SICK-R")
RESULTS_FILE = "comparison.json"
console = Console(highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A line of the comparison; see the module."""

    label: str
    column: str
    models: list[str]
    prompt: str | None = None
    end_token: bool | None = None
    pooling: Pooling | None = None

    @property
    def options(self) -> dict[str, Any]:
        """How its texts are embedded, where not as the model says itself."""
        return {"prompt": self.prompt, "end_token": self.end_token}


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, compare and time all contestants."""
    logging.basicConfig(format="%(message)s")
    keep_freed_memory()
    options = _parse(arguments)
    contestants = read_contestants(options.contestants)
    places = {one.label: _score(one, options=options) for one in contestants}
    seconds = time_encoding(
        [(one.label, _load(one)) for one in contestants], _sentences(options), rounds=options.rounds
    )
    lines = [_line(one, places[one.label], seconds[one.label], options=options) for one in contestants]
    names = [",".join(map(str, paths)) for paths in places.values()]
    for line, comparison in zip(lines[1:], compare_models(names, tasks=options.tasks), strict=True):
        line["difference"] = comparison.average.to_json()
    found = {
        "tasks": options.tasks,
        "sentences": options.num_sentences,
        "rounds": options.rounds,
        "machine": {"processor": processor_name(), "threads": torch.get_num_threads()},
        "contestants": lines,
    }
    files.write_json(options.out / RESULTS_FILE, found)
    files.write_text(options.out / "comparison.md", comparison_table(found))
    files.write_text(options.out / "comparison.svg", comparison_svg(found))
    print(comparison_table(found))


def read_contestants(path: Path) -> list[Contestant]:
    """The list in a file; SystemExit names what is wrong with it."""
    try:
        contestants = [Contestant(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    except TypeError as error:
        raise SystemExit(f"{path}: {error}") from None
    labels = [one.label for one in contestants]
    if len(contestants) < 2 or len(set(labels)) < len(labels):
        raise SystemExit(f"{path}: a comparison needs two contestants or more, each with a label of its own")
    return [dataclasses.replace(one, pooling=Pooling(one.pooling) if one.pooling else None) for one in contestants]


def time_encoding(
    models: Sequence[tuple[str, EmbeddingModel]], sentences: list[str], *, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each round by label. In a round every model has its turn; one round goes before and is not counted."""
    seconds: dict[str, list[float]] = {label: [] for label, _ in models}
    for counted in [False] + [True] * rounds:
        for label, model in models:
            started = time.perf_counter()
            model.encode(sentences)
            if counted:
                seconds[label].append(time.perf_counter() - started)
    return seconds


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("contestants", type=Path, help="the list, in YAML")
    parser.add_argument("--sts", type=Path, default=Path("sts"), help="folder of similarity sets")
    parser.add_argument("--tasks", nargs="+", default=list(FIVE), help=f"default: {' '.join(FIVE)}")
    parser.add_argument("--num-sentences", type=int, default=500, help="that are timed, of the first task's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/quality"))
    return parser.parse_args(arguments)


def _score(contestant: Contestant, *, options: argparse.Namespace) -> list[Path]:
    """Evaluate each of its models on the tasks; returns the files."""
    folder = options.out / "evaluations"
    paths = []
    for number, model in enumerate(contestant.models):
        path = folder / f"{contestant.label.replace(' ', '-').replace('/', '-')}-{number}.json"
        paths.append(path)
        if path.exists() and _is_of(load_evaluation(path), model, tasks=options.tasks):
            continue
        console.print(f"{contestant.label}: {model}", markup=False)
        poolings = [contestant.pooling] if contestant.pooling else []
        scored = evaluate(model, data=options.sts, tasks=options.tasks, poolings=poolings, **contestant.options)
        folder.mkdir(parents=True, exist_ok=True)
        save_evaluation(path, next(iter(scored.values())))
    return paths


def _is_of(result: EvaluationResult, model: str, *, tasks: Sequence[str]) -> bool:
    weights = (result.embedding or {}).get("weights")
    return weights == list(fingerprint_model(model)) and set(result.tasks) >= set(tasks)


def _load(contestant: Contestant) -> EmbeddingModel:
    """The first of its models, as it is scored."""
    return load_embedding_model(contestant.models[0], pooling=contestant.pooling, **contestant.options)


def _sentences(options: argparse.Namespace) -> list[str]:
    (pairs,) = load_local_tasks(options.sts, options.tasks[:1]).values()
    distinct = list(dict.fromkeys([*pairs.sentence1, *pairs.sentence2]))
    generator = torch.Generator().manual_seed(SEED)
    return [distinct[index] for index in torch.randperm(len(distinct), generator=generator)[: options.num_sentences]]


def _line(
    contestant: Contestant, paths: Sequence[Path], seconds: Sequence[float], *, options: argparse.Namespace
) -> dict[str, Any]:
    """What is kept of one contestant: of several seeds each score's mean, with all of them beside it."""
    results = [load_evaluation(path) for path in paths]
    scores = {task: [result.tasks[task].cosine_spearman for result in results] for task in options.tasks}
    averages = [statistics.fmean(scores[task][seed] for task in options.tasks) for seed in range(len(results))]
    return {
        "label": contestant.label,
        "column": contestant.column,
        "scores": {task: statistics.fmean(of_seeds) for task, of_seeds in scores.items()},
        "average": statistics.fmean(averages),
        "averages": averages,
        "sentences_per_s": options.num_sentences / statistics.median(seconds),
    }


if __name__ == "__main__":
    main()
