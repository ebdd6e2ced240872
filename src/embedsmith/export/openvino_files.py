"""A graph -> openvino/openvino_model.xml and .bin, by openvino's own converter; weights in float32, float16 or 8 bits.

openvino takes what torch traces, so no ONNX file is needed on the way. Whatever the weights are stored in, openvino
computes in float32, or in bfloat16 where it is let.
"""

import io
import logging
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from embedsmith.export.graph import EmbeddingGraph, dynamic_shapes, example_inputs, inexpressible, quiet
from embedsmith.model.graph_runner import OUTPUTS
from embedsmith.model.loading.graph_files import OPENVINO_FILE
from embedsmith.support import files
from embedsmith.support.errors import MissingExtraError
from embedsmith.support.libraries import import_openvino, without_openvino_reports


def check_openvino_packages(*, in_8_bits: bool) -> None:
    """Raise MissingExtraError unless all that writing and checking such a file needs is installed."""
    for package in ("openvino", "nncf") if in_8_bits else ("openvino",):
        if find_spec(package) is None:
            raise MissingExtraError(package, extra="openvino", needed_for="Export to openvino")


def write_openvino(
    graph: EmbeddingGraph, *, folder: Path, model: str, in_16_bits: bool = False, in_8_bits: bool = False
) -> Path:
    """Write a float32 graph, with weights as they are or rounded; returns the file.

    Raises:
        ModelError: torch cannot trace the model, or openvino has no place for one of its operations.
        RunError: the disk has no room for it.
    """
    openvino = import_openvino()
    file = folder / OPENVINO_FILE
    file.parent.mkdir()
    try:
        with quiet(), without_openvino_reports(), torch.no_grad():
            traced = torch.export.export(graph, example_inputs(), dynamic_shapes=dynamic_shapes())
            made = openvino.convert_model(traced)
    except RuntimeError as error:  # of torch and, translated, of openvino
        raise inexpressible(model, error, by="openvino's converter") from error
    for output, name in zip(made.outputs, OUTPUTS, strict=True):
        output.get_tensor().set_names({name})
    if in_8_bits:
        made = _round(made)
    size = _size(made, in_16_bits=in_16_bits)
    # On a full disk openvino's error does not say so, and its file is gone by then.
    files.check_room(file.parent, size_bytes=size, what="The model's weights", advice="choose another place")
    openvino.save_model(made, file, compress_to_fp16=in_16_bits)
    return file


def _size(made: Any, *, in_16_bits: bool) -> int:
    """Bytes of its weights, and a megabyte for what it does with them."""
    weights = sum(part.get_byte_size() for part in made.get_ops() if part.get_type_name() == "Constant")
    return int(weights // (2 if in_16_bits else 1)) + 2**20


def _round(made: Any) -> Any:
    """Weights in 8 bits, embeddings of tokens among them, with a scale for each row."""
    with quiet(), without_openvino_reports(), redirect_stdout(io.StringIO()):  # where it draws tables and bars
        import nncf

        nncf.set_log_level(logging.ERROR)
        return nncf.compress_weights(made, mode=nncf.CompressWeightsMode.INT8_SYM)
