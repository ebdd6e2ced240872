"""A chat model -> training triplets with instructions, after Wang et al. 2023 (arXiv 2401.00368).

    kinds of task -> tasks (thought up once, kept in OUT.tasks.jsonl) -> numbered requests -> answers, checked
    -> OUT, one JSON line for each triplet that is sound and new

Invariants: request n is the same whenever it is made, answers are taken in the order of their numbers, and a line is on
the disk before the next one is looked at; so a run that was killed goes on with the next number and ends as if it had
not been (as far as the endpoint answers alike). Cost: a request for each triplet, rejected ones besides, one for twenty
tasks.
"""

import json
import random
import re
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.chat import ChatEndpoint
from embedsmith.data.columns import text_fault
from embedsmith.data.synthesis_prompts import (
    ANSWER_KEYS,
    TASK_TYPES,
    example_request,
    instruction_for,
    tasks_request,
)
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, DataError

_MAX_REJECTED_IN_A_ROW = 30
_MAX_CHARACTERS = 20_000
_FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)


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
        DataError: the endpoint fails, or too many answers in a row are unusable.
    """
    rows = _take_up(out)
    tasks = _think_up(synthesis, endpoint=endpoint, path=out.with_name(f"{out.stem}.tasks.jsonl"))
    seen = {key for row in rows for key in _keys_of(row)}
    first = rows[-1]["request"] + 1 if rows else 0
    rejected: Counter[str] = Counter()
    if len(rows) >= num_triplets:
        return Outcome(len(rows), 0, rejected)
    num_requests, in_a_row = 0, 0
    with out.open("a", encoding="utf-8") as file:
        for number, row, answer, fault in _answers(
            synthesis, tasks, endpoint=endpoint, first=first, concurrency=concurrency, limit=max_requests
        ):
            num_requests += 1
            if not fault and seen & _keys_of(row):
                fault = "told before"
            if fault:
                rejected[fault] += 1
                in_a_row += 1
                _give_up_if_hopeless(in_a_row, rejected, answer)
                continue
            in_a_row = 0
            seen |= _keys_of(row)
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
            texts, fault = _read_triplet(answer)
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
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"settings": settings, "tasks": {}}
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
            tasks = _parse(answer)
            usable = isinstance(tasks, list) and [task for task in tasks if text_fault(task) is None]
            if not usable:
                raise DataError(f"Asked for tasks of the kind {kind}, the model answered: {answer[:200]!r}\n"
                                "It does not give JSON lists; try a larger model.")  # fmt: skip
            kept["tasks"][kind] = list(dict.fromkeys(usable))
        files.write_json(path, kept)
    return dict(kept["tasks"])


def _take_up(out: Path) -> list[dict[str, Any]]:
    """Rows of a file begun earlier; a last line cut short is dropped from it."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        return []
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    if whole != lines:
        files.write_text(out, "".join(whole))
    try:
        rows = [json.loads(line) for line in whole]
        assert all(isinstance(row["request"], int) and row.keys() >= set(ANSWER_KEYS) for row in rows)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise DataError(f"{out} was not written by this command.\nChoose another --out.") from None
    return rows


def _read_triplet(answer: str) -> tuple[dict[str, str], str]:
    """The texts of an answer, and what is wrong with them ("" if nothing)."""
    value = _parse(answer)
    if not isinstance(value, dict):
        return {}, "no JSON object"
    texts = {key: value.get(key) for key in ANSWER_KEYS}
    for key, text in texts.items():
        if fault := text_fault(text):
            return {}, f"{key} {fault.split(',')[0]}"
        if len(str(text)) > _MAX_CHARACTERS:
            return {}, f"{key} too long"
    sound = {key: str(text).strip() for key, text in texts.items()}
    if len({_normalize(text) for text in sound.values()}) < len(sound):
        return {}, "two texts alike"
    return sound, ""


def _parse(answer: str) -> Any:
    fenced = _FENCE.match(answer)
    try:
        return json.loads(fenced.group(1) if fenced else answer)
    except ValueError:
        return None


def _give_up_if_hopeless(in_a_row: int, rejected: Counter[str], answer: str) -> None:
    if in_a_row >= _MAX_REJECTED_IN_A_ROW:
        reason, _ = rejected.most_common(1)[0]
        raise DataError(
            f"{in_a_row} answers in a row were unusable, most of them: {reason}. The last one: {answer[:200]!r}\n"
            "Try a larger model or another --temperature. What was written stays."
        )


def _keys_of(row: dict[str, Any]) -> set[Sequence[str]]:
    """What makes a triplet the same as another."""
    return {_normalize(row["anchor"])}


def _normalize(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
