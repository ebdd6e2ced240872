"""Any value in the place of another one in a small file: the command that reads it ends well, or with an error of ours.

Four changes of each file; `pytest --hypothesis-profile search tests/faults/test_changed_values.py` makes forty others.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedsmith.cli import run_command

READERS = {
    "runs/r/adapter/embedding.json": "evaluate runs/r --data sts",
    "runs/r/adapter/adapter_config.json": "evaluate runs/r --data sts",
    "runs/r/metrics.jsonl": "report runs/r --out page.html --no-training-data",
    "runs/r/outcome.json": "card runs/r --results results.json",
    "stopped/checkpoints/inputs.json": "train --resume stopped",
    "stopped/metrics.jsonl": "train --resume stopped",
    "results.json": "compare of-base.json results.json",
    "corpus/manifest.json": "search base corpus cat --store shards",
    "corpus/ranges.json": "encode base texts.txt --out corpus --shard-rows 8 --vector-precision int8",
    "average/adapter/embedding.json": "evaluate average --data sts",
}
"""File -> what reads it."""
OTHERS = (None, True, -1, 0, 2**70, 1e300, float("inf"), float("nan"), "", "x", "\ud800", [], [[1]], {}, {"a": 1})
Place = tuple[str | int, ...]


def _places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Where values stand in one of JSON, of long lists in their first items."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for name, one in inner:
        yield from _places(one, (*at, name))


def _changed(value: Any, at: Place, other: Any) -> Any:
    if not at:
        return other
    whole = copy.deepcopy(value)
    holder = whole
    for name in at[:-1]:
        holder = holder[name]
    holder[at[-1]] = other
    return whole


@pytest.mark.parametrize("command", dict.fromkeys(READERS.values()))
def test_unchanged_files_are_read(command: str, work: Path) -> None:
    assert run_command(command.split()) == 0


@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=settings.default.max_examples // 25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_changed_value_is_read_or_refused(
    name: str, data: st.DataObject, work: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _restore(work, whole, Path(name).parts[0])
    text = (whole / name).read_text(encoding="utf-8")
    lines = text.rstrip("\n").split("\n") if name.endswith(".jsonl") else [text]
    number = data.draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    at = data.draw(st.sampled_from(list(_places(value))))
    lines[number] = json.dumps(_changed(value, at, data.draw(st.sampled_from(OTHERS))))
    Path(name).write_text("\n".join([*lines, ""]), encoding="utf-8")
    code = run_command(READERS[name].split())
    told = capsys.readouterr().err
    assert code in (0, 2), told
    assert "Traceback" not in told
    assert told.strip() or code == 0


def _restore(work: Path, whole: Path, name: str) -> None:
    if (work / name).is_dir():
        shutil.rmtree(work / name)
        shutil.copytree(whole / name, work / name)
    else:
        shutil.copy(whole / name, work / name)
