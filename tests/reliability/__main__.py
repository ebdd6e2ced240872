"""Forty kills at moments drawn at random; each must end as if it had not been: `make test-reliability`.

python -m tests.reliability              forty kills, with a seed of its own, which is printed
python -m tests.reliability --seed 5     the same ones again
"""

import argparse
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.reliability import jobs
from tests.reliability.jobs import Killed, Reference, chat_server, draw_moment, kill, make_jobs, make_stage
from tests.reliability.killing import Event

PLAN: dict[str, dict[Event, int]] = {
    "train": {
        jobs.STEP: 5,
        jobs.EVALUATION: 4,
        jobs.CHECKPOINT: 6,
        jobs.BEST: 4,
        jobs.METRICS: 2,
        jobs.CONVERTING: 3,
    },
    "train, average": {jobs.AVERAGE: 2, jobs.BEST: 1},
    "train, teacher": {jobs.TEACHER: 2},
    "sweep": {jobs.STEP: 2, jobs.SWEEP_FILES: 1},
    "data synthesize": {jobs.ANSWER: 2},
    "encode": {jobs.ENCODING: 2},
    "encode, shards": {jobs.SHARDS: 4},
}
"""How often each job is killed at each kind of moment."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill as planned, or so often as told; returns 0 if all was survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description="Kills at random moments.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="Of the moments.")
    parser.add_argument("--jobs", nargs="+", choices=PLAN, default=[*PLAN], help="Which; by default all.")
    asked = parser.parse_args(arguments)
    started = time.perf_counter()
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as root, chat_server() as url:
        stage, all_jobs = make_stage(Path(root) / "stage"), make_jobs(url)
        all_killed = []
        for name in asked.jobs:
            reference = jobs.run_reference(all_jobs[name], stage=stage)
            for event, count in PLAN[name].items():
                stream = random.Random(f"{asked.seed}-{name}-{event.name}")
                all_killed += [_kill_once(reference, event, stream=stream, stage=stage) for _ in range(count)]
    survived = sum(one.is_survived for one in all_killed)
    elapsed_s = time.perf_counter() - started
    print(f"{survived} of {len(all_killed)} kills survived, seed {asked.seed}, {elapsed_s:.0f} s")
    return 0 if survived == len(all_killed) else 1


def _kill_once(reference: Reference, event: Event, *, stream: random.Random, stage: Path) -> Killed:
    """A moment behind the end kills nothing, so another one is drawn."""
    while True:
        killed = kill(reference, moments=[draw_moment(reference, event, stream=stream)], stage=stage)
        if killed.num_kills:
            verdict = f"DIFFERS: {', '.join(killed.differing)}" if killed.differing else "as if it had not been"
            print(f"{killed.job}, {', '.join(killed.moments)}: {verdict} ({killed.elapsed_s:.0f} s)", flush=True)
            return killed


if __name__ == "__main__":
    sys.exit(main())
