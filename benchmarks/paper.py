"""The paper's arms (arXiv 2408.00690) with any model: trained and scored by the program's own verbs, beside the paper.

python -m benchmarks.paper openbmb/MiniCPM-2B-dpo-bf16 --triplets nli_for_simcse.csv --sts mteb
python -m benchmarks.paper smollm2-135m --triplets 'nli/*_triplets.tsv.gz' --sts sts --steps 200
python -m benchmarks.paper smollm2-135m --triplets 'nli/*_triplets.tsv.gz' --sts sts --steps 200 --arms published

Each arm has its recipe in recipes/paper/. Changed are the model, the data, what `--steps` says, and the precision,
which is the machine's; STSBenchmark-dev, if there is one, watches, and the last adapter is kept. The folder --out gets
runs/ (one for each arm), evaluations/ (files that `embedsmith compare` takes), and results.json and results.md of all
that is there, anew after every arm. What is finished is not done again, a run that was interrupted goes on, and an arm
that fails is named and tried again by the next call.
"""

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from rich.console import Console
from transformers.utils import logging as transformers_logging

from benchmarks.paper_results import evaluation_path, write_results
from benchmarks.paper_tables import (
    ARMS,
    NINE,
    PROMPTED,
    PROMPTS,
    UNTRAINED,
    place_of,
)
from embedsmith.data.local_sets import set_name
from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.data.readers import is_data_file
from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.evaluation.mteb_tasks import load_mteb_tasks
from embedsmith.evaluation.saved import save_evaluation
from embedsmith.evaluation.sts import load_local_tasks
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.reporting.published import task_name
from embedsmith.settings.choices import Pooling, Precision
from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import load_config
from embedsmith.support import files
from embedsmith.support.allocator import keep_freed_memory
from embedsmith.support.errors import ConfigError, EmbedsmithError, RunError
from embedsmith.training.schedule import make_schedule
from embedsmith.verbs.evaluate import evaluate
from embedsmith.verbs.run_folder import OUTCOME_FILE
from embedsmith.verbs.train import resume_run, train

RECIPES = Path(__file__).parent.parent / "recipes" / "paper"
MTEB = "mteb"
DEV = "STSBenchmark-dev"
INPUTS_FILE = "inputs.json"
NUM_POINTS = 10
"""Of the curve over steps, where nobody says how many steps lie between two."""
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Material:
    """What all arms are trained and scored with.

    Attributes:
        sets: the similarity sets to score, by name.
        dev: the file whose pairs watch the training, or None.
        triplets: to train on.
    """

    sets: dict[str, ScoredPairs]
    dev: Path | None
    triplets: TripletTable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what has not been run yet; 2 if anything failed."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("embedsmith").setLevel(logging.INFO)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    keep_freed_memory()
    options = _parse(arguments)
    try:
        return _run_all(options)
    except EmbedsmithError as error:
        print(error, file=sys.stderr)
        return 2


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="built-in name, hub id or folder of a decoder")
    parser.add_argument("--triplets", nargs="+", default=["nli_for_simcse.csv"], help="files or globs of triplets")
    parser.add_argument("--sts", default="sts", help=f"folder of similarity sets, or `{MTEB}`: all nine, from the hub")
    parser.add_argument("--dev", help=f"file of pairs that watch the training; default: {DEV} of --sts, if it is there")
    parser.add_argument("--steps", type=int, help="of every arm; default: as published, 1,000 or 500")
    parser.add_argument("--warmup-steps", type=int, help="default: as published, 100")
    parser.add_argument(
        "--eval-steps", type=int, help=f"from one point of the curve to the next; default: {NUM_POINTS} a run"
    )
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="only these")
    parser.add_argument(
        "--prompted",
        choices=list(ARMS),
        default=PROMPTED,
        help="the arm that prompts are tried on at test; default: the paper's, which learns little in a short run",
    )
    parser.add_argument("--out", type=Path, help="default: runs/paper/ and the model's name")
    options = parser.parse_args(arguments)
    options.out = options.out or Path("runs/paper") / Path(options.model).name
    return options


def _run_all(options: argparse.Namespace) -> int:
    files.check_output_folder(options.out, option="--out")
    material = _load_material(options)
    configs = {arm: _config(arm, options=options, material=material) for arm in options.arms}
    _check_same(options, material)
    failures: dict[str, str] = {}
    for arm in (UNTRAINED, *options.arms):
        try:
            if arm == UNTRAINED:
                _score(arm, options.model, options=options, material=material)
            elif twin := _twin(arm, configs):
                console.print(f"{arm}: the same run as {twin}")
            else:
                _train(arm, configs[arm])
                _score(arm, configs[arm].output_dir, options=options, material=material)
        except (EmbedsmithError, OSError, RuntimeError) as error:  # the last is torch's, when memory is short
            failures[arm] = str(error)
            console.print(f"{arm} failed: {error}", style="red", markup=False)
        write_results(options, num_triplets=len(material.triplets), failures=failures, with_differences=False)
    write_results(options, num_triplets=len(material.triplets), failures=failures, with_differences=True)
    console.print(f"wrote {options.out / 'results.json'} and {options.out / 'results.md'}")
    return 2 if failures else 0


