"""Runs through the fused layers recorded once for a row's shape and repeated: on a GPU, as CUDA graphs.

A small model's step is thousands of small kernels, and to start one from Python takes longer than the kernel itself.
A graph starts them all at once. It reads and writes at fixed addresses: texts are copied into a row of fixed size
(`fixed_row.py`), dropout's seeds into a tape, and gradients are copied out.

    first times a shape is met      computed as ever
    from then on                    recorded, and repeated

Relations: equal to the run that is not recorded, but for the rounding that another number of rows brings; see
tests/model/layers/fused/test_recording.py, where the run is repeated in Python in the graph's place.
"""

import logging
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch

from embedsmith.model.layers.dropout import MaskTape, rows_from
from embedsmith.model.layers.fused.fixed_row import FixedRow, RowShape
from embedsmith.model.layers.fused.forward import Forward
from embedsmith.model.layers.segments import PackedTexts

log = logging.getLogger(__name__)
T = TypeVar("T")

_MEETINGS_BEFORE = 2
"""So often a shape is met before it is recorded: recording takes as long as three runs."""
_MOST_SHAPES = 24
_MOST_OPERATIONS = 3e13
"""Of a forward: above, the GPU computes for longer than Python takes to start its kernels."""
_SHARE_OF_FREE = 0.25

MakeForward = Callable[[PackedTexts], Forward]


class Recorder(Protocol):
    """What records: `CudaRecorder`."""

    def warm_up(self) -> AbstractContextManager[Any]:
        """Run a block on what is going to be recorded, so that all is compiled and chosen before."""
        ...

    def record(self, function: Callable[[], T]) -> Callable[[], T]:
        """What repeats the function's kernels; its result is the same tensors each time, with other values."""
        ...

    def free_bytes(self) -> float:
        """Memory that is free."""
        ...


class CudaRecorder:
    """CUDA graphs with one pool of memory: a graph's inner values hold until the next one runs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @cached_property
    def _pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self._device)

    def warm_up(self) -> AbstractContextManager[Any]:
        """As `Recorder.warm_up`."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        return torch.cuda.stream(self._stream)

    def record(self, function: Callable[[], T]) -> Callable[[], T]:
        """As `Recorder.record`."""
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on putting batches on the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            result = function()

        def repeat() -> T:
            graph.replay()
            return result

        return repeat

    def free_bytes(self) -> float:
        """As `Recorder.free_bytes`; what torch keeps for itself is free too."""
        reserved = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return torch.cuda.mem_get_info(self._device)[0] + reserved


class RecordedRun:
    """A forward of one shape of row, and its backward where weights are trained.

    Args:
        shape: of the rows.
        packed: one of them, to record with.
        make: a packed row -> its run.
        parameters: trained ones; none: there is no backward.
        ends_only: whether the result is (S, H), a row for each segment; else (N, H).
        recorder: what records.
        device: the model's.
    """

    def __init__(
        self,
        shape: RowShape,
        packed: PackedTexts,
        *,
        make: MakeForward,
        parameters: Sequence[torch.nn.Parameter],
        ends_only: bool,
        recorder: Recorder,
        device: torch.device,
    ) -> None:
        self._row = FixedRow(shape, device=device)
        self._row.fill(packed)
        self._tape = MaskTape(device=device)
        self._make = make
        self._parameters = tuple(parameters)
        self._ends_only = ends_only
        with recorder.warm_up():
            hidden = self._run()
            self._gradient = torch.zeros_like(hidden)
            if parameters:
                self._run_back()
        self._repeat = recorder.record(self._run)
        self._repeat_back = recorder.record(self._run_back) if parameters else None

    def __call__(self, packed: PackedTexts) -> torch.Tensor:
        """Hidden states, as `FusedDecoder`'s."""
        self._row.fill(packed)
        self._tape.redraw()
        return self._repeat()[: self._num_rows(packed)].clone()

    def backward(self, gradient: torch.Tensor) -> list[torch.Tensor]:
        """Gradients of the parameters at that of the last call's hidden states."""
        assert self._repeat_back is not None
        self._gradient[: len(gradient)].copy_(gradient)
        self._gradient[len(gradient) :].zero_()
        return list(torch._foreach_add(self._repeat_back(), 0.0))  # copies: the next run overwrites these

    def _num_rows(self, packed: PackedTexts) -> int:
        return len(packed.segments.lengths) if self._ends_only else packed.num_tokens

    def _run(self) -> torch.Tensor:
        with self._tape.records(), rows_from(0, rows=self._row.places):
            self._forward = self._make(self._row.packed)
            first_saved = self._forward.lowest_adapted if self._parameters else len(self._forward.layout.layers)
            return self._forward.run(first_saved=first_saved)

    def _run_back(self) -> list[torch.Tensor]:
        gradients = self._forward.backward(self._gradient)
        return [gradients[parameter].contiguous() for parameter in self._parameters]


