"""What transformers 5 writes into config.json under names that version 4 does not know, said by its names too.

Version 4 would take its defaults without a word: another base of the rotary angles, so other vectors (cosine 0.993 for
a sentence of SmolLM2-135M, transformers 4.57.6).
"""

import json
from pathlib import Path
from typing import Any

from embedsmith.support import files

_PLAIN = {"rope_type": "default"}
_FULL, _SLIDING = "full_attention", "sliding_attention"


def add_older_names(folder: Path) -> None:
    """Add them to a folder's config.json; version 5 reads both and finds the same."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    files.write_json(path, {**config, **older_rope_names(config.get("rope_parameters"))})


def older_rope_names(parameters: dict[str, Any] | None) -> dict[str, Any]:
    """`rope_parameters`, of all layers or of each kind of them, as version 4 has it."""
    if not parameters:
        return {}
    if _FULL in parameters:
        of_windows = parameters.get(_SLIDING) or {}
        local = {"rope_local_base_freq": of_windows["rope_theta"]} if "rope_theta" in of_windows else {}
        return {**older_rope_names(parameters[_FULL]), **local}
    apart: dict[str, Any] = {
        name: parameters[name] for name in ("rope_theta", "partial_rotary_factor") if name in parameters
    }
    rest = {name: value for name, value in parameters.items() if name not in apart}
    return apart if rest in ({}, _PLAIN) else {**apart, "rope_scaling": rest}
