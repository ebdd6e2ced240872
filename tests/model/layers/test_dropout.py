"""Dropout as a function of a seed: the share, independence, repetition, and the same mask on every kernel."""

from itertools import product

import pytest
import torch

from embedsmith.model.layers.dropout import AdapterDropout, DropoutMask, draw_mask, rows_from
from tests.model.layers.fused.cases import BOTH_KERNELS, make_kernels
from tests.model.layers.fused.reference import dropout_factors

CPU = torch.device("cpu")
SEEDS = [(0, 0), (1, 0), (0, 1), (0x9E3779B1, 0x85EBCA6B), (2**32 - 1, 2**32 - 1)]


def kept(mask: DropoutMask, num_rows: int, width: int) -> torch.Tensor:
    return (mask.factors(num_rows, width, device=CPU) > 0).float()


@pytest.mark.parametrize("p", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed[0]:x}-{seed[1]:x}")
def test_the_mask_is_its_definition(seed: tuple[int, int], p: float) -> None:
    for first_row, rows in product((0, 3, 2**31), (None, torch.tensor([7, 0, 2, 50_000, 2**30]))):
        mask = DropoutMask(seed=seed, p=p, rows=rows, first_row=first_row)
        factors = mask.factors(5, 24, device=CPU)
        assert factors.dtype is torch.float32
        torch.testing.assert_close(factors.double(), dropout_factors(mask, 5, 24), rtol=1e-6, atol=0)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed[0]:x}-{seed[1]:x}")
def test_the_share_dropped(seed: tuple[int, int], p: float) -> None:
    num = 400 * 500
    share = 1 - kept(DropoutMask(seed=seed, p=p), 400, 500).mean().item()
    assert abs(share - p) < 5 * (p * (1 - p) / num) ** 0.5  # five standard deviations of a binomial share


def test_every_row_and_column_has_its_share() -> None:
    x = kept(DropoutMask(seed=(3, 4), p=0.3), 512, 512)
    deviation = (0.3 * 0.7 / 512) ** 0.5
    for direction in (0, 1):
        means = x.mean(direction)
        assert (means - 0.7).abs().max() < 5 * deviation
        assert 0.8 * deviation < means.std() < 1.2 * deviation  # neither alike nor clumped


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed[0]:x}-{seed[1]:x}")
@pytest.mark.parametrize("width", [64, 576, 500])
def test_neighbours_are_independent(width: int, seed: tuple[int, int]) -> None:
    x = kept(DropoutMask(seed=seed, p=0.3), 300, width)
    bound = 5 / (x.numel() - 16 * 300) ** 0.5  # correlations of independent values: one over the root of their number
    for distance in (1, 2, 3, 8, 16):
        assert abs(correlation(x[:, distance:], x[:, :-distance])) < bound, f"columns {distance} apart"
        assert abs(correlation(x[distance:], x[:-distance])) < bound, f"rows {distance} apart"
        assert abs(correlation(x[distance:, distance:], x[:-distance, :-distance])) < bound, f"diagonal {distance}"


def test_masks_drawn_one_after_the_other_are_independent() -> None:
    """As they are drawn: both words random. Seeds that differ in one bit of the second may be alike."""
    torch.manual_seed(3)
    masks = torch.stack([kept(draw_mask(0.3), 200, 576).flatten() for _ in range(40)])
    correlations = torch.corrcoef(masks) - torch.eye(40)
    assert correlations.abs().max() < 5 / masks.shape[1] ** 0.5
    other = DropoutMask(seed=(0, 1), p=0.3), DropoutMask(seed=(1, 0), p=0.3)
    assert all(not torch.equal(kept(mask, 20, 64), kept(DropoutMask(p=0.3), 20, 64)) for mask in other)


def test_picked_rows_have_the_whole_masks_elements() -> None:
    rows = torch.tensor([5, 0, 99, 5])
    whole = DropoutMask(seed=(8, 9), p=0.3).factors(100, 48, device=CPU)
    picked = DropoutMask(seed=(8, 9), p=0.3, rows=rows).factors(4, 48, device=CPU)
    assert torch.equal(picked, whole[rows])
    piece = DropoutMask(seed=(8, 9), p=0.3, first_row=40).factors(30, 48, device=CPU)
    assert torch.equal(piece, whole[40:70])


