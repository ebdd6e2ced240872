"""What killed, stopped and denied commands work on, made once."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.reliability.jobs import Reference, chat_server, make_jobs, make_stage, run_reference


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stage(tmp_path_factory.mktemp("reliability") / "stage")


@pytest.fixture(scope="package")
def reference_of(stage: Path) -> Iterator[Callable[[str], Reference]]:
    """The name of a job -> what it leaves when nothing happens to it."""
    with chat_server() as url:
        jobs = make_jobs(url)
        yield cache(lambda name: run_reference(jobs[name], stage=stage))
