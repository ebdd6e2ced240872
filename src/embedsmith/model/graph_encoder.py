"""GraphEncoder: a graph that `embedsmith export` wrote, run by its own runtime; what it lost, scores tell.

Vectors are what any program gets of that folder: its tokenizer puts prompt and end token and cuts, its graph pools.

Cost: a forward over the distinct texts, padded to the longest of a batch of 16, the longest texts first.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedsmith.model.encoding import encode_by_length, read_texts
from embedsmith.model.graph_runner import VECTORS, GraphModel, open_onnx, open_openvino
from embedsmith.model.loading.configuration import reason_of
from embedsmith.model.loading.devices import choose_device, choose_precision
from embedsmith.model.loading.graph_files import ONNX_FILE, OPENVINO_FILE, find_graph
from embedsmith.model.vector_precision import Ranges, check_vector_precision, quantize_vectors
from embedsmith.model.widths import check_dim, shorten
from embedsmith.settings.choices import Precision, Side, VectorPrecision
from embedsmith.settings.prompts import TEXT_FIELD, check_instruction
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, MissingExtraError, ModelError
from embedsmith.support.json_text import parse_json

_PROMPTS_FILE = "config_sentence_transformers.json"
_EXTRAS = {ONNX_FILE: ("onnxruntime", "onnx"), OPENVINO_FILE: ("openvino", "openvino")}


class GraphEncoder:
    """A graph that embeds texts, in float32 or as its weights are rounded.

    Use `GraphEncoder.load`.

    Args:
        graph: what runs.
        name: what the user called it.
        beginnings: what the folder says to put before a text, by the prompt's name; sides are names.
    """

    takes_instruction = False

    def __init__(self, graph: GraphModel, *, name: str, beginnings: Mapping[str, str]) -> None:
        self.graph = graph
        self.name = name
        self.prompt: str | None = None
        self._beginnings = beginnings
        self.dim = graph.encode(["a"]).shape[1]
        """Embedding width D."""

    @classmethod
    def load(
        cls, model: str, *, precision: Precision | str = Precision.AUTO, device: str | None = None
    ) -> "GraphEncoder":
        """Load a folder of `embedsmith export --to onnx` or `--to openvino`.

        Args:
            model: the folder.
            precision: `fp32` or `auto`, which is that; `bf16` with openvino.
            device: `cpu` or None, which is that.

        Raises:
            ModelError: it is no such folder, or damaged.
            MissingExtraError: its runtime is not installed.
            ConfigError: a precision or device that does not run it.
        """
        file = find_graph(model)
        if file is None:
            raise ModelError(f"'{model}' is no folder with a graph: it has no {ONNX_FILE} and no {OPENVINO_FILE}.")
        folder = Path(model)
        name = str(file.relative_to(folder))
        precision = choose_precision(precision)
        if device is not None and choose_device(device).type != "cpu":
            raise ConfigError(f"The device is {device}, and graphs are run on the CPU.\nLeave it away.")
        if precision is Precision.BF16 and name == ONNX_FILE:
            raise ConfigError("The precision is bf16, and onnxruntime computes in float32.\nLeave it away.")
        package, extra = _EXTRAS[name]
        try:
            graph = open_onnx(folder) if name == ONNX_FILE else open_openvino(folder, precision=precision)
            return cls(graph, name=model, beginnings=_read_beginnings(folder))
        except ImportError:
            raise MissingExtraError(package, extra=extra, needed_for=f"The graph '{model}'") from None
        except MemoryError:
            raise
        except Exception as error:  # damaged files make the libraries raise errors of every kind
            raise ModelError(
                f"'{model}' cannot be run by {package}, as a graph with {VECTORS}: {reason_of(error)}\n"
                f"Write it anew with embedsmith export."
            ) from error

    @property
    def max_length(self) -> int:
        """Most tokens per text, prompt included; longer texts are cut."""
        truncation = self.graph.tokenizer.truncation
        return int(truncation["max_length"]) if truncation else sys.maxsize

    @property
    def transformer(self) -> GraphModel:
        """The graph, which knows its device and number format."""
        return self.graph

    @property
    def run_by(self) -> str:
        """The package that computes its vectors."""
        return self.graph.runtime

    @property
    def prompts(self) -> Mapping[str, str]:
        """Name -> template of those that stand before texts; what is in the tokenizer has no name."""
        return {name: text + TEXT_FIELD for name, text in self._beginnings.items() if text.strip()}

    def change_prompt(self, prompt: str | None) -> None:
        """Embed queries and documents under another of its own templates from here on; None: as it ships.

        Raises:
            ConfigError: it is none of them: what its tokenizer puts around texts stays.
        """
        if prompt is not None and prompt not in self.prompts.values():
            raise ConfigError(
                f"'{self.name}' has its prompts inside and cannot be given {prompt!r}.\n"
                "Leave it away, or export the model anew with that prompt."
            )
        self.prompt = prompt

    def encode(
        self,
        texts: Iterable[str],
        *,
        side: Side | str = Side.DOCUMENT,
        instruction: str | None = None,
        dim: int | None = None,
        vector_precision: VectorPrecision | str = VectorPrecision.FLOAT32,
        ranges: Ranges | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Embed K texts; returns (K, D) float32, unit length, in the order given, or what `vector_precision` says.

        Arguments and errors as `SentenceEncoder.encode`; a graph takes no instruction.
        """
        texts = read_texts(texts)
        check_instruction(instruction, is_taken=False)
        if dim is not None:
            check_dim(dim, width=self.dim)
        vector_precision = check_vector_precision(vector_precision, ranges=ranges, dim=dim or self.dim)
        before = self._before(Side(side))
        rows = encode_by_length(
            texts,
            embed=lambda group: self.graph.encode([before + text for text in group]),
            dim=self.dim,
            on_progress=on_progress,
        )
        rows = rows if dim is None else shorten(torch.from_numpy(rows), dim=dim).numpy()
        return quantize_vectors(rows, vector_precision=vector_precision, ranges=ranges)

    def count_cut(self, texts: Sequence[str], *, side: Side = Side.DOCUMENT, instruction: str | None = None) -> int:
        """How many of K texts are longer than the model takes, and are cut."""
        before = self._before(side)
        encoded = self.graph.tokenizer.encode_batch([before + text for text in texts])
        return sum(bool(one.overflowing) for one in encoded)

    def describe(self, *, weights: Sequence[str], dim: int | None = None) -> dict[str, Any]:
        """All that its embeddings depend on, for files; `weights` as `fingerprint_model` gives them."""
        return {"weights": list(weights), "run_by": self.run_by, "prompt": self.prompt, "instruction": None, "dim": dim}

    def _before(self, side: Side) -> str:
        if self.prompt is not None:
            return self.prompt.removesuffix(TEXT_FIELD)
        return self._beginnings.get(side, "")


def _read_beginnings(folder: Path) -> dict[str, str]:
    return dict(parse_json(files.read_text(folder / _PROMPTS_FILE))["prompts"])
