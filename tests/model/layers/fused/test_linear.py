"""Frozen products and groups of adapted layers against torch's own linear."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch.nn.functional import linear

from embedsmith.model.layers.dropout import AdapterDropout
from embedsmith.model.layers.fused.linear import Gradients, LinearGroup, Product
from embedsmith.model.layers.fused.torch_kernels import TorchKernels
from embedsmith.model.loading.adapter import lora_layers, set_adapter_dropout
from tests.model.layers.fused.cases import distance

DTYPES = [pytest.param(torch.float32, id="float32"), pytest.param(torch.bfloat16, id="bfloat16")]
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 3e-3}  # of a whole result's norm


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 3) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# ---- Product --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("num_rows", [1, 7, 100])
def test_product_is_linear(num_rows: int, has_bias: bool, dtype: torch.dtype) -> None:
    weight, bias = random(48, 80, dtype=dtype), random(48, dtype=dtype, seed=4) if has_bias else None
    x, dy = random(num_rows, 80, dtype=dtype, seed=5), random(num_rows, 48, dtype=dtype, seed=6)
    product = Product(weight.clone(), bias)
    expected = linear(x.double(), weight.double(), None if bias is None else bias.double())
    for _ in range(2):  # the second time, what was prepared at the first is used again
        y, dx = product(x), product.backward(dy)
        assert (y.dtype, dx.dtype) == (dtype, dtype)
        assert distance(y, expected) < ROUNDING[dtype]
        assert distance(dx, dy.double() @ weight.double()) < ROUNDING[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_product_takes_columns_of_a_wider_matrix(dtype: torch.dtype) -> None:
    product = Product(random(48, 32, dtype=dtype), None)
    wide = random(7, 96, dtype=dtype, seed=5)
    torch.testing.assert_close(product(wide[:, 16:48]), product(wide[:, 16:48].contiguous()))
    torch.testing.assert_close(product.backward(wide[:, 48:]), product.backward(wide[:, 48:].contiguous()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(48, 80), (16, 16), (37, 19), (1, 300)], ids=str)
def test_weights_come_back_bit_for_bit(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = random(*shape, dtype=dtype)
    product = Product(weight.clone(), None)
    product.backward(random(3, shape[0], dtype=dtype))
    assert torch.equal(product.weight, weight)


def test_only_cpu_weights_are_packed() -> None:
    weight = torch.empty(16, 16, device="meta")
    product = Product(weight, None)
    assert not product.owns_weight
    assert product.weight is weight


# ---- LinearGroup ----------------------------------------------------------------------------------------------------

NAMES = ("first", "second", "third")
SIZES = (32, 16, 48)


class Parent(torch.nn.Module):
    """Three frozen layers that read the same rows, adapted as told."""

    def __init__(self, *, targets: list[str], has_bias: bool, dtype: torch.dtype, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name, size in zip(NAMES, SIZES, strict=True):
            setattr(self, name, torch.nn.Linear(64, size, bias=has_bias, dtype=dtype))
        if targets:
            inject_adapter_in_model(LoraConfig(r=3, lora_alpha=12, target_modules=targets), self)
        for name, weight in self.named_parameters():
            weight.requires_grad_("lora_" in name)
            if "lora_" in name:
                weight.data = 0.1 * torch.randn(weight.shape)
        for name in targets:
            getattr(self, name).lora_dropout["default"] = AdapterDropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([getattr(self, name)(x) for name in NAMES], dim=1)


def group_of(parent: Parent, *names: str) -> LinearGroup:
    return LinearGroup(parent, names, kernels=TorchKernels())


ADAPTED = {"none": [], "one": ["second"], "two": ["first", "third"], "all": list(NAMES)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("targets", ADAPTED.values(), ids=ADAPTED)
def test_a_merged_group_equals_its_layers(
    targets: list[str], dropout: float, has_bias: bool, dtype: torch.dtype
) -> None:
    x, dy = random(7, 64, dtype=dtype), random(7, sum(SIZES), dtype=dtype, seed=4)
    settings = {"targets": targets, "has_bias": has_bias, "dtype": dtype, "dropout": dropout}

    def differentiate(make: Callable[[Parent, torch.Tensor], tuple]) -> tuple[torch.Tensor, torch.Tensor, Gradients]:
        parent = Parent(**settings)
        set_adapter_dropout(lora_layers(parent), is_on=True)
        torch.manual_seed(1)
        y, dx, gradients = make(parent, x.clone())
        return y, dx, {name: gradients[weight] for name, weight in parent.named_parameters() if weight.requires_grad}

    def plain(parent: Parent, rows: torch.Tensor) -> tuple:
        rows.requires_grad_()
        y = parent(rows)
        y.backward(dy)
        return y.detach(), rows.grad, {weight: weight.grad for weight in parent.parameters()}

    def fused(parent: Parent, rows: torch.Tensor) -> tuple:
        group = group_of(parent, *NAMES)
        y, updates = group(rows)
        assert [update.columns for update in updates] == [
            slice(sum(SIZES[:index]), sum(SIZES[: index + 1])) for index, name in enumerate(NAMES) if name in targets
        ]
        gradients: Gradients = {}
        dx = group.backward(dy, x=rows, updates=updates, gradients=gradients)
        return y, dx, gradients

    y, dx, gradients = differentiate(fused)
    expected_y, expected_dx, expected_gradients = differentiate(plain)
    rounding = 3 * ROUNDING[dtype]  # of the product, of the update, of their sum
    assert distance(y, expected_y) < rounding
    assert distance(dx, expected_dx) < rounding
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        assert distance(gradients[name], gradient) < rounding, name


def test_the_inputs_gradient_only_where_needed() -> None:
    parent = Parent(targets=["first"], has_bias=True, dtype=torch.float32)
    group = group_of(parent, *NAMES)
    x = random(7, 64)
    _, updates = group(x)
    gradients: Gradients = {}
    assert group.backward(random(7, sum(SIZES)), x=x, updates=updates, gradients=gradients, needs_dx=False) is None
    assert len(gradients) == 2


def test_rows_say_which_mask_a_row_gets() -> None:
    """Rows picked out of a longer row are dropped out as they are in the whole."""
    parent = Parent(targets=list(NAMES), has_bias=False, dtype=torch.float32, dropout=0.5)
    set_adapter_dropout(lora_layers(parent), is_on=True)
    group = group_of(parent, *NAMES)
    x, rows = random(20, 64), torch.tensor([3, 4, 19])
    torch.manual_seed(1)
    whole, _ = group(x)
    torch.manual_seed(1)
    picked, _ = group(x[rows], rows=rows)
    torch.testing.assert_close(picked, whole[rows])
    torch.manual_seed(1)
    assert not torch.allclose(group(x[rows])[0], whole[rows])


@pytest.mark.parametrize("switch", ["disable", "merge"])
def test_disabled_and_merged_adapters_are_left_out(switch: str) -> None:
    parent = Parent(targets=["second"], has_bias=False, dtype=torch.float32)
    group = group_of(parent, *NAMES)
    x = random(7, 64)
    with_adapter, _ = group(x)
    assert group.is_adapted
    if switch == "disable":
        parent.second.enable_adapters(False)
    else:
        parent.second.merged_adapters.append("default")
    without, updates = group(x)
    assert not group.is_adapted
    assert not updates
    assert not torch.allclose(with_adapter[:, 32:48], without[:, 32:48])
    torch.testing.assert_close(with_adapter[:, :32], without[:, :32])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("names", [NAMES, ("second",)], ids=["merged", "alone"])
def test_layers_are_filled_and_emptied(names: tuple[str, ...], dtype: torch.dtype) -> None:
    parent = Parent(targets=["second"], has_bias=True, dtype=dtype)
    original = {name: weight.clone() for name, weight in parent.state_dict().items()}
    group = group_of(parent, *names)
    owns_weight = Product(torch.ones(16, 16, dtype=dtype), None).owns_weight
    layers = [parent.second.get_base_layer() if name == "second" else getattr(parent, name) for name in names]
    for _ in range(2):
        assert all(layer.weight.isnan().all() == owns_weight for layer in layers)
        assert [layer.weight.shape[0] for layer in layers] == [SIZES[NAMES.index(name)] for name in names]
        group.fill_layers()
        assert all(torch.equal(weight, original[name]) for name, weight in parent.state_dict().items())
        group.empty_layers()
    assert torch.equal(parent.second.lora_A["default"].weight, original["second.lora_A.default.weight"])


def test_the_width_of_a_group() -> None:
    parent = Parent(targets=[], has_bias=False, dtype=torch.float32)
    assert group_of(parent, "first", "third").num_columns == 80
    assert group_of(parent, "second").num_columns == 16
