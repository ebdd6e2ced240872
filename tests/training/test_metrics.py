import json
from pathlib import Path

from embedsmith.training.metrics import read_metrics


def test_a_file_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1, "loss": 1.0}) + '\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 1.0}]
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_only_line_feeds_part_records(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "note": "a\u2028b\x85c"}\n{"step": 2, "no', encoding="utf-8")
    assert read_metrics(path) == [{"step": 1, "note": "a\u2028b\x85c"}]
    assert read_metrics(tmp_path / "none.jsonl") == []
