"""What `make release-check` says: a message, an installation and a command do what they should, or which does not."""

import sys
import tomllib
from pathlib import Path

import pytest

from release import ROOT
from release.check import (
    FAULTY,
    NOT_SEEN,
    FaultError,
    Outcome,
    check_extra,
    check_probe,
    exit_code,
    look,
    required_by,
    table,
)
from release.environments import Environment, NotHereError
from release.probes import DEVELOPERS, PROBES, Probe

NAMES_IT = "test -f ../installed && exec echo done $*; echo \"Install it with: pip install 'embedsmith[own]'\"; exit 2"
INSTALLS_IT = """test "$*" = 'install embedsmith[own]' && touch ../installed"""
PROBE = Probe(("do", "what", "{packages}"), "^done do what /below$")


def _make(folder: Path, *, embedsmith: str, pip: str = INSTALLS_IT) -> Environment:
    """An environment whose commands are shell scripts."""
    for name in ("bin", "work"):
        (folder / name).mkdir()
    for name, script in (("embedsmith", embedsmith), ("pip", pip)):
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    return Environment(folder, folder / "work", folder, folder / "log.txt", Path("/below"))


def test_every_extra_is_looked_at_or_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted([*PROBES, *DEVELOPERS]) == sorted(project["optional-dependencies"])


def test_an_extra_that_is_named_and_installed_by_what_the_message_says(tmp_path: Path) -> None:
    own = _make(tmp_path, embedsmith=NAMES_IT)
    assert check_extra(own, "own", PROBE) == "named, installed; embedsmith do what ..."
    log = own.log.read_text()
    assert "$ pip install 'embedsmith[own]'\nexit code 0\n" in log
    assert log.index("exit code 2") < log.index("done do what")


@pytest.mark.parametrize(
    ("embedsmith", "pip", "error", "said"),
    [
        ("echo done do what /below", INSTALLS_IT, FaultError, "without it, exit code 0, and no line with pip install"),
        (NAMES_IT.replace("exit 2", "exit 1"), INSTALLS_IT, FaultError, "without it, exit code 1, and line with pip"),
        (NAMES_IT, "true", FaultError, "an extra is still missing"),
        (NAMES_IT, "echo trying; echo 'ERROR: no cmake' >&2; exit 1", NotHereError, "own]': ERROR: no cmake"),
        (NAMES_IT.replace("exec echo done", "exit 3;"), INSTALLS_IT, FaultError, "exit code 3, not 0"),
        (NAMES_IT.replace("echo done", "echo other"), INSTALLS_IT, FaultError, "no line like ^done"),
    ],
)
def test_what_is_not_as_it_should_be_is_said(
    embedsmith: str, pip: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        check_extra(_make(tmp_path, embedsmith=embedsmith, pip=pip), "own", PROBE)
    assert said in str(caught.value)


def test_an_extra_that_comes_with_the_wheels_own_requirements_cannot_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert required_by("leakage") == ["datasketch"]
    assert required_by("mteb") == ["datasets", "mteb"]
    monkeypatch.setattr("release.check.required_by", lambda extra: ["pytest"])
    own = _make(tmp_path, embedsmith="echo done $*")
    (own.folder / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (own.folder / "bin" / "python").chmod(0o755)
    assert check_extra(own, "own", PROBE).startswith("comes with what the wheel requires; ")
    assert not own.has(["pytest", "no-such-package"])


def test_what_runs_on_is_stopped_once_it_has_said_so(tmp_path: Path) -> None:
    script = "sleep 60 > /dev/null &\ntrap 'kill $!; echo bye; exit 0' TERM\necho starting\necho ready\nwait"
    own = _make(tmp_path, embedsmith=script)
    check_probe(own, Probe(("serve",), "ready", runs_on=True))
    assert own.log.read_text().endswith("ready\nbye\nexit code 0\n\n")


def test_what_does_not_end_is_stopped_and_the_log_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("release.environments.LONGEST_S", 0.2)
    own = _make(tmp_path, embedsmith="exec sleep 60")
    with pytest.raises(FaultError, match="exit code -9, not 0"):
        check_probe(own, PROBE)
    assert "did not end within 0.2 s, and was stopped\nexit code -9\n" in own.log.read_text()


def test_the_table_and_the_exit_code() -> None:
    def fail(error: Exception) -> str:
        raise error

    seen = [look("good one", lambda: "5 commands"), look("no", lambda: fail(NotHereError("no cmake")))]
    assert exit_code(seen) == NOT_SEEN
    seen.append(look("wrong", lambda: fail(FaultError("exit code 1"))))
    assert exit_code(seen) == FAULTY
    assert exit_code([Outcome("a", "")]) == 0
    first, second, third = table(seen).split("\n")
    assert first == "good one  good       0 s  5 commands"
    assert second == "no        -          0 s  not looked at: no cmake"
    assert third.startswith("wrong     FAULT      0 s  exit code 1; see ")
