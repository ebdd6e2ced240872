"""The compiled torch kernels, a GPU's: equal to those that are not, few compilations, and what happens without any."""

import logging
import threading
from collections import Counter

import pytest
import torch
from torch._dynamo.backends.registry import lookup_backend

from embedsmith.model.layers.dropout import DropoutMask, draw_mask
from embedsmith.model.layers.fused.kernels import Activation, AttentionShape, Norm
from embedsmith.model.layers.fused.torch_kernels import TorchKernels
from embedsmith.model.layers.segments import Segments

WIDTH = 32
NORM = Norm(torch.linspace(0.5, 1.5, WIDTH), None, 1e-6, False)
NUM_FUNCTIONS = 8


def _run(kernels: TorchKernels, num_rows: int, *, mask: DropoutMask | None = None) -> list[torch.Tensor]:
    """Every kernel that goes through torch.compile, on so many rows."""
    generator = torch.Generator().manual_seed(num_rows)
    x = torch.randn(num_rows, WIDTH, generator=generator)
    h, state = kernels.add_norm(x.clone(), (), alpha=0.5, norm=NORM, dtype=torch.float32, keep=True)
    assert state is not None
    stream = x.clone()
    added, _ = kernels.add_norm(stream, (h,), alpha=0.5, norm=NORM, dtype=torch.float32, keep=True)
    dx = torch.zeros_like(x)
    rows = kernels.norm_backward((x.cos(),), state=state, norm=NORM, dx=dx, alpha=0.5)
    activation = Activation("gelu", True)
    gate_up = torch.randn(num_rows, 2 * WIDTH, generator=generator)
    y = kernels.activate(gate_up, activation=activation)
    slope = gate_up.clone()
    kernels.activate_backward(slope, y.sin(), activation=activation)
    mask = mask or DropoutMask(seed=(num_rows, 2**32 - 9), p=0.3)
    a, b = torch.randn(2, 4, WIDTH, generator=generator)
    projected = kernels.project(x, a, mask=mask, scale=2.0)
    kernels.expand_add(projected, b, y=y, mask=mask, scale=0.5)
    kernels.expand_add(projected, b, y=y, mask=DropoutMask(), scale=0.5)
    return [h, state.normed, state.scale, stream, added, dx, rows, y, slope, projected, *_attend(kernels, x)]


def _attend(kernels: TorchKernels, x: torch.Tensor) -> list[torch.Tensor]:
    """One segment, or two where there is more than a row."""
    lengths = (1,) if len(x) == 1 else (len(x) // 2, len(x) - len(x) // 2)
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    angles = torch.arange(1024)[:, None] * torch.tensor([1.0, 0.1])
    shape = AttentionShape(
        Segments(lengths, ends),
        num_heads=4,
        num_kv_heads=4,
        head_dim=8,
        scaling=0.3,
        window=None,
        ends_only=False,
        cos=angles.cos(),
        sin=angles.sin(),
    )
    into = tuple(torch.empty_like(x) for _ in range(3))
    kernels.attention_backward(x, x.sin(), x.cos(), x, shape=shape, into=into)
    return [kernels.attention(x, x.sin(), x.cos(), shape=shape), *into]


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Compile by a backend that runs the graph as autograd's tracer leaves it; how often, by function."""
    compile_by, counted = torch.compile, Counter[str]()
    run_eagerly = lookup_backend("aot_eager")

    def compile_counted(function: object, **options: object) -> object:
        def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
            counted[function.__name__] += 1
            return run_eagerly(graph, inputs)

        return compile_by(function, backend=count, **options)

    monkeypatch.setattr(torch, "compile", compile_counted)
    torch._dynamo.reset()
    return counted


def test_compiled_is_equal_and_no_length_is_compiled_anew(compilations: Counter[str]) -> None:
    compiled, plain = TorchKernels(is_compiled=True), TorchKernels()
    for num_rows in (57, 300, 1, 2, WIDTH, 41, 999):
        torch.testing.assert_close(_run(compiled, num_rows), _run(plain, num_rows))
    assert len(compilations) == NUM_FUNCTIONS
    # Once for one row and once for more; norms with and without what is added first, updates with a mask and without.
    assert all(count <= 4 for count in compilations.values()), compilations
    assert sum(compilations.values()) <= 22


def test_one_compilation_serves_every_mask(compilations: Counter[str]) -> None:
    compiled, plain = TorchKernels(is_compiled=True), TorchKernels()
    x, identity = torch.ones(40, WIDTH), torch.eye(WIDTH)
    torch.manual_seed(1)
    for first_row in (0, 0, 7, 1_000_003, 2**31):
        drawn = draw_mask(0.3)
        mask = DropoutMask(seed=drawn.seed, p=0.3, first_row=first_row)
        found, expected = (kernels.project(x, identity, mask=mask, scale=1.0) for kernels in (compiled, plain))
        assert torch.equal(found, expected)
        assert torch.equal(found, mask.factors(40, WIDTH, device=x.device))
    picked = draw_mask(0.3, rows=torch.arange(40) * 7)
    assert torch.equal(
        compiled.outer(torch.eye(40), x, mask=picked, scale=2.0), plain.outer(torch.eye(40), x, mask=picked, scale=2.0)
    )
    assert compilations == {"drop": 2}  # with and without picked rows


def test_compiled_functions_run_in_another_thread(compilations: Counter[str]) -> None:
    """As a GPU's backward does."""
    found: list[list[torch.Tensor]] = []
    thread = threading.Thread(target=lambda: found.append(_run(TorchKernels(is_compiled=True), 57)))
    thread.start()
    thread.join(60)
    torch.testing.assert_close(found[0], _run(TorchKernels(), 57))


def test_where_nothing_can_be_compiled_the_functions_run_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compile_by = torch.compile

    def refuse(graph: torch.fx.GraphModule, inputs: list[object]) -> object:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_by(function, backend=refuse, **options))
    torch._dynamo.reset()
    compiled = TorchKernels(is_compiled=True)
    with caplog.at_level(logging.WARNING):
        for num_rows in (57, 300):
            torch.testing.assert_close(_run(compiled, num_rows), _run(TorchKernels(), num_rows))
    said = [record.getMessage() for record in caplog.records if "torch.compile fails" in record.getMessage()]
    assert len(said) == NUM_FUNCTIONS
    assert "Failed to find C compiler" in said[0] and said[0].endswith("normalize runs as it is, slower.")
