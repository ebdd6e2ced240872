"""The verbs: each composes the folders below into one thing a user wants done. The command line and the Python API call
these; nothing here parses arguments."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from embedsmith import files
from embedsmith.cards import write_card
from embedsmith.config import Pooling, Precision, RunConfig, Side
from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.display import TrainingDisplay, encoding_progress
from embedsmith.errors import ModelError, RunError
from embedsmith.evaluation.mteb_tasks import load_mteb_tasks
from embedsmith.evaluation.sts import evaluate_tasks, load_local_tasks, pair_similarities, score_task
from embedsmith.model.backbone import SETTINGS_FILE, weights_folder
from embedsmith.model.doctor import Diagnosis, examine
from embedsmith.model.embedder import Embedder
from embedsmith.model.pooling import pooled_width
from embedsmith.model.settings import EmbeddingSettings
from embedsmith.model.trained import kept_in, reload_trained
from embedsmith.model.widths import check_dim, shorten
from embedsmith.prepare import is_first_process, prepare_run
from embedsmith.recipe import load_config
from embedsmith.results import EvaluationResult, TaskResult
from embedsmith.run_folder import CONFIG_FILE, write_outcome
from embedsmith.training.loop import Outcome, train_adapter

DEV_TASK = "dev"


@dataclass(frozen=True)
class Run:
    """A finished run.

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


def diagnose(
    model: str,
    *,
    prompt: str | None = None,
    max_length: int | None = None,
    text: str | None = None,
    base_model: str | None = None,
) -> Diagnosis:
    """Check that MODEL turns text into tokens and vectors as it should; see `model.doctor`.

    Raises:
        ModelError: MODEL cannot be loaded.
        ConfigError: an unusable prompt or length limit.
    """
    # float32, so that a difference is the model's and not the number format's.
    embedder = Embedder.load(
        model, prompt=prompt, max_length=max_length, precision=Precision.FP32, base_model=base_model
    )
    return examine(embedder, text=text)


