"""Known vulnerabilities of what is locked, as pip-audit finds them in the package index's database: `make audit`.

Exit code 0: the database was asked of every package, and knows none; 1: it knows some, or does not know a package; 3:
it was not asked. pip-audit alone calls it a success when a database answers nothing. So it is asked first of a version
whose vulnerability is known since 2020: who does not know that one was not asked.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from release import APART, LOCK, pinned

KNOWN = "pyyaml==5.3"
"""CVE-2020-1747."""
FOUND, NOT_ASKED = 1, 3


def main() -> int:
    """Ask, and print what was found."""
    probe = _ask([KNOWN])
    code, lines = judge(probe, None if _num_vulnerabilities(probe) == 0 else _ask(_locked()))
    print("\n".join(lines))
    return code


def judge(probe: Any, found: Any) -> tuple[int, list[str]]:
    """Exit code and what to print.

    Args:
        probe: what pip-audit says of `KNOWN`; None: nothing that can be read.
        found: what it says of all that is locked; None: it was not asked.
    """
    if _num_vulnerabilities(probe) == 0:
        return NOT_ASKED, [
            f"Nothing was audited: the database of vulnerabilities did not answer, or it would know that of {KNOWN}.",
            "It is asked at the package index's own address; run this where that can be reached.",
        ]
    if not found or not found.get("dependencies"):
        return NOT_ASKED, ["Nothing was audited: pip-audit gave no list of packages."]
    skipped = [f"{one['name']}: {one['skip_reason']}" for one in found["dependencies"] if "skip_reason" in one]
    known = [
        f"{one['name']} {one['version']}: {vulnerability['id']}, mended in {vulnerability['fix_versions']}"
        for one in found["dependencies"]
        for vulnerability in one.get("vulns", [])
    ]
    total = f"{len(found['dependencies'])} packages, {len(known)} known vulnerabilities, {len(skipped)} not known"
    return FOUND if known or skipped else 0, [*known, *skipped, total]


def _num_vulnerabilities(found: Any) -> int:
    return sum(len(one.get("vulns", [])) for one in (found or {}).get("dependencies", []))


def _locked() -> list[str]:
    """`name==version` of everything, without hashes and conditions."""
    lines = LOCK.read_text(encoding="utf-8").split("\n")
    return [*map(pinned, APART), *(line.split(" ")[0] for line in lines if line[:1].isalnum())]


def _ask(requirements: Sequence[str]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        needed = Path(folder) / "requirements.txt"
        needed.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(needed), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (ours)
    try:
        return json.loads(done.stdout)
    except ValueError:
        sys.stderr.write(done.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main())
