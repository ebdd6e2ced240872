"""The patterns of an adapter's layers, tried before peft matches with them.

A regular expression may take longer than anybody waits, `(a+)+b` for one, and nothing tells which ones do. So they are
tried in a process of their own, which can be ended.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedsmith.model.loading.peft_config import ADAPTER_FILE, listed
from embedsmith.support.errors import ModelError

LONGEST_S = 5
_REPEATS = set("*+?{")
_TRY = r"""
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    for form in ("{}$", "(.*\\.)?({})$", "(^|.*\\.){}($|\\..*)", "(?:^|.*?\\.){}\\.(\\d+)\\."):  # those of peft
        try:
            compiled = re.compile(form.replace("{}", pattern))
        except (re.error, OverflowError, RecursionError):
            break  # whoever matches with it says so
        for name in names:
            compiled.match(name)
"""


def check_patterns_end(values: Mapping[str, Any], *, names: Sequence[str], folder: Path) -> None:
    """Refuse patterns that do not come to an end on a model's layers.

    Args:
        values: of adapter_config.json, of the right types.
        names: of all layers.
        folder: of the adapter.

    Raises:
        ModelError: matching takes more than `LONGEST_S` seconds.
    """
    patterns = [pattern for pattern in _patterns(values) if _REPEATS & set(pattern)]
    if not patterns:
        return
    try:
        subprocess.run(  # noqa: S603 (ours)
            [sys.executable, "-I", "-S", "-c", _TRY],
            input=json.dumps([patterns, list(names)]),
            text=True,
            capture_output=True,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        shown = ", ".join(f"{pattern:.200}" for pattern in patterns)
        raise ModelError(
            f"The adapter {folder} has a pattern in {ADAPTER_FILE} that takes forever on the model's layers: {shown}\n"
            "Get the file again, or name the layers."
        ) from None


def _patterns(values: Mapping[str, Any]) -> Iterable[str]:
    """What peft reads as regular expressions: names in a list are none, keys and `layers_pattern` are."""
    for key in ("target_modules", "exclude_modules"):
        if isinstance(values.get(key), str):
            yield values[key]
    for key in ("rank_pattern", "alpha_pattern"):
        yield from values.get(key) or {}
    yield from listed(values.get("layers_pattern"))
    yield from listed(values.get("modules_to_save"))
