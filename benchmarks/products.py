"""How the fused blocks' parts were chosen: ways to multiply by a frozen weight, and ways to do what lies in between.

python -m benchmarks.products     prints three Markdown tables: medians of interleaved rounds, the built-in shapes

Not in the table: numba, which has no bfloat16, and a C++ extension of torch, which would hold the same loops and take
torch's headers and a minute to build where plain C takes seconds.
"""

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.tables import table
from embedsmith.model.layers.dropout import DropoutMask
from embedsmith.model.layers.fused.build import load_library
from embedsmith.model.layers.fused.c_kernels import CKernels, CProducts
from embedsmith.model.layers.fused.kernels import Activation, AttentionShape, Kernels, Norm
from embedsmith.model.layers.fused.loops import RowLoops
from embedsmith.model.layers.fused.products import ActivatedProduct, Product, StreamProduct
from embedsmith.model.layers.fused.torch_kernels import TorchKernels
from embedsmith.model.layers.segments import Segments

NUM_TOKENS = 1536
LENGTH = 16
HIDDEN, INNER, RANK = 576, 1536, 8
NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 9, 3, 64
SHAPES = {"qkv": (HIDDEN, 960), "gate and up": (HIDDEN, 2 * INNER), "down": (INNER, HIDDEN)}
ROUNDS = 15
Call = Callable[[], object]


def main() -> None:
    """Measure and print."""
    with torch.no_grad():
        print(table(["product, GFLOPS", "rows", *_products("down", 8)], _product_lines()))
        print(table(["product and what follows, microseconds", "oneDNN, then C", "one of ours"], _pair_lines()))
        print(table(["operation, microseconds", "C", "torch", "torch.compile"], _kernel_lines()))


