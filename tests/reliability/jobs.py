"""Jobs that are killed and gone on with: what is called, at which moments, and what must be the same at the end."""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chat_server import ChatServer
from tests.reliability.killing import Command, Event, Moment
from tests.run_folders import read_folder
from tests.tiny import save_model, write_pairs, write_triplets

STEP = Event("step", function="embedsmith.training.loop:take_step")
EVALUATION = Event("evaluation", function="embedsmith.verbs.train:score_dev")
CHECKPOINT = Event("checkpoint's files", path=r"/checkpoints/")
BEST = Event("best adapter's files", path=r"/\.?adapter[./]|/adapter$")
AVERAGE = Event("states for the average", path=r"/late/")
METRICS = Event("run's other files", path=r"/(metrics\.jsonl|run\.yaml|outcome\.json|README\.md)")
CONVERTING = Event("table's files", path=r"/cache/triplets/|/cache/.*\.arrow")
TEACHER = Event("teacher's vectors", path=r"/cache/vectors/")
SWEEP_FILES = Event("sweep's files", path=r"/s/(sweep|runs/[^/]*/result)")
ANSWER = Event("answer", function="embedsmith.data.synthesize:read_triplet")
ENCODING = Event("encoding", path=r"vectors")
SHARDS = Event("shards and manifest", path=r"/out/[^.]|/out/\.[^l]")

_TRAIN = (
    *("train", "--output_dir", "run", "--model.model", "m", "--data.train", "t.tsv", "--dev", "d.tsv"),
    *("--precision", "fp32", "--batch_size", "6", "--max_steps", "6", "--eval_steps", "2", "--learning_rate", "1e-2"),
)
_SWEEP = (
    *("sweep", "--config", "recipe.yaml", "--grid", "learning_rate=0.01,0.001", "--output-dir", "s"),
    *("--max_steps", "4", "--eval_steps", "2", "--batch_size", "6", "--precision", "fp32"),
)
_SHARDS = ("encode", "m", "texts.txt", "--out", "out", "--shard-rows", "64", "--vector-precision", "int8")


@dataclass(frozen=True)
class Job:
    """Something that is killed.

    Attributes:
        name: for people to read.
        arguments: of the command.
        events: at which it is killed.
        result: a folder -> what must be the same at the end.
    """

    name: str
    arguments: tuple[str, ...]
    events: tuple[Event, ...]
    result: Callable[[Path], dict[str, Any]]

    def going_on(self, folder: Path) -> tuple[str, ...]:
        """The command that goes on with it: as its pages say."""
        if self.arguments[0] == "train" and (folder / "run" / "run.yaml").exists():
            return ("train", "--resume", "run")
        return self.arguments


def run_result(folder: Path) -> dict[str, Any]:
    """All that a run left."""
    return read_folder(folder / "run")


def _sweep_result(folder: Path) -> dict[str, Any]:
    """Its table and all runs; the page's pictures are named anew each time."""
    return {name: value for name, value in read_folder(folder / "s").items() if name != "sweep.html"}


def _files_named(*patterns: str) -> Callable[[Path], dict[str, Any]]:
    def read(folder: Path) -> dict[str, Any]:
        return {path.name: path.read_bytes() for pattern in patterns for path in sorted(folder.glob(pattern))}

    return read


def make_jobs(url: str) -> dict[str, Job]:
    """All of them, by name; `url` is where the chat server answers."""
    average = (*_TRAIN, "--keep", "average", "--average_last", "2")
    taught = (*_TRAIN, "--teacher", "m2", "--embedding_weight", "0.5")
    synthesize = ("data", "synthesize", "--endpoint", url, "--model", "m", "--num-triplets", "12", "--out", "x.jsonl")
    jobs = (
        Job("train", _TRAIN, (STEP, EVALUATION, CHECKPOINT, BEST, METRICS, CONVERTING), run_result),
        Job("train, average", average, (AVERAGE, BEST, STEP), run_result),
        Job("train, teacher", taught, (TEACHER, CHECKPOINT), run_result),
        Job("sweep", _SWEEP, (STEP, CHECKPOINT, SWEEP_FILES), _sweep_result),
        Job("data synthesize", (*synthesize, "--concurrency", "2"), (ANSWER,), _files_named("x.*")),
        Job("encode, shards", _SHARDS, (SHARDS,), lambda folder: read_folder(folder / "out")),
        Job("encode", ("encode", "m", "texts.txt", "--out", "vectors.npy"), (ENCODING,), _files_named("vectors*")),
    )
    return {job.name: job for job in jobs}


