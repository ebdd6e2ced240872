"""Both kernels against float64 references: norms, activations, LoRA's thin products. Attention is in its own file."""

import logging

import pytest
import torch

from embedsmith.model.layers.dropout import DropoutMask
from embedsmith.model.layers.fused.choice import choose_kernels
from embedsmith.model.layers.fused.kernels import Activation, Kernels, Norm, NormState
from tests.model.layers.fused.cases import BOTH_KERNELS, make_kernels, needs_compiler
from tests.model.layers.fused.reference import activate, assert_close, dropout_factors, normalize, rounding

DTYPES = [pytest.param(torch.float32, id="float32"), pytest.param(torch.bfloat16, id="bfloat16")]
WIDTHS = [16, 64, 112, 208]  # one, four, seven and thirteen vectors of 16: with and without a rest of pairs
NORMS = ["rms", "centered", "centered-with-bias", "rms-with-bias"]
ACTIVATIONS = [
    pytest.param(Activation(kind, is_gated), id=f"{kind}-{'gated' if is_gated else 'plain'}")
    for kind in ("silu", "gelu")
    for is_gated in (True, False)
]


@pytest.fixture(params=BOTH_KERNELS)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return make_kernels(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def random(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=generator).to(dtype)


def view(x: torch.Tensor) -> torch.Tensor:
    """The same values as columns of a wider matrix, whose other columns are NaN."""
    wide = torch.full((len(x), x.shape[1] + 48), torch.nan, dtype=x.dtype)
    wide[:, 16:-32] = x
    return wide[:, 16:-32]


def make_norm(generator: torch.Generator, width: int, kind: str) -> Norm:
    return Norm(
        weight=1 + random(generator, width),
        bias=random(generator, width) if "bias" in kind else None,
        eps=1e-3,
        is_centered="centered" in kind,
    )


# ---- norms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_updates", [0, 1, 2])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", NORMS)
def test_add_norm(
    kernels: Kernels, generator: torch.Generator, kind: str, width: int, num_updates: int, dtype: torch.dtype
) -> None:
    norm = make_norm(generator, width, kind)
    x = 1 + random(generator, 9, width)  # a mean that is not zero
    updates = tuple(random(generator, 9, width, dtype=dtype) for _ in range(num_updates))
    moved = x.double() + 0.7 * sum(update.double() for update in updates)
    h, state = kernels.add_norm(x, updates, alpha=0.7, norm=norm, dtype=dtype, keep=True)
    assert_close(x, moved, dtype=torch.float32)  # the residual stream is float32 always
    expected, normed, scale = normalize(moved, norm)
    assert (h.dtype, state.normed.dtype, state.scale.dtype) == (dtype, dtype, torch.float32)
    assert_close(h, expected, dtype=dtype)
    assert_close(state.normed, normed, dtype=dtype)
    assert_close(state.scale, scale, dtype=torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_norm_keeps_nothing_unless_told(kernels: Kernels, generator: torch.Generator, dtype: torch.dtype) -> None:
    norm = make_norm(generator, 32, "rms")
    x = random(generator, 5, 32)
    kept, _ = kernels.add_norm(x.clone(), (), alpha=1.0, norm=norm, dtype=dtype, keep=True)
    h, state = kernels.add_norm(x, (), alpha=1.0, norm=norm, dtype=dtype, keep=False)
    assert state is None
    assert torch.equal(h, kept)


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e15], ids=["zero", "tiny", "huge"])
@pytest.mark.parametrize("kind", NORMS)
def test_norms_of_extreme_rows_are_finite(kernels: Kernels, generator: torch.Generator, kind: str, size: float) -> None:
    norm = make_norm(generator, 64, kind)
    x = size * random(generator, 3, 64)
    h, state = kernels.add_norm(x, (), alpha=1.0, norm=norm, dtype=torch.float32, keep=True)
    expected, normed, _ = normalize(x, norm)
    assert_close(h, expected, dtype=torch.float32, size=1.0)
    assert_close(state.normed, normed, dtype=torch.float32, size=1.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_gradients", [1, 2])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["rms", "centered-with-bias"])
def test_norm_backward(
    kernels: Kernels, generator: torch.Generator, kind: str, width: int, num_gradients: int, dtype: torch.dtype
) -> None:
    norm = make_norm(generator, width, kind)
    x = (1 + random(generator, 9, width)).double().requires_grad_()
    out, normed, scale = normalize(x, norm)
    gradients = tuple(random(generator, 9, width, dtype=dtype) for _ in range(num_gradients))
    out.backward(sum(gradient.double() for gradient in gradients))
    dx = random(generator, 9, width)
    expected = dx.double() + x.grad
    state = NormState(normed.detach().to(dtype), scale.detach().float())
    rows = kernels.norm_backward(gradients, state=state, norm=norm, dx=dx, alpha=0.7)
    assert rows.dtype == dtype
    assert_close(dx, expected, dtype=dtype)  # as exact as the normed rows that were kept
    assert_close(rows, 0.7 * dx.double(), dtype=dtype)


# ---- activations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(
    kernels: Kernels, generator: torch.Generator, activation: Activation, width: int, dtype: torch.dtype
) -> None:
    x = (3 * random(generator, 9, width * (2 if activation.is_gated else 1))).to(dtype)
    inputs = x.double().requires_grad_()
    expected = activate(inputs, activation)
    actual = kernels.activate(x, activation=activation)
    assert (actual.dtype, actual.shape) == (dtype, (9, width))
    assert_close(actual, expected.detach(), dtype=dtype)
    if dtype is torch.float32:  # no sums here: exp and 1/x are exact to units in the last place
        torch.testing.assert_close(actual.double(), expected.detach(), rtol=1e-6, atol=2e-6)
    dy = random(generator, 9, width, dtype=dtype)
    expected.backward(dy.double())
    kernels.activate_backward(x, dy, activation=activation)
    assert_close(x, inputs.grad, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_far_out(kernels: Kernels, activation: Activation, dtype: torch.dtype) -> None:
    """At +-100 e^-x leaves float32's range; the value there is x or 0, the slope 1 or 0."""
    gate = torch.tensor([100.0, -100.0, 60.0, -60.0, 1e4, -1e4, 0.0, -0.0]).repeat(2)[None]
    x = torch.cat([gate, torch.full_like(gate, 2.0)], dim=1) if activation.is_gated else gate
    x = x.to(dtype, copy=True)
    factor = 2.0 if activation.is_gated else 1.0
    expected = factor * gate.clamp(min=0).double()
    assert_close(kernels.activate(x, activation=activation), expected, dtype=dtype, size=1e-3)
    kernels.activate_backward(x, torch.ones(1, 16, dtype=dtype), activation=activation)
    slope = torch.where(gate == 0, 0.5, (gate > 0).double())
    expected = torch.cat([factor * slope, expected / factor], dim=1) if activation.is_gated else slope
    assert_close(x, expected, dtype=dtype, size=1e-3)


# ---- LoRA -----------------------------------------------------------------------------------------------------------

ROWS = torch.tensor([4, 0, 11, 12, 30, 7, 100_000])
MASKS = [
    pytest.param(DropoutMask(), id="no-dropout"),
    pytest.param(DropoutMask(seed=(0x9ABCDEF1, 0xF0000007), p=0.3), id="dropout"),
    pytest.param(DropoutMask(seed=(12, 2**32 - 1), p=0.3, rows=ROWS), id="picked-rows"),
    pytest.param(DropoutMask(seed=(12, 2**31), p=0.6, first_row=1000), id="first-row"),
    pytest.param(DropoutMask(seed=(5, 6), p=0.3, rows=ROWS, first_row=2**27), id="rows-beyond-32-bits"),
]
RANKS = [1, 3, 8, 13, 16, 48]  # of less than a vector, of whole vectors


def dropped(x: torch.Tensor, mask: DropoutMask) -> torch.Tensor:
    return x.double() * dropout_factors(mask, *x.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("width", WIDTHS)
def test_thin_products(
    kernels: Kernels, generator: torch.Generator, width: int, rank: int, mask: DropoutMask, dtype: torch.dtype
) -> None:
    """`project`, `outer` and `expand_add` on rows that are columns of a wider matrix."""
    x = view(random(generator, len(ROWS), width, dtype=dtype))
    w, u = random(generator, rank, width), random(generator, len(ROWS), rank)
    kept = dropped(x, mask)
    # Sums in float32 of exact products, whatever the rows' type; terms of size 1 cancel, down from sums of their root.
    projected = kernels.project(x, w, mask=mask, scale=1.7)
    assert_close(projected, 1.7 * kept @ w.double().t(), dtype=torch.float32, size=width**0.5)
    outer = kernels.outer(u, x, mask=mask, scale=0.5)
    assert_close(outer, 0.5 * u.double().t() @ kept, dtype=torch.float32, size=len(ROWS) ** 0.5)
    assert projected.dtype == outer.dtype == torch.float32

    expected = x.double() + 1.7 * dropped(u.double() @ w.double(), mask)
    magnitude = x.double().abs() + 1.7 * dropped(u.double().abs() @ w.double().abs(), mask)
    kernels.expand_add(u, w, y=x, mask=mask, scale=1.7)
    assert ((x.double() - expected).abs() <= rounding(dtype) * magnitude).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_expand_add_leaves_other_columns_alone(
    kernels: Kernels, generator: torch.Generator, dtype: torch.dtype
) -> None:
    wide = random(generator, 5, 96, dtype=dtype)
    before = wide.clone()
    w, u = random(generator, 3, 32), random(generator, 5, 3)
    kernels.expand_add(u, w, y=wide[:, 32:64], mask=DropoutMask(), scale=1.0)
    assert torch.equal(wide[:, :32], before[:, :32])
    assert torch.equal(wide[:, 64:], before[:, 64:])
    assert not torch.equal(wide[:, 32:64], before[:, 32:64])


# ---- the choice -----------------------------------------------------------------------------------------------------


@needs_compiler
def test_c_kernels_are_chosen_on_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_kernels(torch.device("cpu"), widths=(64, 48, 16)).name == "C"
    assert not caplog.records


def test_odd_widths_take_torch_kernels(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose_kernels(torch.device("cpu"), widths=(64, 40, 16)).name == "torch"
    assert "widths that are multiples of 16, not 64, 40, 16" in caplog.text


def test_other_devices_take_torch_kernels() -> None:
    assert choose_kernels(torch.device("meta"), widths=(64, 64, 16)).name == "torch"