def medians(calls: dict[str, Call]) -> dict[str, float]:
    """Median seconds of each call, all of them once a round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 2):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number >= 2:  # the first rounds warm up
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _product_lines() -> list[list[str]]:
    lines = []
    for name, (num_in, num_out) in SHAPES.items():
        for rows in (128, NUM_TOKENS):
            operations = 2 * rows * num_in * num_out
            seconds = medians(_products(name, rows))
            lines.append([name, str(rows), *(f"{operations / value / 1e9:.0f}" for value in seconds.values())])
    return lines


def _products(name: str, rows: int) -> dict[str, Call]:
    num_in, num_out = SHAPES[name]
    calls: dict[str, Call] = {}
    for label, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        x, weight = torch.randn(rows, num_in).to(dtype), torch.randn(num_out, num_in).to(dtype)
        product = Product(weight, None)
        calls[f"{label}, torch"] = lambda x=x, weight=weight: torch.nn.functional.linear(x, weight)
        calls[f"{label}, oneDNN's layout"] = lambda x=x, product=product: product(x)
    x, weight = torch.randn(rows, num_in).bfloat16(), torch.randn(num_out, num_in).bfloat16()
    stream, ours = torch.zeros(rows, num_out), StreamProduct(weight, None, kernels=CProducts(RowLoops(load_library())))
    calls["bf16, ours"] = lambda: ours.add(x, into=stream, alpha=1.0)
    x8, weight8 = (torch.randint(-9, 9, shape, dtype=torch.int8) for shape in ((rows, num_in), (num_in, num_out)))
    calls["int8"] = lambda: torch._int_mm(x8, weight8)
    return calls


def _pair_lines() -> list[list[str]]:
    kernels, products = CKernels(load_library()), CProducts(RowLoops(load_library()))
    activation, norm = Activation("silu", is_gated=True), Norm(torch.ones(HIDDEN), None, eps=1e-5, is_centered=False)
    up_weight, down_weight = torch.randn(2 * INNER, HIDDEN).bfloat16() / 24, torch.randn(HIDDEN, INNER).bfloat16() / 39
    up, down = Product(up_weight, None), Product(down_weight, None)
    our_up = ActivatedProduct(up_weight, None, activation=activation, kernels=products)
    our_down = StreamProduct(down_weight, None, kernels=products)
    x, stream = torch.randn(NUM_TOKENS, HIDDEN).bfloat16(), torch.zeros(NUM_TOKENS, HIDDEN)
    inner, outer = up(x), our_up.activate(x, keep=False)[1]

    def add_norm(*updates: torch.Tensor) -> object:
        return kernels.add_norm(stream, updates, alpha=1e-3, norm=norm, dtype=x.dtype, keep=True)

    pairs: dict[str, tuple[Call, Call]] = {
        "gate and up, activation": (
            lambda: kernels.activate(up(x), activation=activation),
            lambda: our_up.activate(x, keep=True),
        ),
        "the same, nothing kept": (
            lambda: kernels.activate(up(x), activation=activation),
            lambda: our_up.activate(x, keep=False),
        ),
        "gradient of down, of the activation": (
            lambda: kernels.activate_backward(inner.clone(), down.backward(x), activation=activation),
            lambda: our_down.backward_activation(x, x=inner.clone(), activation=activation),
        ),
        "down, residual, norm": (
            lambda: add_norm(down(outer)),
            lambda: (our_down.add(outer, into=stream, alpha=1e-3), add_norm()),
        ),
    }
    lines = []
    for name, (apart, together) in pairs.items():
        seconds = medians({"apart": apart, "together": together})
        lines.append([name, *(f"{1e6 * value:,.0f}" for value in seconds.values())])
    return lines


def _kernel_lines() -> list[list[str]]:
    ways: list[Kernels] = [CKernels(load_library()), TorchKernels(), TorchKernels(is_compiled=True)]
    operations = [_operations(kernels) for kernels in ways]
    lines = []
    for name in operations[0]:
        seconds = medians({str(number): calls[name] for number, calls in enumerate(operations)})
        lines.append([name, *(f"{1e6 * value:,.0f}" for value in seconds.values())])
    return lines


def _operations(kernels: Kernels) -> dict[str, Call]:
    def rows(width: int) -> torch.Tensor:
        return torch.randn(NUM_TOKENS, width).to(torch.bfloat16)

    x, h, qkv = torch.randn(NUM_TOKENS, HIDDEN), rows(HIDDEN), rows((NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_DIM)
    inner, dinner, doutput = rows(2 * INNER), rows(INNER), rows(NUM_HEADS * HEAD_DIM)
    norm = Norm(torch.ones(HIDDEN), None, eps=1e-5, is_centered=False)
    _, state = kernels.add_norm(x, (h,), alpha=1.0, norm=norm, dtype=torch.bfloat16, keep=True)
    assert state is not None
    activation = Activation("silu", is_gated=True)
    heads = qkv.split([NUM_HEADS * HEAD_DIM, NUM_KV_HEADS * HEAD_DIM, NUM_KV_HEADS * HEAD_DIM], dim=1)
    into = torch.empty_like(qkv).split([tensor.shape[1] for tensor in heads], dim=1)
    shape = _attention_shape()
    a, mask = torch.randn(RANK, HIDDEN), DropoutMask(seed=(1, 2), p=0.1)
    return {
        "add and norm": lambda: kernels.add_norm(x, (h,), alpha=1.0, norm=norm, dtype=torch.bfloat16, keep=True),
        "norm, backward": lambda: kernels.norm_backward((h,), state=state, norm=norm, dx=x, alpha=1.0),
        "activation": lambda: kernels.activate(inner, activation=activation),
        "activation, backward": lambda: kernels.activate_backward(inner.clone(), dinner, activation=activation),
        "dropout and LoRA's A": lambda: kernels.project(h, a, mask=mask, scale=1.0),
        "rotary and attention": lambda: kernels.attention(*heads, shape=shape),
        "the same, backward": lambda: kernels.attention_backward(*heads, doutput, shape=shape, into=into),
    }


def _attention_shape() -> AttentionShape:
    num_segments = NUM_TOKENS // LENGTH
    angles = torch.outer(torch.arange(LENGTH), 1e4 ** -torch.linspace(0, 1, HEAD_DIM // 2))
    return AttentionShape(
        segments=Segments((LENGTH,) * num_segments, torch.arange(num_segments + 1, dtype=torch.int32) * LENGTH),
        num_heads=NUM_HEADS,
        num_kv_heads=NUM_KV_HEADS,
        head_dim=HEAD_DIM,
        scaling=HEAD_DIM**-0.5,
        window=None,
        ends_only=False,
        cos=angles.cos(),
        sin=angles.sin(),
    )


if __name__ == "__main__":
    main()
