"""A chat model -> training triplets with instructions, after Wang et al. 2023 (arXiv 2401.00368).

    kinds of task -> tasks (thought up once, kept in OUT.tasks.jsonl) -> numbered requests -> answers, checked
    -> OUT, one JSON line for each triplet that is sound and new

Invariants: request n is the same whenever it is made, answers are taken in the order of their numbers, and a line is on
the disk before the next one is looked at; so a run that was killed goes on with the next number and ends as if it had
not been (as far as the endpoint answers alike). Cost: a request for each triplet, rejected ones besides, one for twenty
tasks.
"""

import json
import math
import os
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.answers import CUT_SHORT, EMPTY, UNFINISHED_THINKING, read_tasks, read_triplet
from embedsmith.data.chat import ChatEndpoint
from embedsmith.data.columns import text_fault
from embedsmith.data.normalise import normalise
from embedsmith.data.synthesis_prompts import (
    ANSWER_KEYS,
    TASK_TYPES,
    example_request,
    instruction_for,
    tasks_request,
)
from embedsmith.data.synthetic_files import read_tasks_file, take_up, tasks_path
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, DataError

_MAX_REJECTED_IN_A_ROW = 30
_TOLD_BEFORE = "told before"
_RAISE_LIMIT = "Let the endpoint give longer answers: a limit on their tokens is the usual reason."
_ADVICE = {
    EMPTY: _RAISE_LIMIT,
    CUT_SHORT: _RAISE_LIMIT,
    UNFINISHED_THINKING: f"{_RAISE_LIMIT} Or switch the model's thinking off.",
    _TOLD_BEFORE: "Ask for more kinds with --task-types, for more --languages, or at a higher --temperature.",
}
_KEYS = ", ".join(ANSWER_KEYS)
_SHOWN = 200


@dataclass(frozen=True)
class Synthesis:
    """What is asked for; a file that was begun with one is not continued with another.

    Attributes:
        model: as the endpoint calls it.
        task_types: kinds of task, of `TASK_TYPES`, each as often as the others.
        languages: names as the model knows them; translations need two.
        seed: of what is asked.
        temperature: of the answers.
    """

    model: str
    task_types: tuple[str, ...]
    languages: tuple[str, ...]
    seed: int
    temperature: float

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.task_types if kind not in TASK_TYPES]
        if unknown or not self.task_types:
            raise ConfigError(
                f"--task-types names {', '.join(unknown) or 'none'}; it may name {', '.join(TASK_TYPES)}."
            )
        if "bitext" in self.task_types and len(set(self.languages)) < 2:
            raise ConfigError("--task-types bitext needs two --languages.\nName another one, or leave bitext away.")
        if faults := [f"{name!r} {fault}" for name in self.languages if (fault := text_fault(name))]:
            raise ConfigError(f"--languages: {', '.join(faults)}.\nName languages as the model knows them.")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"--temperature is {self.temperature}; it must be a number from 0 on.")


@dataclass(frozen=True)
class Outcome:
    """What a run came to: triplets in the file, requests made now, and why answers were rejected."""

    num_triplets: int
    num_requests: int
    rejected: Counter[str]


