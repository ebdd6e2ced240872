"""Rows of data, as files."""

import json
from pathlib import Path


def write_jsonl(path: Path, *rows: dict[str, object]) -> str:
    """Write rows as JSON lines; the file's name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def scored_rows(*scores: object) -> list[dict[str, object]]:
    """A pair for each score."""
    return [{"sentence1": f"a{n}", "sentence2": "b", "score": score} for n, score in enumerate(scores)]
