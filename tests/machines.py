"""The tests on other machines, as far as this one can stand for them; a table says what ran and what did not, and why.

    python -m tests.machines                    all of them: `make test-machines`, about half an hour on two cores
    python -m tests.machines --quick haswell    those named, with the tests that other instructions disturb most

- **Lower processors**: what torch (ATEN_CPU_CAPABILITY), oneDNN (ONEDNN_MAX_CPU_ISA) and the compiler of our kernels
  (EMBEDSMITH_MARCH) may use. The numeric tests run.
- **Every pair** of torch's and oneDNN's settings, with kernels for this processor. The quick tests run.
- **No C compiler**: torch operations in place of our kernels. The numeric tests run.
- **Other Pythons** at hand, each in an environment of its own (.venv-3.12), made at first: minutes, and up to 7 GB
  where pip finds no torch without CUDA. All tests run, those in a browser aside.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from embedsmith.model.layers.fused.build import find_compiler

_FUSED = "tests/model/layers/fused"
# What chooses by instructions, what rounds to bfloat16, and scores of a whole model.
QUICK = (
    *(f"{_FUSED}/test_{name}.py" for name in ("products", "kernels", "attention_kernels", "linear", "switching")),
    f"{_FUSED}/test_decoder.py::test_bfloat16_is_as_exact_as_the_plain_path",
    "tests/verbs/test_benchmark.py",
)
NUMERIC = ("tests/model", "tests/training", "tests/export", "tests/evaluation", "tests/verbs")
EVERYTHING = ("tests",)
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOGS = Path("build/test-machines")
_NEEDED_GB = 10  # of disk, for an environment
_AVX512 = ("avx512_f", "avx512_bw", "avx512_dq", "avx512_vl")
# Instructions that a setting stands for, by torch's names for them.
TORCH = {"default": (), "avx2": ("avx2",), "avx512": _AVX512}
ONEDNN = {
    "AVX2": ("avx2",),
    "AVX512_CORE": _AVX512,
    "AVX512_CORE_BF16": (*_AVX512, "avx512_bf16"),
    "AVX512_CORE_AMX": (*_AVX512, "avx512_bf16", "amx_tile", "amx_bf16"),
}
PROCESSORS = {
    "x86-64": ("default", "SSE41"),
    "haswell": ("avx2", "AVX2"),
    "skylake-avx512": ("avx512", "AVX512_CORE"),
    "cooperlake": ("avx512", "AVX512_CORE_BF16"),
    "sapphirerapids": ("avx512", "AVX512_CORE_AMX"),
}


@dataclass(frozen=True)
class Machine:
    """Another machine.

    Attributes:
        name: in the table, and to ask for it.
        tests: files and folders.
        environment: variables that make this machine it.
        why_not: it cannot be had here.
        find_python: makes or finds its interpreter.
    """

    name: str
    tests: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    why_not: str | None = None
    find_python: Callable[[], str] = lambda: sys.executable


@dataclass(frozen=True)
class Outcome:
    """What its tests came to; `note`: why they did not run, or where to read on."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""
    is_good: bool = True


class NotHereError(Exception):
    """A machine cannot be had here; the message says why."""


def machines(*, quick: bool) -> Iterator[Machine]:
    """All of them, those that cannot be had included."""
    numeric = QUICK if quick else NUMERIC
    yield Machine("this-one", numeric)
    for name, (torch_level, onednn_level) in PROCESSORS.items():
        environment = {"EMBEDSMITH_MARCH": name, **_levels(torch_level, onednn_level)}
        why_not = _why_no_instructions(torch_level, onednn_level) or _why_no_kernels(name)
        if quick and not _has_more(torch_level, onednn_level):
            why_not = why_not or "this processor has no more, so the other tests have run as one"
        yield Machine(name, numeric, environment, why_not)
    for torch_level in TORCH:
        for onednn_level in ONEDNN:
            why_not = _why_no_instructions(torch_level, onednn_level)
            yield Machine(f"{torch_level}+{onednn_level}", QUICK, _levels(torch_level, onednn_level), why_not)
    # A cache of its own, as kernels that were built once are found without a compiler.
    bare = {"PATH": str(Path(sys.executable).parent), "CC": "", "EMBEDSMITH_CACHE": str(LOGS.resolve() / "cache")}
    yield Machine("no-compiler", numeric, bare)
    for version in PYTHONS:
        if version != _version_of(sys.executable):
            yield Machine(f"python-{version}", EVERYTHING, find_python=lambda version=version: _environment(version))


def _levels(torch_level: str, onednn_level: str) -> dict[str, str]:
    return {"ATEN_CPU_CAPABILITY": torch_level, "ONEDNN_MAX_CPU_ISA": onednn_level}