def synthesize(
    synthesis: Synthesis,
    *,
    endpoint: ChatEndpoint,
    out: Path,
    num_triplets: int,
    concurrency: int = 8,
    max_requests: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Ask until `out` holds `num_triplets`, or `max_requests` were made.

    Args:
        synthesis: what is asked for.
        endpoint: who is asked.
        out: JSON lines; goes on where it was.
        num_triplets: of the whole file.
        concurrency: requests at a time.
        max_requests: in this run; None: no limit.
        on_progress: called with the number of triplets in the file.

    Raises:
        ConfigError: the file was begun with other settings.
        DataError: `out` holds what this command did not write (it is left as it is), the endpoint fails, or too many
            answers in a row are unusable.
        RunError: `out` cannot be written.
    """
    begun = take_up(out)
    rows = begun.rows
    tasks = _think_up(synthesis, endpoint=endpoint, path=tasks_path(out))
    seen = {normalise(row["anchor"]) for row in rows}
    first = rows[-1]["request"] + 1 if rows else 0
    if begun.whole_bytes < begun.size_bytes:
        os.truncate(out, begun.whole_bytes)
    rejected: Counter[str] = Counter()
    if len(rows) >= num_triplets:
        return Outcome(len(rows), 0, rejected)
    num_requests, in_a_row = 0, list[str]()
    with out.open("a", encoding="utf-8") as file:
        for number, row, answer, fault in _answers(
            synthesis, tasks, endpoint=endpoint, first=first, concurrency=concurrency, limit=max_requests
        ):
            num_requests += 1
            if not fault and normalise(row["anchor"]) in seen:
                fault = _TOLD_BEFORE
            if fault:
                rejected[fault] += 1
                in_a_row.append(fault)
                _give_up_if_hopeless(in_a_row, answer)
                continue
            in_a_row = []
            seen.add(normalise(row["anchor"]))
            rows.append({**row, "request": number})
            file.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
            file.flush()
            if on_progress:
                on_progress(len(rows))
            if len(rows) >= num_triplets:
                break
    return Outcome(len(rows), num_requests, rejected)


def _answers(
    synthesis: Synthesis,
    tasks: dict[str, list[str]],
    *,
    endpoint: ChatEndpoint,
    first: int,
    concurrency: int,
    limit: int | None,
) -> Iterator[tuple[int, dict[str, Any], str, str]]:
    """(number, row, the answer as it came, what is wrong with it) of each request, in the order of their numbers."""
    pool = ThreadPoolExecutor(max_workers=concurrency)
    waiting: deque[tuple[int, dict[str, Any], Future[str]]] = deque()
    number = first
    try:
        while True:
            while len(waiting) < concurrency and (limit is None or number < first + limit):
                frame, request = _request(synthesis, tasks, number=number)
                asked = pool.submit(endpoint.ask, request, seed=synthesis.seed + number)
                waiting.append((number, frame, asked))
                number += 1
            if not waiting:
                return
            done, frame, asked = waiting.popleft()
            answer = asked.result()
            texts, fault = read_triplet(answer)
            yield done, {**frame, **texts}, answer, fault
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _request(synthesis: Synthesis, tasks: dict[str, list[str]], *, number: int) -> tuple[dict[str, Any], str]:
    """The n-th request, and what its row says besides the texts."""
    stream = random.Random(f"{synthesis.seed}-{number}")  # noqa: S311 (no secret)
    kind = synthesis.task_types[number % len(synthesis.task_types)]
    first = second = stream.choice(synthesis.languages)
    if kind == "bitext":
        second = stream.choice([language for language in synthesis.languages if language != first])
    task = stream.choice(tasks[kind]) if TASK_TYPES[kind].needs_tasks else ""
    languages = (first, second)
    frame = {
        "instruction": instruction_for(kind, task=task, languages=languages),
        "task_type": kind,
        "language": first if first == second else f"{first}-{second}",
    }
    return frame, example_request(kind, task=task, languages=languages, stream=stream)


def _think_up(synthesis: Synthesis, *, endpoint: ChatEndpoint, path: Path) -> dict[str, list[str]]:
    """Tasks of each kind that needs them, asked for once and kept beside the settings."""
    settings = json.loads(json.dumps(asdict(synthesis)))
    kept = read_tasks_file(path) if path.exists() else {"settings": settings, "tasks": {}}
    if kept["settings"] != settings:
        changed = [f"{key} was {kept['settings'].get(key)!r}, is {value!r}" for key, value in settings.items()
                   if kept["settings"].get(key) != value]  # fmt: skip
        raise ConfigError(
            f"{path} was begun with other settings: {'; '.join(changed)}.\nUse the same ones, or another --out."
        )
    for kind in synthesis.task_types:
        if TASK_TYPES[kind].needs_tasks and kind not in kept["tasks"]:
            request = tasks_request(kind, language=" and ".join(synthesis.languages))
            answer = endpoint.ask(request, seed=synthesis.seed)
            tasks, fault = read_tasks(answer)
            if fault:
                raise DataError(
                    f"Asked for tasks of the kind {kind}, the model gave none: {fault}. "
                    f"It answered: {_shorten(answer)}\n"
                    f"{_ADVICE.get(fault, 'A JSON list of texts was asked for.')}"
                )
            kept["tasks"][kind] = tasks
        files.write_json(path, kept)
    return dict(kept["tasks"])


def _give_up_if_hopeless(faults: Sequence[str], answer: str) -> None:
    if len(faults) >= _MAX_REJECTED_IN_A_ROW:
        counted = Counter(faults).most_common()
        raise DataError(
            f"{len(faults)} answers in a row were unusable, most of them: "
            f"{', '.join(f'{fault} ({count})' for fault, count in counted)}. The last one: {_shorten(answer)}\n"
            f"{_ADVICE.get(counted[0][0], f'A JSON object with {_KEYS} was asked for.')} What was written stays."
        )


def _shorten(answer: str) -> str:
    return repr(answer) if len(answer) <= 2 * _SHOWN else f"{answer[:_SHOWN]!r} ... {answer[-_SHOWN:]!r}"
