"""An ONNX file in float32 -> one whose products are in 8 bits, by onnxruntime's quantisers.

Weights have a scale a column; what they are multiplied with has one scale a batch, found as it runs. A decoder has a
few inputs much larger than the others, before the last product of an MLP most of all: one scale for all of them leaves
little of the rest. So products that bring wide rows down to the hidden width have scales by blocks, on both sides.
Weights are unsigned: products of signed ones overflow in 16 bits on processors with AVX2 or AVX512 alone (a cosine of
0.53 to float32 in the test of this file, on an EPYC with AVX2; 0.987 unsigned), and those with VNNI take both.
Embeddings of tokens, norms and attention itself stay in float32.

Reference: onnxruntime's documentation, "Quantize ONNX models": when and why to use U8U8 data type.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_BLOCK = 128
_INT8_PRODUCTS = 4  # accuracy level of onnxruntime's MatMulNBits


def quantize_onnx(source: Path, target: Path, *, hidden_size: int) -> None:
    """Write `target`, whose weights lie beside it."""
    import onnx

    with _quiet():
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(
            model := onnx.load(source),
            bits=8,
            block_size=_BLOCK,
            is_symmetric=True,
            accuracy_level=_INT8_PRODUCTS,
            nodes_to_exclude=_products_of_narrow_rows(model, hidden_size=hidden_size),
        )
        quantizer.process()
        quantize_dynamic(
            quantizer.model.model,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QUInt8,
            use_external_data_format=True,
        )


def _products_of_narrow_rows(model: Any, *, hidden_size: int) -> list[str]:
    """Names of the products whose weight (in, out), if they have one, takes rows no wider than the hidden width."""
    widths = {weight.name: weight.dims[0] for weight in model.graph.initializer if len(weight.dims) == 2}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    return [node.name for node in products if widths.get(node.input[1], 0) <= hidden_size]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the quantisers say of every node; one of them sets up the root logger when it is imported."""
    root, disabled = logging.getLogger(), logging.root.manager.disable
    handlers, level = list(root.handlers), root.level
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)
