"""Loops run together are those run one by one, bit for bit."""

from collections.abc import Callable

import pytest
import torch

from embedsmith.model.layers.dropout import DropoutMask
from embedsmith.model.layers.fused.build import find_compiler, load_library
from embedsmith.model.layers.fused.c_kernels import CKernels, CProducts
from embedsmith.model.layers.fused.kernels import Norm
from embedsmith.model.layers.fused.loops import RowLoops
from embedsmith.model.layers.fused.products import PanelProduct, StreamProduct

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C compiler")
WIDTH = 80
NUM_ROWS = [1, 17, 103, 500]  # of threads that share parts, and of threads that take blocks
MASK = DropoutMask(seed=(3, 5), p=0.25)


@pytest.fixture
def kernels() -> CKernels:
    return CKernels(load_library())


@pytest.fixture(params=[1, 2, 3])
def _threads(request: pytest.FixtureRequest) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    request.addfinalizer(lambda: torch.set_num_threads(before))


def _draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _some_loops(kernels: CKernels, *, num_rows: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """A norm, two thin products, what the stream gains, and what sums over rows: each reads what those before wrote."""
    x = _draw(num_rows, WIDTH, seed=1)
    norm = Norm(_draw(WIDTH, seed=2), None, 1e-6, is_centered=False)
    w, v = _draw(5, WIDTH, seed=3), _draw(5, WIDTH, seed=4)
    h, state = kernels.add_norm(x, (), alpha=1.0, norm=norm, dtype=dtype, keep=True)
    assert state
    u = kernels.project(h, w, mask=MASK, scale=0.5)
    kernels.expand_add(u, v, y=x, mask=DropoutMask(), scale=2.0)
    outer = kernels.outer(u, h, mask=MASK, scale=0.5)
    again, _ = kernels.add_norm(x, (h,), alpha=0.5, norm=norm, dtype=dtype, keep=False)
    return [x, h, state.normed, state.scale, u, outer, again]


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", NUM_ROWS)
def test_together_is_one_by_one(kernels: CKernels, num_rows: int, dtype: torch.dtype) -> None:
    expected = _some_loops(kernels, num_rows=num_rows, dtype=dtype)
    with kernels.together():
        results = _some_loops(kernels, num_rows=num_rows, dtype=dtype)
    assert all(torch.equal(*pair) for pair in zip(results, expected, strict=True))


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("num_rows", NUM_ROWS)
def test_products_together_are_those_one_by_one(num_rows: int) -> None:
    library = load_library()
    if not library.has_products():
        pytest.skip("this processor does not multiply bfloat16, so it has no products of ours")
    loops = RowLoops(library)
    products = CProducts(loops)
    weight = _draw(192, WIDTH, seed=5).bfloat16()
    up = PanelProduct(weight, _draw(192, seed=6).bfloat16(), kernels=products)
    down = StreamProduct(weight.t(), None, kernels=products)
    x = _draw(num_rows, WIDTH, seed=7).bfloat16()

    def both() -> list[torch.Tensor]:
        stream = _draw(num_rows, WIDTH, seed=8)
        y = up(x)
        down.add(y, into=stream, alpha=0.5)
        return [stream, y, up.backward(y)]

    expected = both()
    with loops.together():
        results = both()
    assert all(torch.equal(*pair) for pair in zip(results, expected, strict=True))


def test_what_has_other_rows_or_is_waited_for_runs_first(kernels: CKernels) -> None:
    results: list[torch.Tensor] = []
    note: Callable[[int], None] = lambda num_rows: results.append(  # noqa: E731
        kernels.project(torch.ones(num_rows, 16), torch.ones(1, 16), mask=DropoutMask(), scale=1.0).fill_(0)
    )
    with kernels.together():
        note(4)
        assert results[0].sum() == 0
        note(6)
        assert results[0].sum() == 4 * 16
        assert results[1].sum() == 0
        kernels.run()
        assert results[1].sum() == 6 * 16


def test_a_block_that_fails_leaves_nothing_behind(kernels: CKernels) -> None:
    def fail() -> None:
        with kernels.together():
            kernels.project(torch.ones(4, 16), torch.ones(1, 16), mask=DropoutMask(), scale=1.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    done = kernels.project(torch.ones(5, 16), torch.ones(1, 16), mask=DropoutMask(), scale=1.0)
    assert done.sum() == 5 * 16