class Pass:
    """A forward that a backward may follow, by a recorded run."""

    def __init__(self, run: RecordedRun, packed: PackedTexts) -> None:
        self._run: RecordedRun | None = run
        self._packed = packed

    def forward(self) -> torch.Tensor:
        """As `RecordedRun`'s; it is not kept here, as it leads to this pass by its graph."""
        assert self._run is not None
        return self._run(self._packed)

    @property
    def is_pending(self) -> bool:
        """Whether backward may still come."""
        return self._run is not None

    def backward(self, gradient: torch.Tensor) -> list[torch.Tensor]:
        """As `RecordedRun.backward`, once."""
        assert self._run is not None, "backward has run already, and what it needs is gone"
        gradients = self._run.backward(gradient)
        self._run = None
        return gradients


class Recordings:
    """The recorded runs of a decoder, those used last.

    Args:
        recorder: what records.
        device: the model's.
    """

    def __init__(self, recorder: Recorder, *, device: torch.device) -> None:
        self._recorder = recorder
        self._device = device
        self._runs: OrderedDict[tuple, RecordedRun] = OrderedDict()
        self._meetings: Counter[int] = Counter()  # by the key's hash: a key is long
        self._pending: weakref.ref[Pass] | None = None
        self._is_broken = False

    def find(
        self,
        packed: PackedTexts,
        *,
        state: tuple,
        make: MakeForward,
        parameters: Sequence[torch.nn.Parameter],
        ends_only: bool,
        num_operations: float,
        kept_bytes: float,
    ) -> RecordedRun | None:
        """The run for such a row, recorded now if it is time; None: compute it as ever.

        Args:
            packed: the row.
            state: what else a run depends on: addresses of weights, dropout.
            make, parameters, ends_only: as `RecordedRun`.
            num_operations: of a forward.
            kept_bytes: what it keeps for backward.
        """
        pending = self._pending() if self._pending else None
        if self._is_broken or (pending is not None and pending.is_pending):
            return None  # one pool of memory: another run would overwrite what that backward reads
        if num_operations > _MOST_OPERATIONS:
            return None
        key = (RowShape.of(packed), state, ends_only, bool(parameters))
        if key in self._runs:
            self._runs.move_to_end(key)
            return self._runs[key]
        self._meetings[hash(key)] += 1
        if self._meetings[hash(key)] <= _MEETINGS_BEFORE:
            return None
        if kept_bytes > _SHARE_OF_FREE * self._recorder.free_bytes():
            return None
        return self._record(key, packed, make=make, parameters=parameters)

    @property
    def num_recorded(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    def begin(self, run: RecordedRun, packed: PackedTexts) -> Pass:
        """A forward that a backward may follow; until that has come, or the pass is gone, nothing is repeated."""
        made = Pass(run, packed)
        self._pending = weakref.ref(made)
        return made

    def _record(
        self, key: tuple, packed: PackedTexts, *, make: MakeForward, parameters: Sequence[torch.nn.Parameter]
    ) -> RecordedRun | None:
        shape, _, ends_only, _ = key
        while len(self._runs) >= _MOST_SHAPES:
            self._runs.popitem(last=False)
        try:
            run = RecordedRun(
                shape,
                packed,
                make=make,
                parameters=parameters,
                ends_only=ends_only,
                recorder=self._recorder,
                device=self._device,
            )
        except RuntimeError as error:  # torch.OutOfMemoryError among them
            log.warning(
                "A run could not be recorded as a CUDA graph (%s); steps start their kernels one by one, which is "
                "slower.",
                str(error).split("\n")[0],
            )
            self._is_broken = True
            self._runs.clear()
            return None
        self._runs[key] = run
        return run
