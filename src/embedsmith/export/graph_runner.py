"""A folder with a graph -> vectors, by the graph's own runtime and the tokenizers library alone.

What a program without embedsmith, transformers and torch does with it; the parity of an export is asked of this.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer

from embedsmith.export.graph import INPUTS, VECTORS
from embedsmith.export.onnx_files import ONNX_FILE

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Ids and mask (K, L) int64 -> vectors (K, D) float32."""


@dataclass(frozen=True)
class GraphModel:
    """A tokenizer that puts and cuts all by itself, and a graph."""

    tokenizer: Tokenizer
    run: Run

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

    return GraphModel(_tokenizer(folder), run)


def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
