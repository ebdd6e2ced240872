"""A graph -> onnx/model.onnx, by torch's own exporter; in float32, float16, or with 8-bit products.

Weights of two gigabytes and more lie beside it in model.onnx_data, as onnxruntime, transformers.js and optimum look for
them.
"""

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from embedsmith.export.graph import EmbeddingGraph, dynamic_shapes, example_inputs, inexpressible, quiet
from embedsmith.export.onnx_int8 import quantize_onnx
from embedsmith.model.graph_runner import INPUTS, OUTPUTS
from embedsmith.model.loading.graph_files import ONNX_FILE
from embedsmith.support.errors import MissingExtraError

_OPSET = 18  # nothing above it is needed, and every runtime of the last years has it
# protobuf's limit is 2 GiB for all of a file.
_MOST_BYTES = 2**31 - 2**27
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_onnx_packages() -> None:
    """Raise MissingExtraError unless all that writing and checking an ONNX file needs is installed."""
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(package, extra="onnx", needed_for="Export to onnx")


def write_onnx(graph: EmbeddingGraph, *, folder: Path, model: str, in_8_bits: bool = False) -> Path:
    """Write the graph in its own number format, or its products in 8 bits; returns the file.

    Raises:
        ModelError: torch's exporter cannot express the model.
    """
    import onnx_ir

    file = folder / ONNX_FILE
    file.parent.mkdir()
    exported = _export(graph, model=model)
    for node in exported.graph.all_nodes():
        node.metadata_props.clear()  # where in whose files each one came from
    if not in_8_bits:
        _save(exported, file)
        return file
    with TemporaryDirectory(dir=folder) as room:
        whole, rounded = Path(room, "whole.onnx"), Path(room, "rounded.onnx")
        onnx_ir.save(exported, whole, external_data="whole.data")
        quantize_onnx(whole, rounded, hidden_size=graph.network.config.hidden_size)
        _save(onnx_ir.external_data.load_to_model(onnx_ir.load(rounded)), file)
    return file


def _save(model: Any, file: Path) -> None:
    import onnx_ir

    size = sum(weight.const_value.nbytes for weight in model.graph.initializers.values())
    onnx_ir.save(model, file, external_data=f"{file.name}_data" if size > _MOST_BYTES else None)


def _export(graph: EmbeddingGraph, *, model: str) -> Any:
    try:
        with quiet():
            program = torch.onnx.export(
                graph,
                example_inputs(),
                dynamo=True,
                verbose=False,
                input_names=INPUTS,
                output_names=OUTPUTS,
                dynamic_shapes=dynamic_shapes(),
                opset_version=_OPSET,
            )
    except (torch.onnx.OnnxExporterError, torch._dynamo.exc.TorchDynamoException) as error:
        raise inexpressible(model, error, by="torch's ONNX exporter") from error
    assert program is not None
    return program.model
