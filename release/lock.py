"""pyproject.toml and constraints.txt -> requirements.lock: what users install, each file by its hash.

python -m release.lock

constraints.txt says which versions: those that the tests ran with. Here stand those of them that a user needs, for
every system and Python that the package runs on, with the hashes of their files as the package index tells them.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from release import APART, EXTRAS, LOCK, ROOT

_NEVER = "sys_platform == 'never'"
_HEADER = """\
# Written by `make lock`: what embedsmith and its extras for users need, each file by its hash (docs/releasing.md).
# Not here, as its build for CPUs comes from another place than the one for CUDA: {apart}.
"""


def main() -> int:
    """Write the file; returns 0."""
    with tempfile.TemporaryDirectory() as folder:
        left_out = Path(folder) / "left-out.txt"
        left_out.write_text("".join(f"{name} ; {_NEVER}\n" for name in APART), encoding="utf-8")
        options = ["--universal", "--generate-hashes", "--no-annotate", "--no-header", "--quiet"]
        options += ["--constraints", "constraints.txt", "--overrides", str(left_out), "--output-file", f"{folder}/lock"]
        options += [part for extra in EXTRAS for part in ("--extra", extra)]
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", *options]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603 (ours)
        locked = Path(folder, "lock").read_text(encoding="utf-8")
    entries = re.split(r"^(?=\w)", locked, flags=re.MULTILINE)
    kept = [entry for entry in entries if _NEVER not in entry]  # nor what those alone need
    LOCK.write_text(_HEADER.format(apart=", ".join(APART)) + "".join(kept), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
