"""Data larger than memory: triplets written in Parquet shards, and what starting to train on them takes.

python -m benchmarks.large_data write FOLDER --rows 50000000      shards of a million rows, from a seed
python -m benchmarks.large_data measure FOLDER [--model MODEL]    prints a line of a Markdown table

What is measured are commands in processes of their own, from their start to the end of their first step: the first one,
which makes the table; a second one; one that goes on with a run that was stopped. Before the last two all files are
put out of the system's memory, so that they are read from the disk. Memory is that of the process beyond one that
trains the same model on a thousand rows: its peak, and the part of it that is in no file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tables import table

SHARD_ROWS = 1_000_000
_NUM_WORDS, _WORD_LETTERS, _TEXT_WORDS = 4096, 7, 8
_FEW_ROWS = 1000
_STEPS, _STOPPED_AT = 60, 45
_HEADER = [
    *("rows", "GB of shards", "GB of table", "first start", "second start", "going on"),
    *("memory beyond the model", "of it in no file"),
]


def write_shards(folder: Path, *, num_rows: int, shard_rows: int = SHARD_ROWS, seed: int = 7) -> list[Path]:
    """Write rows `anchor`, `positive`, `negative` of eight made-up words behind the row's number; 75 bytes a text."""
    folder.mkdir(parents=True, exist_ok=True)
    words = np.full((_NUM_WORDS, 1 + _WORD_LETTERS), ord(" "), dtype=np.uint8)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", dtype=np.uint8)
    words[:, 1:] = np.random.default_rng(seed).choice(letters, size=(_NUM_WORDS, _WORD_LETTERS))
    paths = []
    for first in range(0, num_rows, shard_rows):
        numbers = np.arange(first, min(first + shard_rows, num_rows))
        rng = np.random.default_rng([seed, first + 1])
        columns = {role: _texts(role[0], numbers, words=words, rng=rng) for role in ("anchor", "positive", "negative")}
        paths.append(folder / f"{first // shard_rows:05d}.parquet")
        pq.write_table(
            pa.table(columns), paths[-1], compression="snappy", use_dictionary=False, row_group_size=SHARD_ROWS // 8
        )
    return paths


def _texts(letter: str, numbers: np.ndarray, *, words: np.ndarray, rng: np.random.Generator) -> pa.Array:
    """Texts of one length, put together without a Python object for any of them."""
    digits = (numbers[:, None] // 10 ** np.arange(9, -1, -1) % 10 + ord("0")).astype(np.uint8)
    picked = words[rng.integers(len(words), size=(len(numbers), _TEXT_WORDS), dtype=np.int32)]
    start = np.full((len(numbers), 1), ord(letter), dtype=np.uint8)
    data = np.concatenate([start, digits, picked.reshape(len(numbers), -1)], axis=1)
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * np.int32(data.shape[1])
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(data))


def measure(shards: Path, *, model: str, work: Path) -> list[str]:
    """Start, start again, stop, go on; a line of the table."""
    few = work / "few"
    write_shards(few, num_rows=_FEW_ROWS)
    base = _start(few, model=model, run=work / "base")
    first = _start(shards, model=model, run=work / "first")
    _forget(shards, work)
    second = _start(shards, model=model, run=work / "second")
    _forget(shards, work)
    going_on = _start(shards, model=model, run=work / "second", resume=True)
    later = (second, going_on)
    beyond = {key: max(one[key] for one in later) - base[key] for key in ("peak_bytes", "anonymous_bytes")}
    first_beyond = {key: first[key] - base[key] for key in beyond}
    print(json.dumps({"base": base, "first": first, "second": second, "going on": going_on}), file=sys.stderr)
    num_rows = sum(pq.read_metadata(path).num_rows for path in shards.glob("*.parquet"))
    size = sum(path.stat().st_size for path in shards.glob("*.parquet"))
    of_table = max(path.stat().st_size for path in (work / "cache" / "triplets").glob("*.arrow"))
    return [
        f"{num_rows:,}",
        f"{size / 1e9:.1f}",
        f"{of_table / 1e9:.1f}",
        *(f"{one['seconds']:,.0f} s" for one in (first, second, going_on)),
        *(f"{first_beyond[key] / 1e9:.2f}, {beyond[key] / 1e9:.2f} GB" for key in beyond),
    ]


def _start(shards: Path, *, model: str, run: Path, resume: bool = False) -> dict[str, float]:
    """One command in a process of its own: seconds to its first step, and its memory."""
    environment = {**os.environ, "EMBEDSMITH_CACHE": str(run.parent / "cache")}
    command = [sys.executable, "-m", "benchmarks.large_data", "start", str(shards), "--model", model, "--run", str(run)]
    done = subprocess.run(  # noqa: S603 (ours)
        [*command, *(["--resume"] if resume else [])], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.strip().rpartition("\n")[2]))


def _forget(*folders: Path) -> None:
    """Put the files of folders out of the system's memory, where it can."""
    os.sync()
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start(shards: Path, *, model: str, run: Path, resume: bool) -> dict[str, float]:
    """In the process of its own: train some steps, as `embedsmith train` does, and stop before the run is over."""
    import psutil

    from embedsmith.settings.recipe import load_config
    from embedsmith.support.display import TrainingDisplay
    from embedsmith.verbs.train import resume_run, train

    started_at = psutil.Process().create_time()
    seconds: list[float] = []

    class StoppedError(Exception):
        pass

    def look_at(_: object, record: dict[str, object]) -> None:
        if "loss" in record:
            seconds.append(time.time() - started_at)
            if record["step"] == (_STEPS if resume else _STOPPED_AT):
                raise StoppedError

    TrainingDisplay.update = look_at  # type: ignore[method-assign,assignment]
    settings = {"output_dir": str(run), "model.model": model, "data.train": f"[{shards}/*.parquet]", "dev": "none"}
    config = load_config(overrides={**settings, "max_steps": str(_STEPS), "save_steps": "20", "precision": "fp32"})
    with _most_memory() as most, suppress(StoppedError):
        resume_run(run) if resume else train(config)
    return {"seconds": seconds[0], **most}


@contextmanager
def _most_memory() -> Iterator[dict[str, int]]:
    """The most that this process took, of all kinds and of what is in no file, in a block; Linux only."""
    most = {"peak_bytes": 0, "anonymous_bytes": 0}
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            for key, name in (("peak_bytes", "VmHWM"), ("anonymous_bytes", "RssAnon")):
                most[key] = max(most[key], 1024 * int(lines[name].split()[0]))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        is_over.set()
        watcher.join()


def main() -> None:
    """Parse; write, measure, or be what is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "measure", "start"])
    parser.add_argument("folder", type=Path, help="of the shards")
    parser.add_argument("--rows", type=int, default=50 * SHARD_ROWS)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--work", type=Path, help="measure: an empty folder for table and runs; else a temporary one")
    parser.add_argument("--run", type=Path, help="start: the run's folder")
    parser.add_argument("--resume", action="store_true", help="start: go on with it")
    arguments = parser.parse_args()
    if arguments.what == "write":
        write_shards(arguments.folder, num_rows=arguments.rows)
    elif arguments.what == "start":
        print(json.dumps(start(arguments.folder, model=arguments.model, run=arguments.run, resume=arguments.resume)))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            work = arguments.work or Path(temporary)
            print(table(_HEADER, [measure(arguments.folder, model=arguments.model, work=work)]))


if __name__ == "__main__":
    main()
