"""A run's folder <-> what it tells of the run: recipe, metrics, what it took, where it ran."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from embedsmith.data.table import TripletTable
from embedsmith.model.embedder import Embedder
from embedsmith.records.findings import Cost, RunRecord
from embedsmith.settings.config import RunConfig
from embedsmith.support import files
from embedsmith.support.environment import describe_environment, peak_bytes
from embedsmith.support.errors import RunError
from embedsmith.support.json_text import parse_json
from embedsmith.training.keeping import Outcome
from embedsmith.training.metrics import METRICS_FILE, read_metrics

CONFIG_FILE = "run.yaml"
OUTCOME_FILE = "outcome.json"


def write_outcome(
    folder: Path,
    *,
    config: RunConfig,
    embedder: Embedder,
    outcome: Outcome,
    triplets: TripletTable,
    num_processes: int,
) -> None:
    """Write what a run of so many processes did, what it took and where it ran."""
    model, device = embedder.backbone.model, embedder.device
    num_frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    where = f"{str(model.dtype).removeprefix('torch.')} on {device.type}, {embedder.path}"
    trained_on = triplets.size
    facts = {
        "model": f"{config.model.model}, {where}",
        "trained": f"{outcome.num_trained:,} of {num_frozen + outcome.num_trained:,} parameters",
        "data": f"{trained_on}: {', '.join(config.data.source_names)}",
        "kept": _what_was_kept(outcome, is_best=bool(outcome.best) and config.evaluation.keep == "best"),
    }
    cost = Cost(
        num_steps=outcome.num_steps,
        num_tokens=outcome.num_tokens,
        elapsed_s=outcome.elapsed_s,
        peak_bytes=peak_bytes(device),
        num_threads=torch.get_num_threads() * num_processes,
        num_gpus=num_processes if device.type == "cuda" else 0,
    )
    record = {
        "family": model.config.model_type,
        "is_plain": embedder.is_plain,
        "attends_as_base": embedder.attends_as_base,
        "averaged": list(outcome.averaged),
        "trained_on": trained_on,
        "facts": facts,
        "cost": asdict(cost),
        "environment": describe_environment(device),
    }
    files.write_json(folder / OUTCOME_FILE, record)


def _what_was_kept(outcome: Outcome, *, is_best: bool) -> str:
    if outcome.averaged:
        return f"the average of steps {name_steps(outcome.averaged)} of {outcome.num_steps}"
    why = "best on the development pairs" if is_best else "the last"
    return f"step {outcome.best_step} of {outcome.num_steps}, {why}"


def name_steps(steps: Sequence[int]) -> str:
    """For people to read."""
    return f"{', '.join(map(str, steps[:-1]))} and {steps[-1]}"


def is_run(folder: Path | str) -> bool:
    """Whether a folder is that of a run."""
    return (Path(folder) / CONFIG_FILE).exists()


def why_no_run(folder: Path | str) -> str:
    """What a folder that is no run's lacks, and what to name, for people to read."""
    reason = f"it has no {CONFIG_FILE}" if Path(folder).exists() else "there is no such folder"
    return f"{reason}.\nName the folder of a run; {CONFIG_FILE} lies in it."


def read_outcome(folder: Path) -> dict[str, Any]:
    """The record that `write_outcome` wrote; raises RunError when the run is not finished, or the file damaged."""
    try:
        outcome = parse_json(files.read_text(folder / OUTCOME_FILE))
        found = {name: outcome[name] for name in ("family", "trained_on", "facts", "cost", "environment")}
        # Older runs do not say these.
        newer: dict[str, Any] = {"is_plain": True, "attends_as_base": None, "averaged": []}
        return found | {name: outcome.get(name, default) for name, default in newer.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not is_run(folder):
            raise RunError(f"{folder} is not the folder of a finished run: {why_no_run(folder)}") from error
        raise RunError(
            f"{folder} is not the folder of a finished run ({OUTCOME_FILE}: {error!r}).\n"
            f"Finish it with: embedsmith train --resume {folder}"
        ) from error


def read_run(folder: Path, *, title: str) -> RunRecord:
    """What the folder of a finished run tells; raises RunError when it is none, or damaged."""
    outcome = read_outcome(folder)
    return RunRecord(
        title=title,
        config_yaml=files.read_text(folder / CONFIG_FILE),
        metrics=tuple(read_metrics(folder / METRICS_FILE)),
        facts={**outcome["facts"], **Cost(**outcome["cost"]).lines, **outcome["environment"]},
    )