# ---- what all arms share --------------------------------------------------------------------------------------------


def _load_material(options: argparse.Namespace) -> Material:
    if options.sts == MTEB:
        sets, dev = load_mteb_tasks(NINE), None
    else:
        sets, dev = _choose_sets(Path(options.sts))
    dev = Path(options.dev) if options.dev else dev
    if dev is None:
        console.print(f"no {DEV} in {options.sts} and no --dev: nothing watches the training, so no curve over steps")
    else:
        load_pairs(str(dev))  # a fault in it shows before hours are spent
    return Material(sets=sets, dev=dev, triplets=load_triplets(options.triplets))


def _choose_sets(folder: Path) -> tuple[dict[str, ScoredPairs], Path | None]:
    """The paper's sets that a folder holds (all its sets, if none) and its development set."""
    found = load_local_tasks(folder)
    chosen = {name: found[name] for name in found if task_name(name) in NINE} or {
        name: pairs for name, pairs in found.items() if name != DEV
    }
    chosen = dict(sorted(chosen.items(), key=lambda item: place_of(item[0])))
    console.print(f"scored on {', '.join(chosen)}")
    if left_out := [name for name in found if name not in chosen and name != DEV]:
        console.print(f"not among the paper's sets, left out: {', '.join(left_out)}")
    dev = next((path for path in folder.iterdir() if is_data_file(path.name) and set_name(path.name) == DEV), None)
    return chosen, dev


def _check_same(options: argparse.Namespace, material: Material) -> None:
    """Keep what everything in --out is made from; refuse to add to what was made from something else."""
    path = options.out / INPUTS_FILE
    inputs = {
        "model": list(fingerprint_model(options.model)),
        "triplets": material.triplets.fingerprint,
        "sets": {name: pairs.fingerprint for name, pairs in material.sets.items()},
        "dev": load_pairs(str(material.dev)).fingerprint if material.dev else None,
        **{name: getattr(options, name) for name in ("steps", "warmup_steps", "eval_steps")},
    }
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if changed := [name for name in inputs if kept.get(name) != inputs[name]]:
            raise RunError(f"{options.out} holds arms with other {', '.join(changed)}.\nName another folder: --out DIR")
    files.write_json(path, inputs)


def _config(arm: str, *, options: argparse.Namespace, material: Material) -> RunConfig:
    path = RECIPES / f"{ARMS[arm]}.yaml"
    published = load_config(path).training
    max_steps = published.max_steps if options.steps is None else options.steps
    assert max_steps is not None, f"{path} says how many steps"
    every = max(1, max_steps // NUM_POINTS) if options.eval_steps is None else options.eval_steps
    config = load_config(
        path,
        overrides={
            "output_dir": str(options.out / "runs" / arm),
            "model.model": options.model,
            "model.precision": Precision.AUTO,
            "model.max_length": None,  # the published 150, or what a model takes that takes less
            "data.train": options.triplets,
            "adapter.target_modules": None,  # the query and value projections, whatever a family calls them
            "training.max_steps": max_steps,
            "training.warmup_steps": published.warmup_steps if options.warmup_steps is None else options.warmup_steps,
            "training.save_steps": every,
            "evaluation.dev": str(material.dev) if material.dev else None,
            "evaluation.keep": "last",
            "evaluation.eval_steps": every,
        },
    )
    try:
        make_schedule(config, num_triplets=len(material.triplets))
    except ConfigError as error:
        raise ConfigError(f"{error}\nHere these are --warmup-steps and --steps.") from None
    return config


def _twin(arm: str, configs: Mapping[str, RunConfig]) -> str | None:
    """An arm before this one that is the same run: with --steps, the published one is that of its learning rate."""
    own = configs[arm].model_dump(exclude={"output_dir"})
    before = takewhile(lambda other: other != arm, configs)
    return next((other for other in before if configs[other].model_dump(exclude={"output_dir"}) == own), None)


# ---- one arm --------------------------------------------------------------------------------------------------------


def _train(arm: str, config: RunConfig) -> None:
    run = Path(config.output_dir)
    if (run / OUTCOME_FILE).exists():
        return
    console.print(f"{arm}: training")
    if any((run / "checkpoints").glob("step-*")):
        resume_run(run, console=console)
    else:
        if run.exists():  # stopped before its first checkpoint
            shutil.rmtree(run)
        train(config, console=console)


def _score(arm: str, model: str, *, options: argparse.Namespace, material: Material) -> None:
    """Score a model or run on all sets, and with the prompts where the paper tries them at test."""
    for prompt in (None, *PROMPTS) if arm in (UNTRAINED, options.prompted) else (None,):
        path = evaluation_path(options.out, arm, prompt)
        if path.exists():
            continue
        console.print(f"{arm}: scoring{f' with {prompt}' if prompt else ''}")
        scored = evaluate(
            model,
            data=None if options.sts == MTEB else options.sts,
            tasks=list(material.sets),
            poolings=[Pooling.LAST],
            end_token=True,
            prompt=prompt,
            console=console,
        )
        (result,) = scored.values()
        save_evaluation(path, replace(result, model=arm))
        console.print(f"  {100 * result.average:.2f} on average")


if __name__ == "__main__":
    sys.exit(main())
