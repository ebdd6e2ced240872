"""The compiled torch kernels, a GPU's: equal to those that are not, few compilations, and what happens without any."""

import logging

import pytest
import torch

from embedsmith.model.layers.fused.kernels import Activation, Norm
from embedsmith.model.layers.fused.torch_kernels import TorchKernels

WIDTH = 32
NORM = Norm(torch.linspace(0.5, 1.5, WIDTH), None, 1e-6, False)


def _run(kernels: TorchKernels, num_rows: int) -> list[torch.Tensor]:
    """Every kernel that goes through torch.compile, on so many rows."""
    generator = torch.Generator().manual_seed(num_rows)
    x = torch.randn(num_rows, WIDTH, generator=generator)
    h, state = kernels.add_norm(x.clone(), (), alpha=1.0, norm=NORM, dtype=torch.float32, keep=True)
    assert state is not None
    dx = torch.zeros_like(x)
    kernels.norm_backward((x.cos(),), state=state, norm=NORM, dx=dx, alpha=0.5)
    activation = Activation("gelu", True)
    gate_up = torch.randn(num_rows, 2 * WIDTH, generator=generator)
    y = kernels.activate(gate_up, activation=activation)
    slope = gate_up.clone()
    kernels.activate_backward(slope, y.sin(), activation=activation)
    return [h, state.normed, state.scale, dx, y, slope]


@pytest.fixture
def few_compilations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Compile by a backend that runs the graph as it is; a compilation is counted by its inputs."""
    compile_by, counted = torch.compile, list[int]()

    def count(graph: torch.fx.GraphModule, inputs: list[object]) -> object:
        counted.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_by(function, backend=count, **options))
    torch._dynamo.reset()
    return counted


def test_compiled_is_equal_and_no_length_is_compiled_anew(few_compilations: list[int]) -> None:
    compiled, plain = TorchKernels(is_compiled=True), TorchKernels()
    for num_rows in (57, 300, 1, 2, WIDTH, 41, 999):
        torch.testing.assert_close(_run(compiled, num_rows), _run(plain, num_rows))
    assert 4 <= len(few_compilations) <= 8  # four functions, once for one row and once for more


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
    assert len(said) == 4
    assert "Failed to find C compiler" in said[0] and said[0].endswith("normalize runs as it is, slower.")
