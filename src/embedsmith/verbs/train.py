"""train: a configuration -> a run folder, by way of data, model, training and evaluation."""

import logging
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from embedsmith.data.pairs import ScoredPairs
from embedsmith.evaluation.sts import pair_similarities, score_task
from embedsmith.model.embedder import Embedder
from embedsmith.model.teacher import LoadedTeachers
from embedsmith.model.trained import ADAPTER_FOLDER, MODEL_FOLDER
from embedsmith.records.results import EvaluationResult, TaskResult
from embedsmith.reporting.tables import describe_share
from embedsmith.settings.choices import Side
from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import load_config
from embedsmith.support import files
from embedsmith.support.display import TrainingDisplay, encoding_progress
from embedsmith.support.errors import DiskFullError, Interrupted, ModelError, RunError
from embedsmith.support.free_memory import let_go
from embedsmith.support.lock import LOCK_FILE, only_one
from embedsmith.training.batching import source_shares
from embedsmith.training.checkpoint import FOLDER, has_checkpoints
from embedsmith.training.health import NON_FINITE
from embedsmith.training.keeping import Outcome, Watch
from embedsmith.training.late import LATE_FOLDER
from embedsmith.training.loop import train_adapter
from embedsmith.training.objective import Objective
from embedsmith.training.peers import Peers, how_to_go_on, is_broken_exchange, stay_at_exit
from embedsmith.verbs.card import write_card
from embedsmith.verbs.inputs import (
    begun_prompt_tokens,
    check_unchanged,
    describe_inputs,
    describe_machine,
    write_inputs,
)
from embedsmith.verbs.prepare import PreparedRun, is_first_process, prepare_run
from embedsmith.verbs.run_folder import CONFIG_FILE, OUTCOME_FILE, name_steps, why_no_run, write_outcome

log = logging.getLogger(__name__)

DEV_TASK = "dev"
_KEPT = (ADAPTER_FOLDER, MODEL_FOLDER)


@dataclass(frozen=True)
class Run:
    """A run that is finished, or was told to stop.

    Attributes:
        config: as resolved.
        embedder: holds the adapter that was kept.
        outcome: steps, tokens, time.
        dev: score of the kept adapter on the development set, if there is one.
        num_triplets: size of the training data.
    """

    config: RunConfig
    embedder: Embedder
    outcome: Outcome
    dev: EvaluationResult | None
    num_triplets: int


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    watch: Watch | None = None,
    device: str | None = None,
    console: Console | None = None,
) -> Run:
    """Train an adapter into the run folder `config.output_dir`.

    Started on several processes (by torchrun or accelerate), they share each batch, and the first one writes.
    Everything that can fail early does so before the folder is made: data, model, doctor, length of the run.

    Args:
        config: the run.
        resume: go on from the folder's newest checkpoint; anew where the run was killed before it kept anything.
        watch: told of every evaluation, may stop the run there. Its folder then looks as that of any run that was
            stopped: it has a checkpoint to go on from, and no outcome or model card.
        device: `cpu`, `cuda` or one of several, `cuda:1`; None: CUDA where there is one, else the CPU.
        console: where progress goes; None: nowhere.

    Raises:
        RunError: the folder exists (or, to resume, does not, or data, models or settings have changed), another process
            works in it, or the loss is not finite.
        DiskFullError: something of the run could not be written.
        Interrupted: SIGTERM or Ctrl-C came while it trained; there is a checkpoint.
        DataError, ModelError, ConfigError, MissingExtraError: by their names.
    """
    console = console or Console(quiet=True)
    folder = Path(config.output_dir)
    if resume and _begins_anew(folder):
        resume = False
    elif not resume and is_first_process():
        check_run_folder(folder)
    begun = begun_prompt_tokens(folder) if resume else None
    run = prepare_run(config, device=device, prompt_tokens=begun)
    config = run.config
    embedder, triplets, dev = run.embedder, run.triplets, run.dev
    _announce(run, console)
    inputs, machine = describe_inputs(config, triplets=triplets, dev=dev), describe_machine(embedder)
    if resume:
        check_unchanged(folder, inputs, machine=machine)
    run = _with_kept_teacher(run, console)
    let_go()  # of the teacher
    with _among_peers(run.peers, folder):
        return _train_prepared(
            run, folder=folder, inputs=inputs, machine=machine, resume=resume, watch=watch, console=console
        )


