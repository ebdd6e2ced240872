"""Blocks of few sizes."""

import pytest
import torch

from embedsmith.model.layers.fused.products import Product
from embedsmith.model.layers.fused.rows import block_rows, empty_rows, empty_rows_like, whole_block


def test_blocks_are_little_larger_and_of_few_sizes() -> None:
    sizes = {n: block_rows(n) for n in range(1, 16_385)}
    assert all(n <= size <= n * 33 / 32 for n, size in sizes.items())
    for doubling in (1024, 2048, 8192):
        assert len({sizes[n] for n in range(doubling + 1, 2 * doubling + 1)}) == 32
    assert all(block_rows(size) == size for size in sizes.values())


@pytest.mark.parametrize("num_rows", [1, 63, 65, 1500])
def test_a_block_is_found_again_or_made(num_rows: int) -> None:
    rows = empty_rows(num_rows, 48, dtype=torch.float32)
    assert whole_block(rows).data_ptr() == rows.data_ptr()
    assert whole_block(empty_rows_like(rows)).shape == (block_rows(num_rows), 48)
    alone = torch.randn(num_rows, 48)
    assert torch.equal(whole_block(alone)[:num_rows], alone)
    part = torch.randn(num_rows, 96)[:, :48]
    assert torch.equal(whole_block(part)[:num_rows], part)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 65, 1500])
def test_products_are_of_the_rows_alone(num_rows: int, dtype: torch.dtype) -> None:
    weight, bias = torch.randn(32, 48, dtype=dtype), torch.randn(32, dtype=dtype)
    block = empty_rows(num_rows, 48, dtype=dtype)
    whole_block(block).fill_(torch.nan)  # what the spare rows hold is nobody's
    x = torch.randn(num_rows, 48, dtype=dtype)
    block.copy_(x)
    product = Product(weight, bias)
    tolerance = 1e-5 if dtype is torch.float32 else 0.1
    torch.testing.assert_close(
        product(block).float(), x.float() @ weight.float().t() + bias.float(), atol=tolerance, rtol=tolerance
    )
    torch.testing.assert_close(
        product.backward(product(block)).float(),
        product(x).float() @ weight.float(),
        atol=10 * tolerance,
        rtol=tolerance,
    )
