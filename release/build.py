"""dist/: a wheel and a source archive with the same bytes wherever they are built, a bill of materials, and checksums.

python -m release.build [--out DIR]

What is built is the last commit, unpacked into an empty folder, so that no other file comes in. Times are that
commit's. setuptools gives a wheel its times (SOURCE_DATE_EPOCH); of a source archive it takes those of the disk, and
the names of who builds, so that one is packed again, in order, by nobody. The same setuptools (constraints.txt) gives
the same bytes.
"""

import argparse
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from release import APART, LOCK, ROOT, pinned

# It forgets the command line in between.
_BUILD_WHEEL = """\
import sys
from setuptools import build_meta
out = sys.argv[1]
print(build_meta.build_wheel(out))
"""
_BUILD = f"{_BUILD_WHEEL}print(build_meta.build_sdist(out))\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write dist/; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m release.build", description="Build what is released.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="An empty folder, or one that is not there.")
    asked = parser.parse_args(arguments)
    if asked.out.exists() and any(asked.out.iterdir()):
        parser.error(f"{asked.out} is not empty; remove what is in it, or name another folder")
    if (needed := pinned("setuptools")) != f"setuptools=={version('setuptools')}":
        parser.error(f"setuptools is {version('setuptools')}; the same bytes need {needed} (constraints.txt)")
    asked.out.mkdir(parents=True, exist_ok=True)
    build(asked.out)
    write_bill(asked.out)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(asked.out.iterdir())]
    (asked.out / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")
    print("\n".join(sums))
    return 0


def build(out: Path, *, revision: str = "HEAD") -> None:
    """Write the wheel and the source archive of a commit into a folder.

    Raises:
        subprocess.CalledProcessError: this is no clone of the repository, or setuptools fails.
    """
    epoch = _git("log", "-1", "--format=%ct", revision).decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", revision))) as archive:
            archive.extractall(folder, filter=_plain)  # noqa: S202 (our own commit)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
        command = [sys.executable, "-c", _BUILD, str(out.resolve())]
        subprocess.run(command, cwd=folder, env=environment, umask=0o022, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (ours)
    for path in out.glob("*.tar.gz"):
        _pack_again(path, epoch=int(epoch))


def wheel_of(archive: Path, out: Path) -> Path:
    """Build the wheel of a source archive into a folder, as who has that alone does; times are those in the archive.

    Raises:
        subprocess.CalledProcessError: setuptools fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as members:
            epoch = max(int(member.mtime) for member in members)
            members.extractall(folder, filter=_plain)  # noqa: S202 (our own)
        (source,) = Path(folder).iterdir()
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        command = [sys.executable, "-c", _BUILD_WHEEL, str(out.resolve())]
        subprocess.run(command, cwd=source, env=environment, umask=0o022, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (ours)
    (wheel,) = out.glob("*.whl")
    return wheel


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True).stdout  # noqa: S603, S607 (ours)


def _plain(member: tarfile.TarInfo, _: str) -> tarfile.TarInfo:
    """Without what depends on who builds: rights go into a wheel."""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def _pack_again(path: Path, *, epoch: int) -> None:
    packed = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            plain = _plain(member, "")
            plain.mtime, plain.uid, plain.gid, plain.uname, plain.gname, plain.pax_headers = epoch, 0, 0, "", "", {}
            new.addfile(plain, old.extractfile(member) if member.isfile() else None)
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch))


def write_bill(out: Path) -> Path:
    """Write the bill of materials of what is locked, in CycloneDX; torch stands there by its version alone.

    Raises:
        subprocess.CalledProcessError: cyclonedx-bom, of the extra `release`, is not installed.
    """
    wheel = next(out.glob("*.whl"))
    target = out / f"{wheel.name.split('-py3')[0]}.cdx.json"
    with tempfile.TemporaryDirectory() as folder:
        needed = Path(folder) / "requirements.txt"
        needed.write_text("\n".join([LOCK.read_text(encoding="utf-8"), *map(pinned, APART), ""]), encoding="utf-8")
        options = ["--output-reproducible", "--pyproject", str(ROOT / "pyproject.toml"), "-o", str(target)]
        command = [sys.executable, "-m", "cyclonedx_py", "requirements", str(needed), *options]
        subprocess.run(command, check=True)  # noqa: S603 (ours)
    return target


if __name__ == "__main__":
    sys.exit(main())
