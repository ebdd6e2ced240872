"""`metrics.jsonl`: what a run told of itself, one JSON object a line, flushed at once; also handed to trackers."""

import json
from pathlib import Path
from typing import Annotated, Any

from accelerate import Accelerator
from pydantic import Field

from embedsmith.support import files
from embedsmith.support.errors import RunError
from embedsmith.support.json_parts import JsonParts
from embedsmith.training.checkpoint import Progress

METRICS_FILE = "metrics.jsonl"
Record = dict[str, Any]


class _Record(JsonParts):
    step: int
    elapsed_s: float | None = None
    loss: float | None = None
    dev_cosine_spearman: float | None = None
    dev_ci95: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None


class MetricsFile:
    """The file of a run, written by its main process alone.

    Args:
        path: of the file.
        progress: of a resumed run, where it goes on from; what was told behind that is dropped. None: a new run.
        accelerator: its trackers get every record too.

    Raises:
        RunError: as `read_metrics`.
    """

    def __init__(self, path: Path, *, progress: Progress | None, accelerator: Accelerator) -> None:
        self.path = path
        self.accelerator = accelerator
        self.before: list[Record] = []
        """What a resumed run had told; empty in other processes than the main one."""
        if accelerator.is_main_process:
            self.before = metrics_until(progress, path=path) if progress else []
            files.write_text(path, "".join(json.dumps(record) + "\n" for record in self.before))

    def append(self, record: Record) -> None:
        """Add a record; it has a `step`."""
        if self.accelerator.is_main_process:
            with files.naming(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        numbers = {name: value for name, value in record.items() if isinstance(value, float)}
        self.accelerator.log(numbers, step=record["step"])

    def sync(self) -> None:
        """Flush it to disk."""
        files.sync(self.path)


def metrics_until(progress: Progress, *, path: Path) -> list[Record]:
    """The records of what a run had done when it stood there: none of later steps, nor of an average, nor of the
    evaluation that it awaits; errors as `read_metrics`."""

    def is_before(record: Record) -> bool:
        if record["step"] == progress.step and progress.awaits_evaluation:
            return "loss" in record
        return bool(record["step"] <= progress.step) and "averaged_steps" not in record

    return [record for record in read_metrics(path) if is_before(record)]


def read_metrics(path: Path) -> list[Record]:
    """Records of a `metrics.jsonl`; a last line cut short by a crash is left out.

    Raises:
        RunError: another line is none of a run's; it is named.
    """
    *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else [""]
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            _Record.check(record)
        except ValueError as error:
            raise RunError(
                f"{path}, line {number}: {line[:80]!r} is no record of a run ({error}).\nThe file is damaged: put that "
                "line back, or remove it."
            ) from error
        records.append(record)
    return records