def _train_prepared(
    run: PreparedRun,
    *,
    folder: Path,
    inputs: Mapping[str, Any],
    machine: Mapping[str, str],
    resume: bool,
    watch: Watch | None,
    console: Console,
) -> Run:
    config, embedder, triplets, dev, accelerator = run.config, run.embedder, run.triplets, run.dev, run.accelerator
    accelerator.wait_for_everyone()  # nobody may find the folder made by another process before looking for it
    is_main = accelerator.is_main_process
    with _run_folder(folder, removes=is_main), _lock(folder, is_needed=is_main):
        if is_main:
            for place in (folder, folder / FOLDER, folder / LATE_FOLDER):
                files.remove_leftovers(place)
            files.write_text(folder / CONFIG_FILE, config.to_yaml())
            if not resume:
                write_inputs(folder, inputs, machine=machine, prompt_tokens=embedder.settings.prompt_tokens)
        if config.training.report_to:
            accelerator.init_trackers("embedsmith")
        with TrainingDisplay(console, max_steps=run.schedule.max_steps) as display:
            outcome = train_adapter(
                embedder,
                config=config,
                triplets=triplets,
                objective=run.objective,
                evaluate=partial(_score_in_training, embedder, dev) if dev else None,
                accelerator=accelerator,
                display=display,
                watch=watch,
                resume=resume,
            )
        accelerator.wait_for_everyone()  # for the main process to have written the adapter
        if run.peers:
            run.peers.stop()  # from here on each ends when it is done
        for tracker in accelerator.trackers:
            tracker.finish()  # not by `end_training`, which parts the processes: a sweep has more runs
        if outcome.signal:
            raise Interrupted(
                f"Stopped by {outcome.signal.name} after step {outcome.num_steps} of {run.schedule.max_steps}; "
                "there is a checkpoint of it.",
                folder=str(folder),
                signal=outcome.signal,
            )
        if outcome.best_step != outcome.num_steps:
            embedder.trained.reload(folder / embedder.trained.folder_name)
        dev_result = EvaluationResult(model=str(folder), tasks={DEV_TASK: outcome.best}) if outcome.best else None
        if is_main and not outcome.is_stopped:
            write_outcome(
                folder,
                config=config,
                embedder=embedder,
                outcome=outcome,
                triplets=triplets,
                num_processes=accelerator.num_processes,
            )
            write_card(folder, dev=dev_result)
    return Run(config, embedder, outcome, dev_result, len(triplets))


def check_run_folder(folder: Path) -> None:
    """Raise RunError when a run folder is taken, or cannot be made; an empty one is not taken, nor what a kill left."""
    is_taken = folder.exists() and (not folder.is_dir() or any(map(_counts, folder.rglob("*"))))
    if is_taken:
        raise RunError(f"The run folder {folder} exists already.\nChoose another output_dir, or remove it.")
    files.check_output_folder(folder, option="output_dir")


def resume_run(
    folder: Path | str, *, watch: Watch | None = None, device: str | None = None, console: Console | None = None
) -> Run:
    """Go on with a run that was stopped; it ends as if it had not been. Errors as `train`."""
    path = Path(folder) / CONFIG_FILE
    if not path.exists():
        raise RunError(f"{folder} is no run folder: {why_no_run(folder)}")
    files.check_output_folder(folder, option="--resume")
    config = load_config(path)
    if Path(config.output_dir).resolve() != Path(folder).resolve():  # it has been moved
        config = config.model_copy(update={"output_dir": str(folder)})
    return train(config, resume=True, watch=watch, device=device, console=console)


def _counts(path: Path) -> bool:
    """Whether a file is more than the lock, or than what a writer that was killed had begun."""
    return path.is_file() and path.name != LOCK_FILE and path.suffix != ".tmp"


def _begins_anew(folder: Path) -> bool:
    """Whether a run that shall go on was killed before it had kept anything.

    Raises:
        RunError: it has no checkpoint, but something else that it would lose.
    """
    if has_checkpoints(folder):
        return False
    kept = [name for name in (*_KEPT, LATE_FOLDER, OUTCOME_FILE) if (folder / name).exists()]
    if kept:
        raise RunError(
            f"{folder} holds no checkpoint to resume from, but {kept[0]}, which a new start would replace.\n"
            f"Start it in another folder: embedsmith train --config {shlex.quote(str(folder / CONFIG_FILE))} "
            "--output_dir DIR"
        )
    if is_first_process():
        log.warning("%s holds no checkpoint yet: the run begins anew.", folder)
    return True