def make_stage(folder: Path) -> Path:
    """Models and data that all jobs work on."""
    folder.mkdir()
    save_model("llama", folder / "m")
    save_model("qwen2", folder / "m2")
    write_triplets(folder / "t.tsv", num_rows=60)
    write_pairs(folder / "d.tsv")
    texts = [f"w{number % 200} cat w{number * 7 % 200}" for number in range(300)]
    (folder / "texts.txt").write_text("\n".join(texts) + "\n")
    recipe = {"output_dir": "unused", "model": {"model": "m"}, "data": {"train": ["t.tsv"]}}
    (folder / "recipe.yaml").write_text(json.dumps({**recipe, "evaluation": {"dev": "d.tsv"}}))
    return folder


@contextmanager
def chat_server() -> Iterator[str]:
    """Where one answers."""
    server = ChatServer()
    try:
        yield server.url
    finally:
        server.server.shutdown()
        server.server.server_close()


@dataclass(frozen=True)
class Reference:
    """A job that nothing happened to: its result, and how often each event happened."""

    job: Job
    result: dict[str, Any]
    counts: dict[str, int]


def run_reference(job: Job, *, stage: Path) -> Reference:
    """Run a job to its end. Compiled kernels go to the stage: they take longer than all the rest."""
    folder = copy_stage(stage)
    command = Command(job.arguments, folder=folder, count=job.events)
    assert command.wait() == 0, command.said
    result = job.result(folder)
    assert result, f"{job.name} left nothing"
    kernels, kept = (one / "cache" / "kernels" for one in (folder, stage))
    if kernels.exists() and not kept.exists():
        shutil.copytree(kernels, kept)
    return Reference(job, result, command.counts)


def copy_stage(stage: Path) -> Path:
    """A folder to work in, at the same place each time: some files hold its name."""
    folder = stage.with_name("work")
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(stage, folder))


@dataclass(frozen=True)
class Killed:
    """What became of a job that was killed: the places of the kills, and what differs at the end."""

    job: str
    moments: tuple[str, ...]
    num_kills: int
    differing: tuple[str, ...]
    elapsed_s: float

    @property
    def is_survived(self) -> bool:
        """Whether it was killed, and ended as if it had not been."""
        return self.num_kills > 0 and not self.differing


def kill(reference: Reference, *, moments: Sequence[Moment], stage: Path) -> Killed:
    """Run a job, kill it at each of the moments in turn, and let it end; what it left stays for a look."""
    job, started = reference.job, time.perf_counter()
    folder = copy_stage(stage)
    arguments, num_kills = job.arguments, 0
    for moment in moments:
        command = Command(arguments, folder=folder, kill_at=moment)
        code = command.wait()
        assert code in (0, -9), command.said
        num_kills += code == -9
        arguments = job.going_on(folder)
    command = Command(arguments, folder=folder)
    assert command.wait() == 0, command.said
    result = job.result(folder)
    names = sorted({*result, *reference.result})
    differing = tuple(name for name in names if result.get(name) != reference.result.get(name))
    return Killed(job.name, tuple(map(str, moments)), num_kills, differing, time.perf_counter() - started)


def draw_moment(reference: Reference, event: Event, *, stream: random.Random) -> Moment:
    """Any moment of an event: before it, or some way into it."""
    count = reference.counts[event.name]
    assert count, f"{event.name} does not happen in {reference.job.name}"
    delay_s = stream.choice([0.0, stream.uniform(0, 0.02)])
    return Moment(event, stream.randint(1, count), delay_s)
