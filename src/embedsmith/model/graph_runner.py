"""A folder with a graph -> vectors, by the graph's own runtime and the tokenizers library alone.

    input_ids, attention_mask (K, L) -> last_hidden_state (K, L, H), sentence_embedding (K, D)

What a program without embedsmith, transformers and torch does with it; the parity of an export is asked of this.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer

from embedsmith.model.loading.graph_files import ONNX_FILE, OPENVINO_FILE
from embedsmith.settings.choices import Precision
from embedsmith.support.libraries import import_openvino

INPUTS = ("input_ids", "attention_mask")
STATES, VECTORS = OUTPUTS = ("last_hidden_state", "sentence_embedding")
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Ids and mask (K, L) int64 -> vectors (K, D) float32."""


@dataclass(frozen=True)
class GraphModel:
    """A tokenizer that puts and cuts all by itself, and a graph.

    Attributes:
        tokenizer: of the folder's tokenizer.json.
        run: the graph.
        runtime: package that runs it.
        dtype: what its products are computed in, where they are not in 8 bits.
        device: where it runs.
    """

    tokenizer: Tokenizer
    run: Run
    runtime: str
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 16, padding: Literal["left", "right"] = "right"
    ) -> np.ndarray:
        """Vectors (K, D) float32 of K texts as they stand, batch by batch in the order given."""
        self.tokenizer.enable_padding(**{**(self.tokenizer.padding or {}), "direction": padding})
        found = []
        for first in range(0, len(texts), batch_size):
            encoded = self.tokenizer.encode_batch(list(texts[first : first + batch_size]))
            ids, mask = ([getattr(one, name) for one in encoded] for name in ("ids", "attention_mask"))
            found.append(self.run(np.array(ids, dtype=np.int64), np.array(mask, dtype=np.int64)))
        return np.concatenate(found)


def open_onnx(folder: Path) -> GraphModel:
    """A folder of `embedsmith export --to onnx`, run by onnxruntime on the CPU."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = InferenceSession(str(folder / ONNX_FILE), options, providers=["CPUExecutionProvider"])

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        (vectors,) = session.run([VECTORS], dict(zip(INPUTS, (ids, mask), strict=True)))
        return vectors

    return GraphModel(_tokenizer(folder), run, "onnxruntime")


def open_openvino(folder: Path, *, precision: Precision = Precision.FP32) -> GraphModel:
    """A folder of `embedsmith export --to openvino`, run by openvino on the CPU; in float32 or bfloat16, which openvino
    would choose by itself where the processor multiplies it."""
    openvino = import_openvino()
    dtype = torch.bfloat16 if precision is Precision.BF16 else torch.float32
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype is torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = openvino.Core().compile_model(folder / OPENVINO_FILE, "CPU", options)

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.array(compiled(dict(zip(INPUTS, (ids, mask), strict=True)))[VECTORS])  # a copy: openvino's is reused

    return GraphModel(_tokenizer(folder), run, "openvino", dtype)


def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