def _announce(run: PreparedRun, console: Console) -> None:
    embedder, config = run.embedder, run.config
    dtype = str(embedder.backbone.model.dtype).removeprefix("torch.")
    console.print(
        f"{run.triplets.size}, {run.schedule.max_steps} steps of {config.training.batch_size}; "
        f"model {config.model.model} ({dtype}, {embedder.device}, {embedder.path})",
        markup=False,
        highlight=False,
    )
    if averaged := run.schedule.averaged:
        size = sum(tensor.nbytes for tensor in embedder.trained.state.values()) / 1e6
        console.print(
            f"The average of steps {name_steps(averaged)} will be kept. Their states stay in "
            f"{config.output_dir}/{LATE_FOLDER}: {len(averaged)} x {size:.2f} MB.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for source in source_shares(run.triplets, config=config, num_steps=run.schedule.max_steps):
        console.print(f"{source.name}: {describe_share(source)}", markup=False, highlight=False)
    for why in dict.fromkeys(embedder.why_not_shared(side) for side in Side):
        if why:
            console.print(f"The prompt is computed anew with every text: {why}.", markup=False, highlight=False)


def _with_kept_teacher(run: PreparedRun, console: Console) -> PreparedRun:
    """The same run with what its teacher says about all texts of the data, in the place of the model itself."""
    objective = run.objective
    if not (isinstance(objective, Objective) and isinstance(objective.teacher, LoadedTeachers)):
        return run
    texts = run.triplets.texts_by_side(with_negatives=run.config.training.use_hard_negatives)
    whose = "teacher's" if len(run.config.teacher.names) == 1 else "teachers'"
    what = f"the {whose} vectors of {sum(map(len, texts.values())):,} texts"
    started, num_computed = time.perf_counter(), 0
    with encoding_progress(console) as (start, advance):
        start(what)

        def count(num_texts: int) -> None:
            nonlocal num_computed
            num_computed += num_texts
            advance(num_texts)

        kept = objective.teacher.keep(texts, on_progress=count)
    done = f"{num_computed:,} computed in {time.perf_counter() - started:.0f} s" if num_computed else "all kept before"
    console.print(f"{what}: {done}", markup=False, highlight=False)
    return replace(run, objective=replace(objective, teacher=kept))


@contextmanager
def _among_peers(peers: Peers | None, folder: Path) -> Iterator[None]:
    """Run a block that needs all processes of the run; where one is lost in it, say so.

    Raises:
        RunError: an exchange with another process broke off.
    """
    if peers is None:
        yield
        return
    try:
        yield
    except Interrupted:  # all of them end, each with its last exchange behind it
        peers.stop()
        raise
    except BaseException as error:
        peers.leave()
        stay_at_exit()
        if not is_broken_exchange(error):
            raise
        raise RunError(
            f"Another process of this run has ended, or cannot be reached any more.\n{how_to_go_on(str(folder))}"
        ) from error
    finally:
        peers.stop()


@contextmanager
def _run_folder(folder: Path, *, removes: bool) -> Iterator[None]:
    """Make the run folder; if the block fails before anything worth keeping is in it, take it away again.

    Where it fails because of another process, it can go on from its start. Of several processes one `removes`.

    Raises:
        DiskFullError: where the block could not write, in words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException as error:
        is_stopped = isinstance(error, Interrupted) or is_broken_exchange(error)
        is_begun = is_stopped or has_checkpoints(folder, from_step=1)
        is_worth_keeping = is_begun or any(folder.glob(NON_FINITE.format("*")))
        if removes and not is_worth_keeping and not any((folder / name).exists() for name in _KEPT):
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and files.is_disk_full(error):
            raise DiskFullError(_describe_full(error, folder)) from error
        raise


def _describe_full(error: OSError, folder: Path) -> str:
    what, advice = files.describe_full(error)
    if not has_checkpoints(folder):
        return f"The disk is full: {what}.\nThe run had taken no step that is saved. {advice}, and start it again."
    command = f"embedsmith train --resume {shlex.quote(str(folder))}"
    return f"The disk is full: {what}.\nThe run's checkpoints are whole. {advice}; then go on with:\n  {command}"


@contextmanager
def _lock(folder: Path, *, is_needed: bool) -> Iterator[None]:
    """Of several processes of one run, the first one holds it."""
    with only_one(folder, what="process", file=f"{FOLDER}/{LOCK_FILE}") if is_needed else nullcontext():
        yield


def _score_in_training(embedder: Embedder, dev: ScoredPairs) -> TaskResult:
    try:
        return score_dev(embedder, dev)
    except ModelError as error:
        raise RunError(f"The model has collapsed in training. {error}\nLower training.learning_rate.") from error


def score_dev(embedder: Embedder, dev: ScoredPairs) -> TaskResult:
    """Score an embedder on a development set; raises ModelError when its embeddings cannot be ranked."""
    similarities = pair_similarities(lambda texts: {DEV_TASK: embedder.encode(texts, side=Side.QUERY)}, dev)
    return score_task(similarities[DEV_TASK], dev.scores, task="the development set")
