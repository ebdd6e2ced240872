"""Ray: actors on the machines of a cluster hold the model; shards go out to them and come back, in this process.

    this process: reads texts --shard--> an actor: vectors --> this process: writes the shard

Invariants: this process alone reads the files and writes the folder, so no disk is shared and nothing is shuffled; all
actors compute as the first one does, or are refused. A lost actor is started again, elsewhere if need be, and its
shards are computed again: a shard is written once. Memory here: two shards an actor.

Ray sends arguments and results between processes of one cluster by pickle; no file of a user's is read so.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith.support.ahead import one_ahead
from embedsmith.support.errors import ConfigError, EmbedsmithError, MissingExtraError, ModelError, RunError
from embedsmith.verbs.shard_engine import EmbeddedShard, TextShard
from embedsmith.verbs.vector_maker import VectorKind, VectorMaker, VectorOptions

log = logging.getLogger(__name__)

MOST_LOSSES = 3
"""So often may an actor be lost and started again."""
_SHARDS_AT_ONCE = 2  # of an actor: one is computed, the other waits


@dataclass(frozen=True)
class Machines:
    """What a cluster has.

    Attributes:
        cpus: of each machine.
        num_gpus: of all.
    """

    cpus: Sequence[int]
    num_gpus: int

    def choose(self, num_workers: int | None, *, on_gpus: bool) -> tuple[int, dict[str, int]]:
        """How many actors, and what each takes: a GPU; or on CPUs, a machine, or its share of one.

        Args:
            num_workers: None: as many as there are GPUs, or machines.
            on_gpus: whether GPUs are used where there are any.

        Raises:
            ConfigError: there are not so many.
        """
        if on_gpus and self.num_gpus:
            count, most, what = num_workers or self.num_gpus, self.num_gpus, "GPUs"
            share = {"num_gpus": 1}
        else:
            count, most, what = num_workers or len(self.cpus), min(self.cpus) * len(self.cpus), "processors"
            share = {"num_cpus": max(1, min(self.cpus) // -(-count // len(self.cpus)))}
        if count > most:
            raise ConfigError(f"--workers is {count}, and the Ray cluster has {most} {what}.\nAsk for fewer.")
        return count, share


class RayEngine:
    """Actors of a cluster: that of RAY_ADDRESS or of this machine, else one that is started here; see `ShardEngine`.

    Args:
        model: any MODEL, which every machine can load by this name.
        options: how vectors are asked for.
        num_workers: actors; None: one for each GPU, or else each machine.

    Raises:
        MissingExtraError: ray is not installed.
        ConfigError: the cluster has not so many GPUs or processors; or as `VectorMaker.load`.
        RunError: there is no cluster, and none can be started.
        ModelError, DataError: as `VectorMaker.load`.
    """

    def __init__(self, model: str, *, options: VectorOptions, num_workers: int | None = None) -> None:
        self._ray = import_ray()
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            self._connect()
        try:
            alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            machines = Machines([int(one.get("CPU", 1)) for one in alive], int(sum(one.get("GPU", 0) for one in alive)))
            count, share = machines.choose(num_workers, on_gpus=(options.device or "cuda").startswith("cuda"))
            actor = self._ray.remote(max_restarts=MOST_LOSSES, max_task_retries=MOST_LOSSES, **share)(Worker)
            # actors stand in folders of their own
            theirs = replace(options, base_model=options.base_model and _absolute(options.base_model))
            first = actor.remote(_absolute(model), theirs)
            self.kind: VectorKind = replace(self._get(first.describe.remote()), model=model, options=options)
            expected = (self.kind.embedding, self.kind.computed_by)
            self._workers = [first, *(actor.remote(_absolute(model), theirs) for _ in range(count - 1))]
            self._expected = self._ray.put(expected)
        except BaseException:
            self.close()
            raise
        log.info("Ray: %d workers on %d machines, each with %s.", count, len(alive), _in_words(share))

    def close(self) -> None:
        """End the actors; of a cluster that was started here, all of it."""
        if self._is_ours:
            self._ray.shutdown()
        else:
            for worker in getattr(self, "_workers", ()):
                self._ray.kill(worker)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """See `ShardEngine`."""
        vectors: np.ndarray = self._get(self._workers[0].embed.remote(list(texts), self._expected))[0]
        return vectors

    def embed_shards(
        self, shards: Iterator[TextShard], *, on_progress: Callable[[int], None]
    ) -> Iterator[EmbeddedShard]:
        """See `ShardEngine`; any order but for the first, which 8-bit vectors wait for: its ranges are all others'."""
        free = deque(self._workers * _SHARDS_AT_ONCE)
        under_way: dict[Any, tuple[TextShard, Any]] = {}
        must_wait = self.kind.options.in_steps

        def wait_for_one() -> EmbeddedShard:
            (done,), _ = self._ray.wait(list(under_way), num_returns=1)
            shard, worker = under_way.pop(done)
            vectors, num_cut = self._get(done)
            free.append(worker)
            on_progress(len(shard.rows))
            return EmbeddedShard(shard, vectors, num_cut)

        for shard in one_ahead(shards):
            if not free:
                yield wait_for_one()
            worker = free.popleft()
            under_way[worker.embed.remote(shard.texts, self._expected)] = (shard, worker)
            if must_wait:
                yield wait_for_one()
                must_wait = False
        while under_way:
            yield wait_for_one()

    def _connect(self) -> None:
        try:
            self._ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        except Exception as error:  # of many kinds: no such address, ports that are taken, a start that takes too long
            address = os.environ.get("RAY_ADDRESS")
            advice = (
                f"Is RAY_ADDRESS={address} right?"
                if address
                else "Start one with `ray start --head`, and look at its log."
            )
            raise RunError(f"There is no Ray cluster that answers: {error}\n{advice}") from error

    def _get(self, result: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(result)
        except errors.RayTaskError as error:
            if isinstance(error.cause, EmbedsmithError):
                raise error.cause from None
            raise
        except errors.RayError as error:
            reason, *_ = str(error).strip().split("\n")
            raise RunError(
                f"Ray has lost a worker {MOST_LOSSES + 1} times, or what it had computed: {reason}\n"
                "What is whole is kept; look at Ray's logs (memory, most often) and give the command again."
            ) from error


class Worker:
    """What an actor does. The model is loaded when it is first asked for, so that its errors are told as any others.

    Args:
        model: any MODEL.
        options: how vectors are asked for.
    """

    def __init__(self, model: str, options: VectorOptions) -> None:
        self._model, self._options = model, options
        self._maker: VectorMaker | None = None

    def describe(self) -> VectorKind:
        """What its vectors are."""
        maker = self._load()
        return VectorKind(maker.model, maker.options, maker.embedding, maker.width, maker.computed_by)

    def embed(self, texts: Sequence[str], expected: tuple[dict[str, Any], dict[str, Any]]) -> tuple[np.ndarray, int]:
        """Vectors of K texts, (K, D) float32, and how many texts were cut.

        Args:
            texts: K of them.
            expected: what the vectors of the first worker depend on.

        Raises:
            ModelError: those of this one depend on something else; or as `Embedder.encode`.
        """
        maker = self._load()
        own = (maker.embedding, maker.computed_by)
        if own != expected:
            differing = [
                f"{name} {theirs.get(name)!r:.60} and {mine.get(name)!r:.60}"
                for theirs, mine in zip(expected, own, strict=True)
                for name in sorted({*theirs, *mine})
                if theirs.get(name) != mine.get(name)
            ]
            raise ModelError(
                f"A worker on {socket.gethostname()} makes other vectors than the first one: {'; '.join(differing)}.\n"
                "Give all machines of the cluster the same model, packages and kind of device."
            )
        return maker.embed(texts), maker.count_cut(texts)

    def _load(self) -> VectorMaker:
        if self._maker is None:
            try:
                self._maker = VectorMaker.load(self._model, options=self._options, ranges=None)
            except MissingExtraError as error:  # which takes no message, so it cannot be sent
                raise ModelError(str(error)) from None
        return self._maker


def import_ray() -> Any:
    """The package; raises MissingExtraError."""
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", extra="ray", needed_for="--engine ray") from None
    return ray


def _absolute(model: str) -> str:
    """A folder or file by its whole path; any other MODEL as it is."""
    return str(Path(model).absolute()) if Path(model).exists() else model


def _in_words(share: dict[str, int]) -> str:
    ((what, count),) = share.items()
    name = what.removeprefix("num_").removesuffix("s").upper()
    return f"{count} {name}" + ("s" if count > 1 else "")
