"""Killed with SIGKILL in the middle of what it does, a command that goes on ends as if it had not been killed.

`make test-reliability` does the same at forty moments drawn at random.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability import jobs
from tests.reliability.jobs import Reference, kill
from tests.reliability.killing import Moment

MIDDLE_OF_A_STEP = Moment(jobs.STEP, 5, 0.003)
MOMENTS = {
    "train": [
        [MIDDLE_OF_A_STEP],
        [Moment(jobs.EVALUATION, 3, 0.002), Moment(jobs.CHECKPOINT, 9, 0.0005)],
        [Moment(jobs.CHECKPOINT, 30)],
        [Moment(jobs.BEST, 6)],
        [Moment(jobs.CONVERTING, 2, 0.001)],
    ],
    "data synthesize": [[Moment(jobs.ANSWER, 4), Moment(jobs.ANSWER, 5)]],
    "encode": [[Moment(jobs.ENCODING, 2, 0.0005)]],
    "encode, shards": [
        [Moment(jobs.SHARDS, number) for number in (6, 12, 9)],
        [Moment(jobs.SHARDS, 17, 0.0005), Moment(jobs.SHARDS, 5, 0.001)],
    ],
}


@pytest.mark.parametrize(("name", "moments"), [(name, moments) for name, each in MOMENTS.items() for moments in each])
def test_what_was_killed_ends_as_if_it_had_not_been(
    name: str,
    moments: list[Moment],
    reference_of: Callable[[str], Reference],
    stage: Path,
) -> None:
    killed = kill(reference_of(name), moments=moments, stage=stage)
    assert killed.num_kills == len(moments)
    assert killed.differing == ()
