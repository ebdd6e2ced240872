"""What a run was made from, as fingerprints in its folder, so that going on with it notices what has changed.

Training data, development set, base and teacher count by their contents, not by their names: they may move. Settings
that change no result may change, too. Cost: reading data and weights once, half a second a gigabyte.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.model.loading.settings import PromptTokens
from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import known_keys
from embedsmith.support import files
from embedsmith.support.environment import describe_environment
from embedsmith.support.errors import RunError, list_faults
from embedsmith.support.json_text import parse_json
from embedsmith.training.checkpoint import FOLDER

log = logging.getLogger(__name__)

INPUTS_FILE = f"{FOLDER}/inputs.json"
_BY_CONTENTS = ("model.model", "data.train", "data.columns", "data.max_triplets", "evaluation.dev", "teacher.teacher")
_FREE = (
    *("output_dir", "evaluation.dev_columns", "training.max_tokens", "training.save_steps"),
    *("training.save_total_limit", "training.report_to", "model.sharded"),
)
_FILES = {
    "data": "the training data",
    "dev": "the development set",
    "base": "the base model",
    "teacher": "the teacher",
}


def describe_inputs(config: RunConfig, *, triplets: TripletTable, dev: ScoredPairs | None) -> dict[str, Any]:
    """Fingerprints of all that a run is made from, and its settings.

    Raises:
        ModelError: the base or the teacher is not there.
    """
    # Which rows are of one source says which meet.
    by_source = triplets.source_fingerprint if config.data.one_source_batches else ""
    return {
        "data": triplets.fingerprint + by_source,
        "dev": dev.fingerprint if dev else None,
        "base": list(fingerprint_model(config.model.model)),
        "teacher": [weights for name in config.teacher.names for weights in fingerprint_model(name)] or None,
        "settings": {key: value for key, value in flat_settings(config).items() if key not in (*_BY_CONTENTS, *_FREE)},
    }


def load_inputs(config: RunConfig) -> dict[str, Any]:
    """`describe_inputs` of what lies there now; errors as of the loading of data and models."""
    triplets = load_triplets(config.data.train, columns=config.data.columns)
    if config.data.max_triplets:
        triplets = triplets.draw(config.data.max_triplets)
    dev = config.evaluation.dev
    pairs = load_pairs(dev, columns=config.evaluation.dev_columns) if dev else None
    return describe_inputs(config, triplets=triplets, dev=pairs)


def describe_machine(embedder: Embedder) -> dict[str, str]:
    """What may change a result's last digits, in words."""
    dtype = str(embedder.backbone.model.dtype).removeprefix("torch.")
    return {
        "software": describe_environment(embedder.device)["software"],
        "computed in": f"{dtype} on {embedder.device.type}",
    }


def write_inputs(
    folder: Path, inputs: Mapping[str, Any], *, machine: Mapping[str, str], prompt_tokens: PromptTokens
) -> None:
    """Keep them in the run's folder."""
    files.write_json(folder / INPUTS_FILE, {**inputs, "machine": dict(machine), "prompt_tokens": prompt_tokens})


def begun_prompt_tokens(folder: Path) -> PromptTokens:
    """How a run that has begun tokenises prompts; joined with texts where it does not say, as all did then."""
    try:
        values = parse_json(files.read_text(folder / INPUTS_FILE))
    except (OSError, ValueError):
        return "joined"  # `check_unchanged` says what is wrong with the file
    return values.get("prompt_tokens", "joined") if isinstance(values, dict) else "joined"


def begun_machine(folder: Path) -> dict[str, str]:
    """What `describe_machine` said when a run began; empty where its folder does not say."""
    try:
        return dict(parse_json(files.read_text(folder / INPUTS_FILE))["machine"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def check_unchanged(folder: Path, inputs: Mapping[str, Any], *, machine: Mapping[str, str] | None = None) -> None:
    """Refuse to go on with a run that was begun with something else; say where it goes on under other software.

    Raises:
        RunError: naming all that has changed; or the file is damaged.
    """
    if not (folder / INPUTS_FILE).exists():
        log.warning("%s kept no fingerprints: whether data and models are the same as then cannot be told.", folder)
        return
    try:
        kept = parse_json(files.read_text(folder / INPUTS_FILE))
        changed = [what for key, what in _FILES.items() if kept[key] != inputs[key]]
        settings = dict(kept["settings"])
        begun_on = dict(kept["machine"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder / INPUTS_FILE} is damaged: {error!r}.\nStart the run anew in another folder."
        ) from error
    defaults = flat_settings(RunConfig(output_dir="none"))
    changed += [
        f"{key}: it was {settings.get(key, defaults[key])!r}, now it is {value!r}"
        for key, value in inputs["settings"].items()
        if settings.get(key, defaults[key]) != value
    ]
    if changed:
        headline = f"{folder} cannot go on as it was begun. Since then have changed:"
        raise RunError(
            list_faults(headline, changed, advice="Put back what was there, or start a new run in another folder.")
        )
    for name, now in (machine or {}).items():
        if begun_on.get(name, now) != now:
            log.warning("%s was begun with other %s, so the last digits may differ: %s", folder, name, begun_on[name])


def flat_settings(config: RunConfig) -> dict[str, Any]:
    """Every setting by its full name."""
    values = config.model_dump(mode="json")
    found = {}
    for key in known_keys():
        value: Any = values
        for part in key.split("."):
            value = value[part]
        found[key] = value
    return found
