"""A folder of runs, each found by what it is made of, that are made one after the other.

Invariants: one process works in the folder at a time; a run that was killed goes on where it was; runs that are there
were made from the data and models that lie there now.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from embedsmith.model.loading.embedding_files import describe_model
from embedsmith.settings.config import RunConfig
from embedsmith.support import files
from embedsmith.support.errors import RunError, list_faults
from embedsmith.support.json_text import parse_json
from embedsmith.training.checkpoint import has_checkpoints, newest_progress
from embedsmith.training.keeping import Watch
from embedsmith.verbs.inputs import INPUTS_FILE, begun_prompt_tokens, check_unchanged, load_inputs
from embedsmith.verbs.train import Run, resume_run, train

log = logging.getLogger(__name__)

RESULT_FILE = "result.json"


def identity_of(config: RunConfig, *, with_seed: bool = True) -> str:
    """What a run is, wherever it lies."""
    values = config.model_dump(mode="json", exclude={"output_dir"})
    if not with_seed:
        values["training"].pop("seed")
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=4).hexdigest()


def find_run(folder: Path, identity: str) -> Path | None:
    """The run's folder, whose name ends in its identity."""
    return next(iter(folder.glob(f"*-{identity}")), None)


def read_result(run: Path | None) -> dict[str, Any]:
    """What was recorded of a run that is over; empty while it is not."""
    path = run / RESULT_FILE if run else None
    return parse_json(files.read_text(path)) if path and path.exists() else {}


def start_or_resume(
    run: Path, config: RunConfig, *, watch: Watch | None = None, device: str | None, console: Console
) -> Run:
    """Train into a folder, or go on with what has a checkpoint there; errors as `train`."""
    if newest_progress(run) is not None:
        return resume_run(run, watch=watch, device=device, console=console)
    if has_checkpoints(run):
        log.warning("%s: no checkpoint is whole, so the run begins anew.", run)
    if run.exists():
        shutil.rmtree(run)
    return train(config.model_copy(update={"output_dir": str(run)}), watch=watch, device=device, console=console)


def check_runs_unchanged(folder: Path, configs: Mapping[str, RunConfig], *, what: str, advice: str) -> None:
    """Runs that are there, finished or stopped, must have been made from what lies there now.

    Args:
        folder: of the runs.
        configs: identity -> run.
        what: they belong to, for messages.
        advice: what to do where something has changed.

    Raises:
        RunError: naming all that has changed.
    """
    known: dict[str, dict[str, Any]] = {}
    faults = []
    for identity, config in configs.items():
        run = find_run(folder, identity)
        if run is None or not ((run / RESULT_FILE).exists() or newest_progress(run) is not None):
            continue
        sources = repr((config.data, config.evaluation, config.model.model, config.teacher.teacher))
        known[sources] = known.get(sources) or load_inputs(config)
        try:
            check_unchanged(run, {**known[sources], "settings": {}})  # those are the same, by the run's name
        except RunError as error:
            faults += [f"{run.name}: {line.strip()}" for line in str(error).split("\n")[1:-1]]
        if was := _other_prompt_tokens(run, config):
            faults.append(f"{run.name}: prompts and texts were tokenised {was}, which new runs are not")
    if faults:
        headline = f"There are runs of this {what} that were made from something else. Since then have changed:"
        raise RunError(list_faults(headline, faults, advice=advice))


def _other_prompt_tokens(run: Path, config: RunConfig) -> str | None:
    """How a run with a prompt was begun to tokenise it, if a new one would do otherwise."""
    if not (run / INPUTS_FILE).exists() or not (config.model.prompt or config.model.query_prompt):
        return None
    begun = begun_prompt_tokens(run)
    return begun if begun != describe_model(config.model.model).settings.prompt_tokens else None
