"""kernels.c -> a shared library in the user's cache, built once by the machine's own C compiler (about two seconds).

They are built for this processor, or for the one that $EMBEDSMITH_MARCH names as the compiler's `-march` does: a lower
one, to see on this machine what others compute.

The file's name holds a digest of the source, the flags and the processor, so neither a new version nor a home folder
shared by different machines can load a wrong build. OpenMP resolves to the runtime torch has loaded already (same
library name), so there is one pool of threads.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

from embedsmith.support import files

_FLAGS = ("-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_SOURCES = ("kernels.c", "kernels_body.h", "products.h")
_TIMEOUT_S = 120


class KernelBuildError(Exception):
    """There is no usable compiler, or it failed; the message says how."""


@cache
def load_library() -> ctypes.CDLL:
    """Load the kernels, building them if need be.

    Raises:
        KernelBuildError: see there.
    """
    if sys.platform == "win32":
        raise KernelBuildError("not supported on Windows")
    folder = Path(__file__).parent
    path = files.cache_root() / "kernels" / f"kernels-{_digest(folder)}.so"
    if not path.exists():
        _build(folder / _SOURCES[0], path)
    assert torch.get_num_threads() > 0  # torch's OpenMP runtime is loaded before ours asks for one
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelBuildError(f"{path} does not load: {error}") from error


def find_compiler() -> str | None:
    """$CC, else the first of cc, gcc and clang that is there, else None."""
    return os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def compiler_flags() -> tuple[str, ...]:
    """What the kernels are compiled with."""
    return (f"-march={os.environ.get('EMBEDSMITH_MARCH') or 'native'}", *_FLAGS)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((folder / name).read_bytes())
    digest.update(" ".join((*compiler_flags(), platform.machine(), _processor())).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """Everything `-march=native` may depend on, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return "".join(dict.fromkeys(line for line in lines if line.startswith(("flags", "Features", "model name"))))


def _build(source: Path, target: Path) -> None:
    compiler = find_compiler()
    if compiler is None:
        raise KernelBuildError("no C compiler; install gcc or clang")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "kernels.so"
        command = [*compiler.split(), *compiler_flags(), "-o", str(output), str(source), "-lm"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603 (ours)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KernelBuildError(f"{compiler}: {error}") from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["failed without a message"]
            raise KernelBuildError(f"{compiler}: {lines[0]}")
        try:
            files.write_bytes(target, output.read_bytes())
        except OSError as error:
            raise KernelBuildError(f"{target} cannot be written: {error}") from error
