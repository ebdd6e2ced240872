"""`metrics.jsonl`: what a run told of itself, one JSON object a line, flushed at once; also handed to trackers."""

import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator

METRICS_FILE = "metrics.jsonl"
Record = dict[str, Any]


class MetricsFile:
    """The file of a run, written by its main process alone.

    Args:
        path: of the file.
        from_step: of a resumed run, the step it goes on from; records of later ones are dropped, and that of an
            average, which is made behind the last step.
        accelerator: its trackers get every record too.
    """

    def __init__(self, path: Path, *, from_step: int, accelerator: Accelerator) -> None:
        self.path = path
        self.accelerator = accelerator
        if accelerator.is_main_process:
            records = read_metrics(path) if from_step else []
            kept = [one for one in records if one["step"] <= from_step and "averaged_steps" not in one]
            path.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")

    def append(self, record: Record) -> None:
        """Add a record; it has a `step`."""
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        numbers = {name: value for name, value in record.items() if isinstance(value, float)}
        self.accelerator.log(numbers, step=record["step"])


def read_metrics(path: Path) -> list[Record]:
    """Records of a `metrics.jsonl`; a last line cut short by a crash is left out."""
    *lines, _ = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    return [json.loads(line) for line in lines]
