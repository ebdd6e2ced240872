"""Coverage-guided fuzzing of what reads files: `make fuzz`.

python -m tests.fuzz                               every target, a minute each
python -m tests.fuzz gguf recipes --seconds 3600   some, as long as told

Each target runs in a process of its own. What it finds lies in runs/fuzz/TARGET/found: one input for each place that
raised what is no error of ours, its traceback beside it; and an input that takes too long or too much memory, after
which that target ends. Inputs that reached something new are kept in runs/fuzz/TARGET/corpus, where the next run goes
on. Exit code 1: something was found.
"""

import argparse
import atexit
import hashlib
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import NAMES, ROOT, corpus_of

LONGEST_S, MOST_MB, MOST_BYTES = 20, 6000, 4096
_INSTRUMENTED = ["embedsmith", "gguf", "yaml"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz some targets, one after the other; returns 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Coverage-guided fuzzing.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"Of {', '.join(NAMES)}; by default all.")
    parser.add_argument("--seconds", type=int, default=60, help="For each target.")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fuzz", help="Folder of what is found and kept.")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if unknown := set(asked.targets) - set(NAMES):
        parser.error(f"{', '.join(sorted(unknown))}: no such target; there are {', '.join(NAMES)}")
    if asked.inside:
        fuzz(asked.targets[0], seconds=asked.seconds, out=asked.out / asked.targets[0])
    return max([_run_target(name, seconds=asked.seconds, out=asked.out) for name in asked.targets or NAMES])


def _run_target(name: str, *, seconds: int, out: Path) -> int:
    command = [sys.executable, "-m", "tests.fuzz", name, "--inside", "--seconds", str(seconds), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    (out / name).mkdir(parents=True, exist_ok=True)
    (out / name / "log.txt").write_text(done.stderr)
    found = sorted(path for path in (out / name / "found").glob("*") if path.suffix != ".txt")
    counted = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    ran = f"{int(counted[1]):,} inputs" if counted else f"ended with code {done.returncode}"
    print(f"{name}: {ran} in {seconds} s at most, {len(found)} found", *found, sep="\n  ", flush=True)
    return int(bool(found or done.returncode))


def fuzz(name: str, *, seconds: int, out: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz.targets import run

    found, kept = out / "found", out / "corpus"
    for folder in (found, kept):
        folder.mkdir(parents=True, exist_ok=True)
    in_memory = Path("/dev/shm")  # every input is a file, and some are written anew and flushed
    place = Path(tempfile.mkdtemp(prefix="embedsmith-fuzz.", dir=in_memory if in_memory.is_dir() else None))
    atexit.register(shutil.rmtree, place, ignore_errors=True)

    logging.disable()

    def try_one(data: bytes) -> None:
        folder = place / "work"
        folder.mkdir()
        try:
            run(name, data, folder)
        except Exception as error:  # is what is looked for
            _note(error, data, found)
        finally:
            shutil.rmtree(folder)

    limits = [f"-timeout={LONGEST_S}", f"-report_slow_units={LONGEST_S}", f"-rss_limit_mb={MOST_MB}"]
    limits += [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}"]
    output = [f"-artifact_prefix={found}/", "-print_final_stats=1", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *limits, *output, str(kept), str(corpus_of(name))], try_one)
    atheris.Fuzz()


def _note(error: Exception, data: bytes, folder: Path) -> None:
    """Keep an input, one for each kind of error and place."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = [one for one in traceback.extract_tb(error.__traceback__) if "embedsmith" in one.filename] or [frame]
    key = f"{type(error).__name__} {ours[-1].name} {frame.name}"
    path = folder / f"{ours[-1].name}-{type(error).__name__}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    if not path.exists():
        path.write_bytes(data)
        path.with_name(f"{path.name}.txt").write_text("".join(traceback.format_exception(error)))


if __name__ == "__main__":
    sys.exit(main())
