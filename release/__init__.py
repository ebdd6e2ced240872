"""What goes out: a wheel and a source archive of the same bytes wherever they are built, what they need, and an audit.

check.py           the wheel as users install it, alone and with each extra (probes.py, in environments.py);
                   `make release-check`
build.py           dist/: both archives, the bill of materials, SHA256SUMS; `make release`
lock.py            requirements.lock: what users install, each file by its hash; `make lock`
audit.py           known vulnerabilities of what is locked; `make audit`
requirements.lock  written by lock.py
"""

from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = Path(__file__).parent / "requirements.lock"
EXTRAS = (
    *("encoders", "hub", "index", "leakage", "onnx", "openvino", "optimize", "ray", "report", "search"),
    *("sentencepiece", "serve", "synthesize"),
)
"""Of the package, whose requirements are locked, too; the others are built from source, for tests, or too large."""
APART = ("torch",)
"""Has builds for CPUs and for CUDA under one version, from different places: pinned in constraints.txt, not by hash."""


def pinned(name: str) -> str:
    """`name==version`, as constraints.txt has it; raises ValueError where it has none."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n")
    found = [line for line in lines if line.lower().startswith(f"{name}==")]
    if len(found) != 1:
        raise ValueError(f"constraints.txt names {name} {len(found)} times")
    return found[0]
