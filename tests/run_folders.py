"""What a run left, for comparing it with what another one left."""

import json
from pathlib import Path
from typing import Any

# All that may differ: how long it took, how fast it was, the memory it needed.
TIMES = {"elapsed_s", "tokens_per_s", "peak_bytes"}
HOLD_TIMES = {"metrics.jsonl", "outcome.json", "progress.json", "result.json"}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return value


def read_folder(folder: Path) -> dict[str, Any]:
    """Files as bytes, those that hold times as values without them."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".jsonl":
            found[name] = [without_times(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name == "SHA256SUMS":
            found[name] = [line for line in path.read_text().splitlines() if not line.endswith("progress.json")]
        else:
            found[name] = without_times(json.loads(path.read_text())) if path.name in HOLD_TIMES else path.read_bytes()
    return found
