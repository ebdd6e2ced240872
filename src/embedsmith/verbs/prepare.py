"""A configuration -> everything a run needs, all of it checked: what fails early fails here.

Used by `train`, which then trains, and by `plan`, which only takes a few steps.
"""

import logging
import os
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, InitProcessGroupKwargs

from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.data.remarks import say_remarks
from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.model.doctor import examine
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.devices import choose_device
from embedsmith.model.loading.embedding_files import describe_published
from embedsmith.model.loading.settings import PromptTokens
from embedsmith.settings.choices import Loss, Precision
from embedsmith.settings.config import RunConfig
from embedsmith.settings.model import ModelSection
from embedsmith.settings.prompts import INSTRUCTION_FIELD
from embedsmith.support.errors import ConfigError, MissingExtraError
from embedsmith.training.batching import training_batches
from embedsmith.training.distributed import Processes
from embedsmith.training.mntp import MaskedPrediction, make_masked_prediction
from embedsmith.training.objective import Objective, make_objective
from embedsmith.training.peers import Peers, end_process, part_at_exit, watch_peers
from embedsmith.training.schedule import Schedule, make_schedule
from embedsmith.training.step import check_instructions
from embedsmith.verbs.base_settings import with_base_settings

log = logging.getLogger(__name__)

_EXCHANGE = timedelta(hours=1)
"""What an exchange may wait: one process may have data to convert that others have in their caches. Whether all are
still there, `peers.py` sees."""
_DISTRIBUTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready for its first step.

    Attributes:
        config: as resolved, with what a published base says of itself.
        triplets: its data.
        dev: its development set, if there is one.
        embedder: has a fresh adapter.
        objective: what is minimised.
        accelerator: devices, processes, trackers.
        schedule: its length, and when what happens.
        peers: watches over the other processes, if there are any; to be stopped behind the last exchange.
    """

    config: RunConfig
    triplets: TripletTable
    dev: ScoredPairs | None
    embedder: Embedder
    objective: Objective | MaskedPrediction
    accelerator: Accelerator
    schedule: Schedule
    peers: Peers | None


def prepare_run(
    config: RunConfig, *, device: str | None = None, prompt_tokens: PromptTokens | None = None
) -> PreparedRun:
    """Load and check data, model, tokens, objective and the length of the run; nothing is written.

    Args:
        config: the run.
        device: as `train`.
        prompt_tokens: as the run has begun; None: as its base has them, else apart.

    Raises:
        DataError, ModelError, ConfigError, MissingExtraError: by their names.
    """
    config = with_base_settings(config)
    accelerator = _start(config, device=device)
    part_at_exit()
    peers = watch_peers(
        index=accelerator.process_index,
        count=accelerator.num_processes,
        end=partial(end_process, folder=config.output_dir),
    )
    triplets = load_triplets(config.data.train, columns=config.data.columns)
    if config.data.max_triplets:
        triplets = triplets.draw(config.data.max_triplets)
    if is_first_process():
        say_remarks(triplets.facts.remarks)
    if triplets.has_instructions and not config.model.takes_instruction:
        log.warning("The data has instructions, but no prompt holds %s: they are left out.", INSTRUCTION_FIELD)
    schedule = make_schedule(config, num_triplets=len(triplets))
    next(training_batches(triplets, config=config))  # one that cannot be filled is told before a model is loaded
    dev = load_pairs(config.evaluation.dev, columns=config.evaluation.dev_columns) if config.evaluation.dev else None
    sharded = config.model.sharded and accelerator.num_processes > 1
    if config.model.sharded and not sharded:
        log.warning("model.sharded is true, but there is one process, which holds the whole base.")
    embedder = _load_embedder(config, device=accelerator.device, prompt_tokens=prompt_tokens, sharded=sharded)
    check_instructions(embedder, data=triplets)
    objective = _make_objective(config, triplets=triplets, embedder=embedder)
    return PreparedRun(config, triplets, dev, embedder, objective, accelerator, schedule, peers)


def load_base(settings: ModelSection, **options: Any) -> Embedder:
    """What a run starts from, embedding as the run does; `options` are further ones of `Embedder.load`."""
    return Embedder.load(
        settings.model,
        pooling=settings.pooling,
        prompt=settings.prompt,
        query_prompt=settings.query_prompt,
        instruction=settings.instruction,
        end_token=settings.end_token,
        bidirectional_layers=settings.bidirectional_layers,
        max_length=settings.max_length,
        as_base=True,
        **options,
    )


def is_first_process() -> bool:
    """Of several processes, whether this is the one that writes and talks."""
    return os.environ.get("RANK", "0") == "0"


def _start(config: RunConfig, *, device: str | None) -> Accelerator:
    trackers = config.training.report_to
    for tracker in trackers:
        if find_spec(tracker) is None:
            raise MissingExtraError(tracker, extra=tracker, needed_for=f"training.report_to: {tracker}")
    chosen = _choose_training_device(device)
    # Without the flag accelerate takes no notice of other processes on a CPU. Its precision is ours, whatever a user's
    # default configuration of accelerate says.
    accelerator = Accelerator(
        cpu=chosen.type == "cpu",
        mixed_precision="no",
        log_with=list(trackers) or None,
        project_dir=config.output_dir,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_EXCHANGE)],
    )
    if device is not None and accelerator.device.type != chosen.type:
        raise ConfigError(
            f"device is {device!r}, but accelerate keeps to {accelerator.device}: it is set up so, or this process has "
            "trained there before.\nChange accelerate's settings, or start a new process."
        )
    if accelerator.distributed_type not in _DISTRIBUTED:
        raise ConfigError(
            f"accelerate is set to {accelerator.distributed_type}, which embedsmith does not run: the base is frozen "
            "and whole in every process.\nStart it with torchrun, or set accelerate to plain multi-GPU or multi-CPU."
        )
    Processes(accelerator).check_batch(config.training.batch_size)
    return accelerator


def _choose_training_device(device: str | None) -> torch.device:
    """One way to run on what is not CUDA: the CPU, as for all other commands."""
    chosen = choose_device(device)
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {device!r}, and training runs on cpu or cuda alone.")
    if chosen.index is not None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                f"device is {device!r}, but there are several processes, each with a GPU of its own.\n"
                "Say cuda, or choose among the GPUs with CUDA_VISIBLE_DEVICES."
            )
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
    return chosen


def _load_embedder(
    config: RunConfig, *, device: torch.device, prompt_tokens: PromptTokens | None, sharded: bool
) -> Embedder:
    is_full = config.adapter.method == "full"
    if is_full and describe_published(config.model.model):
        raise ConfigError(
            f"adapter.method is full, but '{config.model.model}' is published as an embedding model, whose prompts and "
            "layers behind the pooling a folder of weights alone would not hold.\nTrain an adapter: lora."
        )
    embedder = load_base(
        config.model,
        precision=Precision.FP32 if is_full else config.model.precision,
        quantization=config.model.quantization,
        device=str(device),
        prompt_tokens=prompt_tokens,
        sharded=sharded,
        fused=config.model.fused and not is_full,  # fused blocks form no gradients of weights
    )
    examine(embedder).raise_if_wrong()
    torch.manual_seed(config.training.seed)
    embedder.add_adapter(config.adapter)
    return embedder


def _make_objective(config: RunConfig, *, triplets: TripletTable, embedder: Embedder) -> Objective | MaskedPrediction:
    if config.training.loss is Loss.MNTP:
        return make_masked_prediction(config, backbone=embedder.backbone)
    objective = make_objective(config, data=triplets, dim=embedder.dim, device=embedder.device)
    if config.training.matryoshka_dims:
        embedder.settings = replace(embedder.settings, matryoshka_dims=objective.widths)
    return objective