def test_apply_keeps_the_expectation() -> None:
    x = torch.rand(300, 400) + 1
    mask = DropoutMask(seed=(8, 9), p=0.3)
    dropped = mask.apply(x)
    assert torch.equal(dropped[dropped > 0], (x * mask.keep_scale)[dropped > 0])
    # the standard deviation of the mean is 0.0019 times the root of E[x^2] = 1.53
    assert dropped.mean().item() == pytest.approx(x.mean().item(), abs=5 * 0.0019 * 1.53)
    assert DropoutMask().apply(x) is x
    rough = mask.apply(x.bfloat16())
    assert rough.dtype is torch.float32
    assert torch.equal(rough, x.bfloat16().float() * mask.factors(300, 400, device=CPU))


def test_drawn_masks_follow_torchs_seed() -> None:
    torch.manual_seed(3)
    first, second = draw_mask(0.3), draw_mask(0.3)
    torch.manual_seed(3)
    assert draw_mask(0.3) == first != second
    assert first.p == 0.3
    assert all(0 <= word < 2**32 for word in (*first.seed, *second.seed))


def test_rows_that_lie_apart_have_the_masks_of_their_places() -> None:
    places = torch.tensor([4, 5, 90, 91, 2])
    torch.manual_seed(3)
    whole = draw_mask(0.3).factors(110, 48, device=CPU)
    for rows in (None, torch.tensor([1, 4])):
        torch.manual_seed(3)
        with rows_from(10, rows=places):
            piece = draw_mask(0.3, rows=rows)
        picked = places if rows is None else places[rows]
        assert torch.equal(piece.factors(len(picked), 48, device=CPU), whole[10 + picked])


def test_rows_from_nests_and_ends() -> None:
    with rows_from(12):
        with rows_from(40):
            assert draw_mask(0.3).first_row == 40
        assert draw_mask(0.3).first_row == 12
        with pytest.raises(RuntimeError), rows_from(7):
            raise RuntimeError
        assert draw_mask(0.3).first_row == 12
    assert draw_mask(0.3).first_row == 0


# ---- the module -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 64), (1, 40, 64)], ids=["rows", "one-packed-row"])
def test_adapter_dropout_is_repeated_by_the_seed(shape: tuple[int, ...]) -> None:
    dropout = AdapterDropout(0.3)
    x = torch.rand(shape) + 1
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    again = dropout(x)
    torch.manual_seed(3)
    expected = draw_mask(0.3).apply(x.view(40, 64))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(first.view(40, 64), expected)
    assert first.shape == shape


def test_adapter_dropout_can_be_off() -> None:
    x = torch.rand(3, 64)
    before = torch.get_rng_state()
    assert AdapterDropout(0.3).train(mode=False)(x) is x
    assert AdapterDropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), before)  # and draws nothing


def test_adapter_dropout_hands_the_gradient_through_its_mask() -> None:
    x = torch.ones(20, 64, requires_grad=True)
    torch.manual_seed(3)
    y = AdapterDropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert 0 < (x.grad == 0).sum() < x.numel()


# ---- kernels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("name", BOTH_KERNELS)
def test_kernels_make_the_same_mask(name: str, p: float, dtype: torch.dtype) -> None:
    """Ones projected onto the identity are the mask itself; so is `expand_add` of the identity to zeros."""
    kernels = make_kernels(name)
    torch.manual_seed(3)
    mask = draw_mask(p, rows=torch.randint(0, 100_000, (32,)))
    expected = mask.factors(32, 32, device=CPU)
    ones, identity = torch.ones(32, 32, dtype=dtype), torch.eye(32)
    torch.testing.assert_close(kernels.project(ones, identity, mask=mask, scale=1.0), expected)
    torch.testing.assert_close(kernels.outer(identity, ones, mask=mask, scale=1.0), expected)
    y = torch.zeros(32, 32, dtype=dtype)
    kernels.expand_add(torch.ones(32, 32) / 32, torch.ones(32, 32), y=y, mask=mask, scale=1.0)
    # bfloat16 rows are rounded after each of four blocks of ranks
    tolerance = 1e-6 if dtype is torch.float32 else 0.02
    torch.testing.assert_close(y.float(), expected, rtol=tolerance, atol=0)
