"""Our own bfloat16 products against float64: what follows the product, and weights in panels."""

import pytest
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.fused import products as products_module
from embedsmith.model.layers.fused.build import load_library
from embedsmith.model.layers.fused.c_kernels import CProducts
from embedsmith.model.layers.fused.kernels import Activation
from embedsmith.model.layers.fused.loops import RowLoops
from embedsmith.model.layers.fused.panels import from_panels, gate_beside_up, gate_then_up, to_panels
from embedsmith.model.layers.fused.products import ActivatedProduct, FrozenProduct, Product, StreamProduct
from tests.model.layers.fused.cases import distance, load, needs_compiler
from tests.model.layers.fused.reference import activate, assert_close
from tests.tiny import TEXTS, save_model

BF16 = torch.bfloat16
NUM_ROWS = [1, 5, 6, 7, 96, 103]  # strips are of 6 rows, blocks of 96
ACTIVATIONS = [Activation("silu", is_gated=True), Activation("gelu", is_gated=True), Activation("gelu", is_gated=False)]


def random(*shape: int, seed: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture(scope="module")
def products() -> CProducts:
    """This processor's, whatever lower one the other kernels are built for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EMBEDSMITH_MARCH", raising=False)
        library = load_library.__wrapped__()
    if not library.has_products():
        pytest.skip("this processor does not multiply bfloat16")
    return CProducts(RowLoops(library))


@pytest.mark.parametrize(("num_out", "num_in"), [(16, 2), (48, 6), (64, 32), (80, 16), (576, 48)])
def test_panels_hold_the_weight(num_out: int, num_in: int) -> None:
    weight = random(num_out, num_in, seed=1)
    assert torch.equal(from_panels(to_panels(weight), shape=(num_out, num_in)), weight)


def test_pairs_of_inputs_lie_together() -> None:
    weight = torch.arange(16 * 4, dtype=torch.int16).view(16, 4)  # as wide as bfloat16
    assert to_panels(weight)[:6].tolist() == [0, 1, 4, 5, 8, 9]  # outputs 0, 1 and 2, inputs 0 and 1 of each


def test_gates_lie_beside_what_they_multiply() -> None:
    rows = torch.arange(128)
    turns = gate_beside_up(rows)
    assert turns[:64].tolist() == [*range(32), *range(64, 96)]
    assert torch.equal(gate_then_up(turns), rows)


@needs_compiler
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("num_out", [16, 48, 64, 112, 576])
def test_added_to_the_stream(products: CProducts, num_out: int, num_rows: int, has_bias: bool) -> None:
    weight, bias = random(num_out, 80, seed=2), random(num_out, seed=3) if has_bias else None
    x, stream = random(num_rows, 80, seed=4), random(num_rows, num_out, seed=5, dtype=torch.float32)
    product = StreamProduct(weight, bias, kernels=products)
    y = x.double() @ weight.double().t() + (0 if bias is None else bias.double())
    expected = stream.double() + 0.5 * y
    product.add(x, into=stream, alpha=0.5)
    assert distance(stream, expected) < 1e-6
    assert distance(product(x), y) < 3e-3
    assert torch.equal(product.weight, weight)


@needs_compiler
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activated(products: CProducts, activation: Activation, num_rows: int, has_bias: bool) -> None:
    weight, bias, x = (
        random(256, 80, seed=6) / 8,
        random(256, seed=7) if has_bias else None,
        random(num_rows, 80, seed=8),
    )
    product = ActivatedProduct(weight, bias, activation=activation, kernels=products)
    before, after = product.activate(x, keep=True)
    expected = x.double() @ weight.double().t() + (0 if bias is None else bias.double())
    assert before is not None
    assert_close(before, expected, dtype=BF16)
    assert_close(after, activate(expected, activation), dtype=BF16)
    nothing, alone = product.activate(x, keep=False)
    assert nothing is None
    assert torch.equal(alone, after)
    assert distance(product(x), expected) < 3e-3
    assert torch.equal(product.weight, weight)


@needs_compiler
@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("width", [32, 64, 80])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_gradient_through_the_activation(
    products: CProducts, activation: Activation, width: int, num_rows: int
) -> None:
    weight, dy = random(48, width, seed=9) / 8, random(num_rows, 48, seed=10)
    before = random(num_rows, width * (2 if activation.is_gated else 1), seed=11)
    exact = before.double().requires_grad_()
    activate(exact, activation).backward(dy.double() @ weight.double())
    assert exact.grad is not None
    StreamProduct(weight, None, kernels=products).backward_activation(dy, x=before, activation=activation)
    assert_close(before, exact.grad, dtype=BF16)


@needs_compiler
def test_a_row_does_not_depend_on_the_others(products: CProducts) -> None:
    weight, x = random(192, 80, seed=12), random(103, 80, seed=13)
    together, alone = (torch.zeros(103, 192) for _ in range(2))
    products.add(x, to_panels(weight), None, into=together, alpha=1.0)
    for row in range(103):
        products.add(x[row : row + 1], to_panels(weight), None, into=alone[row : row + 1], alpha=1.0)
    assert torch.equal(together, alone)


@needs_compiler
@pytest.mark.parametrize("is_packed", [True, False], ids=["as-here", "not-packed"])
@pytest.mark.parametrize("kind", ["plain", "stream", "activated"])
def test_gradient_of_the_input_and_float32(
    products: CProducts, kind: str, is_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether oneDNN lays out bfloat16 depends on what it may use, not only on the processor."""
    if not is_packed:
        monkeypatch.setattr(products_module, "_can_pack", lambda _: False)
    weight, bias = random(128, 80, seed=14), random(128, seed=15)
    product: FrozenProduct
    if kind == "plain":
        product = Product(weight, bias)
    elif kind == "stream":
        product = StreamProduct(weight, bias, kernels=products)
    else:
        product = ActivatedProduct(weight, bias, activation=ACTIVATIONS[0], kernels=products)
    dy, x = random(9, 128, seed=16), random(9, 80, seed=17, dtype=torch.float32)
    assert distance(product.backward(dy), dy.double() @ weight.double()) < 3e-3
    assert distance(product.exact(x), x.double() @ weight.double().t() + bias.double()) < 1e-6


@needs_compiler
@pytest.mark.parametrize("family", ["llama", "phi"])
def test_layers_in_float32_on_a_bfloat16_model(tmp_path_factory: pytest.TempPathFactory, family: str) -> None:
    """All layers in float32 equal a float32 model of the same weights; the first alone brings it nearer."""
    folder = save_model(family, tmp_path_factory.mktemp("model") / family)
    rounded, exact = load(folder, kernels="C", precision="bf16"), load(folder, precision="fp32")
    for weight in exact.backbone.model.parameters():
        weight.data = weight.data.to(BF16).float()
    for target, source in zip(adapters(exact), adapters(rounded), strict=True):
        target.data.copy_(source)
    expected = states(exact, 0)
    num_layers = len(rounded.decoder.layout.layers) if rounded.decoder else 0
    errors = [distance(states(rounded, num_exact), expected) for num_exact in (0, 1, num_layers)]
    assert errors[2] < 1e-5 < errors[1] < errors[0]


def adapters(embedder: Embedder) -> list[torch.Tensor]:
    return [weight.data for weight in embedder.backbone.model.parameters() if weight.requires_grad]


@torch.no_grad()
def states(embedder: Embedder, num_exact: int) -> torch.Tensor:
    return embedder.hidden_states(embedder.pack(TEXTS), num_exact=num_exact).float()
