"""The folder of `python -m benchmarks.paper` -> results.json and results.md, of all arms that lie in it."""

import argparse
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import processor_name
from benchmarks.paper_tables import ARMS, NO_PROMPT, PROMPTED, PROMPTS, UNTRAINED, VARIES, results_page
from embedsmith.evaluation.saved import read_results
from embedsmith.evaluation.significance import SEED_SPREAD
from embedsmith.settings.recipe import load_config
from embedsmith.support import files
from embedsmith.support.environment import describe_environment
from embedsmith.training.metrics import METRICS_FILE, read_metrics
from embedsmith.verbs.compare import compare_models
from embedsmith.verbs.run_folder import CONFIG_FILE, read_outcome

RESULTS_FILE = "results.json"


def evaluation_path(out: Path, arm: str, prompt: str | None = None) -> Path:
    """Where the scores of an arm with a prompt lie."""
    return out / "evaluations" / (f"{arm}-{prompt}.json" if prompt else f"{arm}.json")


def write_results(
    options: argparse.Namespace, *, num_triplets: int, failures: Mapping[str, str], with_differences: bool
) -> None:
    """`results.json` and `results.md` of all arms that are there, those of earlier calls too."""
    path = options.out / RESULTS_FILE
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    attempted = (UNTRAINED, *options.arms)
    kept = {arm: why for arm, why in before.get("failures", {}).items() if arm not in attempted}
    arms = {arm: _arm(arm, out=options.out) for arm in (UNTRAINED, *ARMS) if evaluation_path(options.out, arm).exists()}
    results = {
        "model": _short(options.model),
        "command": _command(options, arms=[arm for arm in arms if arm != UNTRAINED]),
        "steps": options.steps,
        "warmup_steps": options.warmup_steps,
        "triplets": num_triplets,
        "machine": _describe_machine(),
        "arms": arms,
        "differences": _differences(options.out, arms) if with_differences else before.get("differences", {}),
        "failures": {**kept, **failures},
    }
    files.write_json(path, results)
    files.write_text(options.out / "results.md", results_page([results]))


def _arm(arm: str, *, out: Path) -> dict[str, Any]:
    """What is kept of one: its settings, its curve, and its scores with each prompt."""
    scores = {}
    for prompt in (None, *PROMPTS):
        if (path := evaluation_path(out, arm, prompt)).exists():
            result, _ = read_results(path)
            scores[prompt or NO_PROMPT] = {name: task.to_json() for name, task in result.tasks.items()}
    if arm == UNTRAINED:
        return {"scores": scores}
    run = out / "runs" / arm
    training = load_config(run / CONFIG_FILE).training
    curve = [
        [record["step"], record["dev_cosine_spearman"]]
        for record in read_metrics(run / METRICS_FILE)
        if "dev_cosine_spearman" in record
    ]
    names = ("max_steps", "warmup_steps", "learning_rate", "batch_size", "use_hard_negatives")
    return {
        "recipe": f"recipes/paper/{ARMS[arm]}.yaml",
        **{name: getattr(training, name) for name in names},
        "seconds": round(read_outcome(run)["cost"]["elapsed_s"]),
        "curve": curve,
        "scores": scores,
    }


def _differences(out: Path, arms: Mapping[str, Any]) -> dict[str, Any]:
    """Each arm against the one that it varies, whose seeds may differ, and each prompt against none, with the same
    weights; on average over the sets."""
    varied = {arm: next((base for base in VARIES.get(arm, ()) if base in arms), None) for arm in arms}
    found = {
        arm: _difference(evaluation_path(out, base), evaluation_path(out, arm), seed_spread=SEED_SPREAD)
        for arm, base in varied.items()
        if base
    }
    return found | {
        f"{arm}, {prompt}": _difference(evaluation_path(out, arm), evaluation_path(out, arm, prompt), seed_spread=0)
        for arm in arms
        for prompt in PROMPTS
        if prompt in arms[arm]["scores"]
    }


def _difference(base: Path, other: Path, *, seed_spread: float) -> dict[str, Any]:
    (comparison,) = compare_models([str(base), str(other)], seed_spread=seed_spread)
    return {"against": base.stem, **comparison.average.to_json()}


def _describe_machine() -> dict[str, Any]:
    is_gpu = torch.cuda.is_available()
    return {
        "processor": torch.cuda.get_device_name() if is_gpu else processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "software": describe_environment(torch.device("cpu"))["software"],
    }


def _command(options: argparse.Namespace, *, arms: Sequence[str]) -> str:
    """That makes these arms, given in the folder that holds the files: no place of this machine in it."""
    words = ["python", "-m", "benchmarks.paper", _short(options.model), "--triplets", *map(_short, options.triplets)]
    words += ["--sts", _short(options.sts)] + (["--dev", _short(options.dev)] if options.dev else [])
    words += ["--prompted", options.prompted] if options.prompted != PROMPTED else []
    for name in ("steps", "warmup_steps", "eval_steps"):
        value = getattr(options, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    words += ["--arms", *arms] if options.arms != list(ARMS) else []
    return shlex.join(words)


def _short(place: str) -> str:
    """Of an absolute path what stands in the folder that a user would have: `sts`, `nli/*_triplets.tsv.gz`."""
    path = Path(place)
    return str(Path(*path.parts[-2:]) if path.suffix else path.name) if path.is_absolute() else place