def train(config: RunConfig, *, resume: bool = False, console: Console | None = None) -> Run:
    """Train an adapter into the run folder `config.output_dir`.

    Started on several processes (by torchrun or accelerate), they share each batch, and the first one writes.
    Everything that can fail early does so before the folder is made: data, model, doctor, length of the run.

    Args:
        config: the run.
        resume: go on from the folder's newest checkpoint.
        console: where progress goes; None: nowhere.

    Raises:
        RunError: the folder exists (or, to resume, does not), or the loss is not finite.
        DataError, ModelError, ConfigError, MissingExtraError: by their names.
    """
    console = console or Console(quiet=True)
    folder = Path(config.output_dir)
    if not resume and is_first_process():
        check_run_folder(folder)
    run = prepare_run(config)
    embedder, triplets, dev, accelerator = run.embedder, run.triplets, run.dev, run.accelerator
    console.print(
        f"{len(triplets)} {triplets.kind}, {run.max_steps} steps of {config.training.batch_size}; "
        f"model {config.model.model} ({str(embedder.backbone.model.dtype).removeprefix('torch.')}, {embedder.device}, "
        f"{embedder.path})",
        highlight=False,
    )

    def evaluate_dev() -> TaskResult:
        assert dev is not None
        try:
            return score_dev(embedder, dev)
        except ModelError as error:
            raise RunError(f"The model has collapsed in training. {error}\nLower training.learning_rate.") from error

    accelerator.wait_for_everyone()  # nobody may find the folder made by another process before looking for it
    with _run_folder(folder):
        if accelerator.is_main_process:
            files.write_text(folder / CONFIG_FILE, config.to_yaml())
        if config.training.report_to:
            accelerator.init_trackers("embedsmith")
        with TrainingDisplay(console, max_steps=run.max_steps) as display:
            outcome = train_adapter(
                embedder,
                config=config,
                triplets=triplets,
                objective=run.objective,
                evaluate=evaluate_dev if dev else None,
                accelerator=accelerator,
                display=display,
                resume=resume,
            )
        accelerator.wait_for_everyone()  # for the main process to have written the adapter
        accelerator.end_training()
        if outcome.best_step != outcome.num_steps:
            reload_trained(embedder, folder=folder / kept_in(embedder))
        dev_result = EvaluationResult(model=str(folder), tasks={DEV_TASK: outcome.best}) if outcome.best else None
        if accelerator.is_main_process:
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
    """Raise RunError when a run folder is taken; an empty folder is not."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"The run folder {folder} exists already.\nChoose another output_dir, or remove it.")


def resume(folder: Path | str, *, console: Console | None = None) -> Run:
    """Go on with a run that was stopped; it ends as if it had not been. Errors as `train`."""
    path = Path(folder) / CONFIG_FILE
    if not path.exists():
        raise RunError(f"{folder} is no run folder: it has no {CONFIG_FILE}.")
    config = load_config(path, overrides={"output_dir": str(folder)})
    return train(config, resume=True, console=console)


def evaluate(
    model: str,
    *,
    tasks: Sequence[str] | None = None,
    data: Path | str | None = None,
    poolings: Sequence[Pooling] = (),
    dims: Sequence[int] = (),
    prompt: str | None = None,
    instruction: str | None = None,
    end_token: bool | None = None,
    base_model: str | None = None,
    precision: Precision = Precision.AUTO,
    console: Console | None = None,
) -> dict[str, EvaluationResult]:
    """Score MODEL on STS tasks. Both sentences of a pair are queries, as the tasks are symmetric.

    Args:
        model: built-in name, hub id, folder or run.
        tasks: names; None: every file in `data`, or the built-in development pairs without `data`.
        data: folder of `<TASK>.tsv.gz` files; None: tasks are mteb's, from the hub.
        poolings: score these instead of the model's own; one forward serves all.
        dims: score the first dimensions, as many as each of these says, instead of all; one forward serves all.
        prompt: template or known name, in the place of the model's own for either side.
        instruction: fills `{instruction}` in the prompt, in the place of the model's own.
        end_token: whether texts end with the end token; None: as trained.
        base_model: where the base of a run or adapter lies, if not where it lay in training.
        precision: of the weights.
        console: where progress goes; None: nowhere.

    Returns:
        Label -> result; the label is MODEL, with the pooling and width behind it that were asked for.

    Raises:
        ConfigError: a width is not in 1 ... D.
        DataError, ModelError, MissingExtraError: by their names.
    """
    if data is not None:
        loaded = load_local_tasks(Path(data), tasks)
    else:
        loaded = load_mteb_tasks(tasks) if tasks else {"sample-dev": load_pairs("sample")}
    embedder = Embedder.load(
        model,
        base_model=base_model,
        precision=precision,
        prompt=prompt,
        query_prompt=prompt,
        instruction=instruction,
        end_token=end_token,
    )
    asked = list(poolings) or [embedder.settings.pooling]
    for pooling in asked:
        for dim in dims:
            check_dim(dim, width=pooled_width(embedder.backbone.model.config.hidden_size, pooling=pooling))
    widths: Sequence[int | None] = dims or [None]
    labels = {
        model + (f" ({pooling})" if poolings else "") + (f" ({dim} dimensions)" if dim else ""): (pooling, dim)
        for pooling in asked
        for dim in widths
    }
    with encoding_progress(console or Console(quiet=True)) as (start, advance):

        def embed(texts: list[str]) -> dict[str, np.ndarray]:
            rows = embedder.encode_poolings(
                texts, poolings=asked, side=Side.QUERY, instruction=instruction, on_progress=advance
            )
            return {
                label: shorten(torch.from_numpy(rows[pooling]), dim=dim).numpy() if dim else rows[pooling]
                for label, (pooling, dim) in labels.items()
            }

        return evaluate_tasks(embed, tasks=loaded, on_task=start)


def base_of(model: str) -> str:
    """What MODEL builds on, by the name it has; a model that is no run builds on itself."""
    folder = weights_folder(model)
    return EmbeddingSettings.read(folder).base_model if (folder / SETTINGS_FILE).exists() else model


@contextmanager
def _run_folder(folder: Path) -> Iterator[None]:
    """Make the run folder; if the block fails before anything worth keeping is in it, take it away again."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        kept = any((folder / name).exists() for name in ("adapter", "model"))
        if not kept and not any((folder / "checkpoints").glob("*")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def score_dev(embedder: Embedder, dev: ScoredPairs) -> TaskResult:
    """Score an embedder on a development set; raises ModelError when its embeddings cannot be ranked."""
    similarities = pair_similarities(lambda texts: {DEV_TASK: embedder.encode(texts, side=Side.QUERY)}, dev)
    return score_task(similarities[DEV_TASK], dev.scores, task="the development set")
