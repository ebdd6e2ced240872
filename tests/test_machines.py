"""What `make test-machines` says: what ran, what did not and why, and an exit code that follows."""

from pathlib import Path

import pytest
import torch

from tests import machines
from tests.machines import Machine, NotHereError, Outcome, count, run, table

TESTS = """
import os, pytest
def test_passes(): assert os.environ["OWN"] == "1"
@pytest.mark.skip
def test_left_out(): pass
"""


@pytest.fixture
def own_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machines, "LOGS", tmp_path / "logs")
    (tmp_path / "test_own.py").write_text(TESTS)
    return tmp_path / "test_own.py"


def test_a_machine_runs_with_its_environment(own_tests: Path) -> None:
    outcome = run(Machine("own", (str(own_tests),), {"OWN": "1"}))
    assert (outcome.counts, outcome.is_good, outcome.note) == ({"passed": 1, "skipped": 1}, True, "")
    assert outcome.seconds > 0


def test_a_failure_is_said(own_tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(Machine("own", (str(own_tests),), {"OWN": "2"}))
    assert (outcome.counts, outcome.is_good) == ({"failed": 1, "skipped": 1}, False)
    assert outcome.note == f"see {own_tests.parent / 'logs' / 'own.txt'}"
    assert "test_own.py::test_passes" in capsys.readouterr().out


def test_no_tests_is_a_failure(own_tests: Path) -> None:
    (own_tests.parent / "test_none.py").touch()
    outcome = run(Machine("own", (str(own_tests.parent / "test_none.py"),)))
    assert (outcome.counts, outcome.is_good) == ({}, False)


def test_what_is_not_here_is_said_and_no_failure() -> None:
    def find_python() -> str:
        raise NotHereError("there is no python9")

    lacking, missing = (
        Machine("a", (), why_not="the processor has no amx_bf16"),
        Machine("b", (), find_python=find_python),
    )
    outcomes = [run(lacking), run(missing), Outcome("longer", {"passed": 3, "error": 1}, 12.4, "see x", is_good=False)]
    assert [one.is_good for one in outcomes] == [True, True, False]
    assert table(outcomes).splitlines() == [
        "machine  passed  failed  skipped  seconds",
        "a        not run: the processor has no amx_bf16",
        "b        not run: there is no python9",
        "longer        3       1        0       12  see x",
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 failed, 1489 passed, 3 skipped in 58.26s", {"failed": 1, "passed": 1489, "skipped": 3}),
        ("== 2 passed, 1 error in 77.47s (0:01:17) ==", {"passed": 2, "error": 1}),
        ("no tests ran in 0.01s", {}),
    ],
)
def test_the_closing_line(line: str, expected: dict[str, int]) -> None:
    assert count(f"12 passed, before\n{line}\n") == expected


def _why_not(*, quick: bool) -> dict[str, str | None]:
    return {machine.name: machine.why_not for machine in machines.machines(quick=quick)}


def test_a_processor_stands_for_those_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    avx512 = {"avx2", "avx512_f", "avx512_bw", "avx512_dq", "avx512_vl"}
    monkeypatch.setattr(machines.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(avx512, True))
    why_not = _why_not(quick=False)
    assert why_not["cooperlake"] == "the processor has no avx512_bf16"
    assert why_not["avx2+AVX512_CORE_AMX"] == "the processor has no avx512_bf16, amx_tile, amx_bf16"
    assert why_not["default+AVX512_CORE"] is None
    assert _why_not(quick=True)["haswell"] is None
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": False})
    assert _why_not(quick=True)["haswell"] == "this processor has no more, so the other tests have run as one"
    assert _why_not(quick=False)["haswell"] is _why_not(quick=True)["x86-64"] is None
    monkeypatch.setattr(machines.platform, "machine", lambda: "aarch64")
    why_not = _why_not(quick=True)
    assert why_not["haswell"] == "the processor is no x86 but aarch64"
    assert why_not["this-one"] is why_not["no-compiler"] is None
