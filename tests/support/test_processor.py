"""How many threads OpenMP takes, and how long they wait awake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedsmith.model.layers.fused.build import find_compiler
from embedsmith.support.processor import allowed_cores, num_bound_cores, share_processor

_TOLD = """
import os
from embedsmith.support.processor import share_processor
share_processor()
print(os.environ["GOMP_SPINCOUNT"])
"""
_BUSY_WAITING = """
import time
from embedsmith.support.processor import share_processor
if {is_told}:
    share_processor()
import torch
torch.set_num_threads(2)
x = torch.ones(2**22)
x.add_(1)
before = time.process_time()
for _ in range(20):
    x.add_(1)
    time.sleep(0.01)
print(time.process_time() - before)
"""

_BOUND = """
import os
from embedsmith.support.processor import share_processor
if {is_asked}:
    share_processor()
import torch
from embedsmith.model.layers.fused.choice import choose_kernels
torch.set_num_threads({num_threads})
choose_kernels(torch.device("cpu"), widths=[16])
everywhere = os.sched_getaffinity(0)
threads = [os.sched_getaffinity(int(name)) for name in os.listdir("/proc/self/task")]
bound = [cores for cores in threads if len(cores) == 1 < len(everywhere)]
print(len(everywhere), len(bound), len(set.union(set(), *bound)))
"""


def _run(code: str, **environment: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    return subprocess.run(
        [sys.executable, "-c", code], env={**own, **environment}, capture_output=True, text=True, check=True
    ).stdout


def test_what_the_user_has_set_stands() -> None:
    environment = {"OMP_WAIT_POLICY": "active"}
    told = _run(_TOLD.replace('os.environ["GOMP_SPINCOUNT"]', 'os.environ.get("GOMP_SPINCOUNT")'), **environment)
    assert told.strip() == "None"
    assert int(_run(_TOLD)) > 0
    assert _run(_TOLD, GOMP_SPINCOUNT="17").strip() == "17"


def test_nothing_is_told_where_torch_is_loaded_already() -> None:
    assert "torch" in sys.modules or __import__("torch")
    environment: dict[str, str] = {}
    share_processor(environment)
    assert environment == {}


@pytest.mark.skipif(num_bound_cores() < 2, reason="one core: nobody waits for another")
@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux alone")
def test_threads_that_wait_sleep_soon() -> None:
    told, as_usual = (float(_run(_BUSY_WAITING.format(is_told=is_told))) for is_told in (True, False))
    assert told < as_usual


def test_threads_follow_what_control_groups_allow(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("1:name=systemd:/\n0::/machine/job\n")
    job = tmp_path / "machine" / "job"
    job.mkdir(parents=True)
    assert allowed_cores(root=tmp_path, own=own) is None
    (job / "cpu.max").write_text("max 100000\n")
    assert allowed_cores(root=tmp_path, own=own) is None
    (job / "cpu.max").write_text("250000 100000\n")
    assert allowed_cores(root=tmp_path, own=own) == 3
    (tmp_path / "machine" / "cpu.max").write_text("50000 100000\n")  # what it lies in allows less
    assert allowed_cores(root=tmp_path, own=own) == 1
    assert allowed_cores(root=tmp_path, own=tmp_path / "missing") is None


@pytest.mark.skipif(find_compiler() is None or sys.platform != "linux", reason="threads are bound by the C kernels")
@pytest.mark.skipif(num_bound_cores() < 2, reason="one core: there is nothing to bind")
def test_the_command_line_gives_each_waiting_thread_a_core() -> None:
    """The first one, whose children inherit where they may run, stays free."""
    every = num_bound_cores()

    def bound(*, is_asked: bool, num_threads: int) -> list[int]:
        """Cores, threads that are bound to one, and how many of those are different."""
        return [int(word) for word in _run(_BOUND.format(is_asked=is_asked, num_threads=num_threads)).split()]

    assert bound(is_asked=True, num_threads=every) == [every, every - 1, every - 1]
    assert bound(is_asked=False, num_threads=every) == [every, 0, 0]
    assert bound(is_asked=True, num_threads=every + 1) == [every, 0, 0]  # not one for each: they may go anywhere
