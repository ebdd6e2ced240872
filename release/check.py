"""The wheel as users install it: alone, then with each extra in turn; a table says what was seen: `make release-check`.

    python -m release.check                    all extras
    python -m release.check serve report       these
    python -m release.check --room DIR         environments there; what all of them share is kept for the next time

The last commit is built. The wheel that its source archive gives must be the same bytes. Then, in environments that
hold torch, the wheel and what it requires, outside of the checkout: the wheel alone does what needs no extra. For each
extra a command that needs it must name it and the command that installs it; that one, word for word, must work; and
the first must then get on. Versions are those of constraints.txt. What cannot be installed here is named with pip's
reason.

Exit code 0: all is as it should be; 1: something is not; 3: nothing is wrong, but some could not be looked at.
"""

import argparse
import re
import shlex
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from release import ROOT
from release.build import build, wheel_of
from release.environments import LOGS, Environment, NotHereError, layer, make_base
from release.probes import ALONE, DEVELOPERS, PROBES, Probe, write_inputs

FAULTY, NOT_SEEN = 1, 3
ALONE_NAME, ARCHIVE_NAME = "wheel-alone", "source-archive"


class FaultError(Exception):
    """Something is not as it should be; the message says what."""


@dataclass(frozen=True)
class Outcome:
    """A line of the table; `code` is 0, FAULTY or NOT_SEEN."""

    name: str
    note: str
    code: int = 0
    seconds: float = 0.0


def check_alone(own: Environment) -> str:
    """Run what needs no extra; returns what was seen.

    Raises:
        FaultError: something else is run, or a command does not do what it should.
    """
    _, place = own.run(["python", "-c", "import embedsmith; print(embedsmith.__file__)"])
    if not place.startswith(str(own.packages)):
        raise FaultError(f"not the wheel is run, but {place.strip()}")
    for probe in ALONE:
        check_probe(own, probe)
    return f"{len(ALONE)} commands"


def check_extra(own: Environment, extra: str, probe: Probe) -> str:
    """Without the extra, the command that installs it, and with it; returns what was seen.

    Where all that the extra names comes with what the wheel requires, nothing can be missing, and that is what is seen.

    Raises:
        FaultError: the extra is not named, or the command does not get on with it.
        NotHereError: it cannot be installed.
    """
    asked = f"pip install 'embedsmith[{extra}]'"
    is_there = own.has(required_by(extra))
    code, output = own.run(_spelled(own, probe), runs_on_until=probe.says if probe.runs_on else None)
    if not is_there and (code != 2 or asked not in output):
        raise FaultError(f"without it, exit code {code}, and {'' if asked in output else 'no '}line with {asked}")
    own.install(shlex.split(asked))
    check_probe(own, probe)
    return f"{'comes with what the wheel requires' if is_there else 'named, installed'}; {_short(probe)}"


def required_by(extra: str) -> list[str]:
    """Names of the packages of an extra, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[\[<>=!~; ]", one)[0] for one in project["optional-dependencies"].get(extra, [])]


def check_probe(own: Environment, probe: Probe) -> None:
    """Raise FaultError unless a command does what it should."""
    code, output = own.run(_spelled(own, probe), runs_on_until=probe.says if probe.runs_on else None)
    if "pip install 'embedsmith[" in output:
        raise FaultError(f"{_short(probe)}: an extra is still missing")
    if code != probe.code:
        raise FaultError(f"{_short(probe)}: exit code {code}, not {probe.code}")
    if not re.search(probe.says, output, re.MULTILINE):
        raise FaultError(f"{_short(probe)}: no line like {probe.says}")


def _spelled(own: Environment, probe: Probe) -> list[str]:
    return ["embedsmith", *(part.replace("{packages}", str(own.base)) for part in probe.command)]


def _short(probe: Probe) -> str:
    return " ".join(["embedsmith", *probe.command[:2], *(["..."] if len(probe.command) > 2 else [])])


def check_archive(dist: Path, room: Path) -> str:
    """Compare the wheel with that of the source archive; returns what was seen; raises FaultError where they differ."""
    (wheel,), (archive,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    if wheel_of(archive, _new(room / "again")).read_bytes() != wheel.read_bytes():
        raise FaultError("its wheel has other bytes than the commit's")
    return "its wheel has the bytes of the commit's"


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def look(name: str, see: Callable[[], str]) -> Outcome:
    """What comes of it, as a line of the table."""
    print(f"{name} ...", flush=True)
    start = time.monotonic()
    try:
        note, code = see(), 0
    except FaultError as fault:
        note, code = f"{fault}; see {LOGS / name}.txt", FAULTY
    except NotHereError as reason:
        note, code = f"not looked at: {reason}", NOT_SEEN
    return Outcome(name, note, code, time.monotonic() - start)


def table(outcomes: Sequence[Outcome]) -> str:
    """One line each."""
    width = max(len(one.name) for one in outcomes)
    words = {0: "good", FAULTY: "FAULT", NOT_SEEN: "-"}
    return "\n".join(f"{one.name:{width}}  {words[one.code]:5}  {one.seconds:5.0f} s  {one.note}" for one in outcomes)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """See the file's docstring."""
    codes = {one.code for one in outcomes}
    return FAULTY if FAULTY in codes else NOT_SEEN if NOT_SEEN in codes else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Look, print the table, tell by the exit code."""
    parser = argparse.ArgumentParser(prog="python -m release.check", description="The wheel as users install it.")
    parser.add_argument("extras", nargs="*", help="some; by default all")
    parser.add_argument("--room", type=Path, help="A folder for the environments; default: a temporary one.")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.extras) - {*PROBES}:
        parser.error(f"not looked at: {', '.join(sorted(unknown))}. There are: {', '.join(PROBES)}")
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = list(_look_at(asked.extras or list(PROBES), room=_new((asked.room or Path(folder)).resolve())))
    print(table(outcomes))
    print(f"For developers, in a checkout, and so not looked at: {', '.join(DEVELOPERS)}.")
    return exit_code(outcomes)


def _look_at(extras: Sequence[str], *, room: Path) -> Iterator[Outcome]:
    for name in ("dist", "again", "work"):
        shutil.rmtree(room / name, ignore_errors=True)
    dist, work = _new(room / "dist"), _new(room / "work")
    build(dist)
    yield look(ARCHIVE_NAME, lambda: check_archive(dist, room))
    write_inputs(work)
    (wheel,) = dist.glob("*.whl")
    base = look("base", lambda: str(make_base(room, wheel)))
    yield base
    if base.code:
        return

    def alone() -> str:
        with layer(ALONE_NAME, room=room, base=Path(base.note), wheel=wheel, work=work) as own:
            return check_alone(own)

    yield look(ALONE_NAME, alone)
    for extra in extras:

        def with_extra(extra: str = extra) -> str:
            with layer(extra, room=room, base=Path(base.note), wheel=wheel, work=work) as own:
                return check_extra(own, extra, PROBES[extra])

        yield look(extra, with_extra)


if __name__ == "__main__":
    sys.exit(main())