def _has_more(torch_level: str, onednn_level: str) -> bool:
    """Whether this processor has instructions that the tables above know, and that these levels leave out."""
    known = {one for names in (*TORCH.values(), *ONEDNN.values()) for one in names}
    left_out = known - {*TORCH[torch_level], *ONEDNN.get(onednn_level, ())}
    return any(torch.cpu.get_capabilities().get(one) for one in left_out)


def _why_no_instructions(torch_level: str, onednn_level: str) -> str | None:
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the processor is no x86 but {platform.machine()}"
    has = torch.cpu.get_capabilities()
    missing = [
        name for name in dict.fromkeys((*TORCH[torch_level], *ONEDNN.get(onednn_level, ()))) if not has.get(name)
    ]
    return f"the processor has no {', '.join(missing)}" if missing else None


def _why_no_kernels(march: str) -> str | None:
    if (compiler := find_compiler()) is None:
        return None
    command = [*compiler.split(), f"-march={march}", "-E", "-x", "c", os.devnull]
    is_known = subprocess.run(command, capture_output=True, check=False).returncode == 0
    return None if is_known else f"{compiler} does not know -march={march}"


def _environment(version: str) -> str:
    """The interpreter of an environment with everything in it."""
    folder = Path(f".venv-{version}")
    own = shutil.which(f"python{version}")
    managed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    python = next((name for name in [own, *managed] if name and _version_of(name) == version), None)
    if python is None:
        raise NotHereError(f"there is no python{version}")
    if not folder.exists():
        if shutil.disk_usage(".").free < _NEEDED_GB * 1e9:
            raise NotHereError(f"{folder} needs up to {_NEEDED_GB} GB of disk")
        print(f"making {folder}, which takes some minutes ...", flush=True)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={python}", f"VENV={folder}"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NotHereError(f"make setup VENV={folder} failed: {(done.stderr.strip() or done.stdout.strip())[-200:]}")
    return str(folder / "bin" / "python")


def _version_of(python: str | Path) -> str | None:
    """3.x, or None if it is no interpreter that can make environments."""
    code = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def run(machine: Machine) -> Outcome:
    """Its tests, with the log in a file."""
    try:
        if machine.why_not:
            raise NotHereError(machine.why_not)
        python = machine.find_python()
    except NotHereError as reason:
        return Outcome(machine.name, note=f"not run: {reason}")
    print(f"{machine.name}: {' '.join(machine.tests)} ...", flush=True)
    workers = str(min(os.cpu_count() or 2, 8))
    command = [python, "-m", "pytest", "--numprocesses", workers, "-m", "not browser", *machine.tests]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **machine.environment}
    start = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    log = LOGS / f"{machine.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    counts = count(done.stdout)
    is_good = done.returncode == 0 and counts.get("passed", 0) > 0
    if not is_good:
        print("\n".join(line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))))
    return Outcome(machine.name, counts, seconds, "" if is_good else f"see {log}", is_good)


def count(output: str) -> dict[str, int]:
    """The numbers of pytest's last line: passed, failed, skipped, errors."""
    closing = [line for line in output.splitlines() if re.search(r"\d+ \w+.* in [\d.]+s", line)]
    found = re.findall(r"(\d+) (passed|failed|skipped|error)", closing[-1]) if closing else []
    return {kind: int(number) for number, kind in found}


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a machine."""
    width = max(len(name) for name in ("machine", *(one.name for one in outcomes)))
    lines = [f"{'machine':{width}}  passed  failed  skipped  seconds"]
    for one in outcomes:
        if one.counts:
            failed = one.counts.get("failed", 0) + one.counts.get("error", 0)
            numbers = (
                f"{one.counts.get('passed', 0):6}  {failed:6}  {one.counts.get('skipped', 0):7}  {one.seconds:7.0f}"
            )
            lines.append(f"{one.name:{width}}  {numbers}  {one.note}".rstrip())
        else:
            lines.append(f"{one.name:{width}}  {one.note}")
    return "\n".join(lines)


def main() -> int:
    """Run, print the table, tell by the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.machines", description="The tests on other machines.")
    parser.add_argument("names", nargs="*", help="of machines; by default all")
    parser.add_argument("--quick", action="store_true", help="fewer tests")
    arguments = parser.parse_args()
    every = {machine.name: machine for machine in machines(quick=arguments.quick)}
    if unknown := set(arguments.names) - set(every):
        parser.error(f"no such machine: {', '.join(sorted(unknown))}. There are: {', '.join(every)}")
    outcomes = [run(every[name]) for name in arguments.names or every]
    print(table(outcomes))
    return 0 if all(one.is_good for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
