"""SentenceEncoder: a sentence-transformers model, run by that package as it ships: a mark to beat, or a teacher.

Its pooling, length and prompts are its own. Vectors are those of the package's `encode_query` and `encode_document`, at
unit length; only a control token spelled in a text is its characters, as everywhere here.

Cost: a forward over the distinct texts, padded to the longest of a batch, the longest texts first.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedsmith.model.encoding import encode_by_length, read_texts
from embedsmith.model.loading.checkpoint_files import read_object
from embedsmith.model.loading.configuration import reason_of
from embedsmith.model.loading.devices import choose_device, choose_dtype, choose_precision
from embedsmith.model.loading.sentence_files import Modules, find_modules
from embedsmith.model.loading.weights import check_finite, name_some
from embedsmith.model.vector_precision import Ranges, check_vector_precision, quantize_vectors
from embedsmith.model.widths import check_dim, shorten
from embedsmith.settings.choices import Precision, Side, VectorPrecision
from embedsmith.settings.prompts import (
    INSTRUCTION_FIELD,
    TEXT_FIELD,
    check_instruction,
    read_prompt,
    resolve_template,
)
from embedsmith.support.errors import ConfigError, MissingExtraError, ModelError

log = logging.getLogger(__name__)

# As `encode_query` and `encode_document` look for them.
_PROMPT_NAMES = {Side.QUERY: ("query",), Side.DOCUMENT: ("document", "passage", "corpus")}


class SentenceEncoder:
    """A sentence-transformers model that embeds texts.

    Use `SentenceEncoder.load`.

    Args:
        network: the package's own model.
        name: what the user called it.
        prompt: template that ends in `{text}`, for queries and documents in the place of its own; None: its own.
        instruction: fills `{instruction}` in that prompt.

    Raises:
        ConfigError: the prompt has something behind the text, or lacks its instruction.
    """

    run_by = "sentence-transformers"

    def __init__(self, network: Any, *, name: str, prompt: str | None = None, instruction: str | None = None) -> None:
        self.network = network
        self.name = name
        self.prompt = prompt
        self.instruction = instruction
        for side in Side:  # what does not fit must show at once
            self.prompt_of(side)
        prompts = [*network.prompts.values(), prompt or ""]
        if any(token in text for token in self._control_tokens() for text in prompts):
            log.warning("%s has control tokens in a prompt, so in texts they count, too.", name)
        elif self._is_static:
            network.tokenizer.encode_special_tokens = True
        else:
            network.tokenizer.split_special_tokens = True  # a text's [SEP] or </s> is its characters

    @classmethod
    def load(
        cls,
        model: str,
        *,
        prompt: str | None = None,
        instruction: str | None = None,
        precision: Precision | str = Precision.AUTO,
        device: str | None = None,
    ) -> "SentenceEncoder":
        """Load a sentence-transformers model: a folder or hub id with `modules.json`.

        Args:
            model: see above.
            prompt: template that ends in `{text}`, the name of one of the model's own, or a known name; None: the
                model's own for queries and documents.
            instruction: fills `{instruction}` in the prompt.
            precision: `fp32`, `bf16`, or `auto`, which is the number format that its weights are stored in; on a CPU
                float32 in the place of float16, in which it multiplies many times slower.
            device: a torch device; None: CUDA where there is one, else the CPU.

        Raises:
            ModelError: it is no such model, or it needs program code or pickled weights, or is damaged.
            MissingExtraError: sentence-transformers is not installed.
            ConfigError: an unusable prompt, instruction, precision or device.
        """
        modules = find_modules(model)
        if modules is None:
            raise ModelError(f"'{model}' is no sentence-transformers model: it has no modules.json.")
        _check_activations(modules)
        chosen, precision = choose_device(device), choose_precision(precision)
        dtype = {} if precision is Precision.AUTO else {"dtype": choose_dtype(precision, chosen)}
        network = _load_network(model, chosen, dtype)
        if chosen.type == "cpu" and any(weight.dtype is torch.float16 for weight in network.parameters()):
            network = network.float()
        _check_weights(network, modules)
        encoder = cls(network, name=model, instruction=instruction)
        if prompt is None:
            return encoder
        try:
            template = encoder.prompts.get(prompt) or resolve_template(prompt)
        except ValueError as error:
            names = f"\nThe model's own prompts are {', '.join(encoder.prompts)}." if encoder.prompts else ""
            raise ConfigError(f"The prompt {prompt!r} {error}.{names}") from None
        return cls(network, name=model, prompt=template, instruction=instruction)

    @property
    def _is_static(self) -> bool:
        """A mean over a table of vectors by token: no transformer, any length, and a bare tokenizer."""
        return self.network.transformers_model is None

    def copy_tokenizer(self) -> Any:
        """A copy of its tokenizer, as the package tokenizers has it, that takes control tokens in texts as it does and
        cuts and pads nothing; for use beside `encode`, which changes the settings of its own at every call."""
        own = self.network.tokenizer
        copy = deepcopy(own if self._is_static else own.backend_tokenizer)
        copy.no_truncation()
        copy.no_padding()
        copy.encode_special_tokens = own.encode_special_tokens if self._is_static else own.split_special_tokens
        return copy

    def _control_tokens(self) -> list[str]:
        tokenizer = self.network.tokenizer
        if not self._is_static:
            return list(tokenizer.all_special_tokens)
        return [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]

    @property
    def dim(self) -> int:
        """Embedding width D."""
        return int(self.network.get_embedding_dimension())

    @property
    def max_length(self) -> int:
        """Most tokens per text, prompt included; longer texts are cut. A static model takes any number."""
        if self._is_static:
            return sys.maxsize
        return int(self.network.max_seq_length or self.network.tokenizer.model_max_length)

    @property
    def transformer(self) -> Any:
        """Its body, as transformers knows it; of a static model, the whole."""
        return self.network if self._is_static else self.network.transformers_model

    @property
    def prompts(self) -> Mapping[str, str]:
        """Name -> template of those it brings."""
        return {name: prompt + TEXT_FIELD for name, prompt in self.network.prompts.items() if prompt}

    def change_prompt(self, prompt: str | None) -> None:
        """Embed queries and documents under another template from here on; None: its own."""
        self.prompt = prompt

    @property
    def takes_instruction(self) -> bool:
        """Whether a prompt has a place for an instruction."""
        return INSTRUCTION_FIELD in (self.prompt or "")

    def prompt_of(self, side: Side = Side.DOCUMENT, *, instruction: str | None = None) -> str:
        """What stands in front of queries or documents.

        Raises:
            ConfigError: as the constructor.
        """
        if self.prompt is None:
            prompts = self.network.prompts
            name = next((name for name in _PROMPT_NAMES[side] if name in prompts), self.network.default_prompt_name)
            return str(prompts.get(name) or "")
        parts = read_prompt(self.prompt, instruction=instruction or self.instruction).parts
        if len(parts) != 2 or parts[1]:
            raise ConfigError(
                f"The prompt {self.prompt!r} does not end with its one {{text}}, but '{self.name}' is run by "
                "sentence-transformers, which puts prompts in front of texts.\nLet the prompt end with {text}."
            )
        return parts[0]

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

        Args:
            texts: any number of strings, in anything that has an order; equal ones are computed once.
            side: `query` or `document`, which matters where the model has prompts.
            instruction: fills `{instruction}` in the prompt; None: as loaded.
            dim: keep this many dimensions, the first ones, at unit length; None: all D.
            vector_precision, ranges: as `Embedder.encode`.
            on_progress: called with the number of texts finished, some hundreds at a time.

        Raises:
            TypeError, DataError, ConfigError: as `Embedder.encode`.
        """
        texts = read_texts(texts)
        check_instruction(instruction, is_taken=self.takes_instruction)
        if dim is not None:
            check_dim(dim, width=self.dim)
        vector_precision = check_vector_precision(vector_precision, ranges=ranges, dim=dim or self.dim)
        side = Side(side)
        prompt = self.prompt_of(side, instruction=instruction)
        run = self.network.encode_query if side is Side.QUERY else self.network.encode_document
        result = encode_by_length(
            texts,
            embed=lambda group: run(group, prompt=prompt, normalize_embeddings=True, show_progress_bar=False),
            dim=self.dim,
            on_progress=on_progress,
        )
        result = result if dim is None else shorten(torch.from_numpy(result), dim=dim).numpy()
        return quantize_vectors(result, vector_precision=vector_precision, ranges=ranges)

    def count_cut(self, texts: Sequence[str], *, side: Side = Side.DOCUMENT, instruction: str | None = None) -> int:
        """How many of K texts are longer than the model takes, and are cut."""
        if self._is_static:
            return 0
        prompt = self.prompt_of(side, instruction=instruction)
        found = self.network.tokenizer([prompt + text for text in texts], truncation=False, verbose=False)
        return sum(len(ids) > self.max_length for ids in found["input_ids"])

    def describe(self, *, weights: Sequence[str], dim: int | None = None) -> dict[str, Any]:
        """All that its embeddings depend on, for files; `weights` as `fingerprint_model` gives them."""
        return {
            "weights": list(weights),
            "run_by": self.run_by,
            "prompt": self.prompt,
            "instruction": self.instruction,
            "dim": dim,
        }


def _load_network(model: str, device: torch.device, dtype: dict[str, torch.dtype]) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        needed_for = f"The sentence-transformers model '{model}'"
        raise MissingExtraError("sentence-transformers", extra="encoders", needed_for=needed_for) from None
    try:
        network = SentenceTransformer(
            model,
            device=str(device),
            trust_remote_code=False,
            local_files_only=Path(model).is_dir(),
            model_kwargs={"use_safetensors": True, **dtype},
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # damaged files make the libraries raise errors of every kind
        raise ModelError(f"'{model}' cannot be loaded by sentence-transformers: {reason_of(error)}") from error
    if network.get_embedding_dimension() is None:
        raise ModelError(f"'{model}' has no pooling, so its texts have no vectors.")
    return network


def _check_activations(modules: Modules) -> None:
    """Refuse an activation that is not torch's own: the package would take another one in its place."""
    for index, kind in enumerate(modules.kinds):
        path = modules.find_file(index, "config.json") if kind == "Dense" else None
        name = read_object(path).get("activation_function") if path else None
        if name is not None and not str(name).startswith("torch."):
            raise ModelError(
                f"{modules.folders[index]} of '{modules.model}' has the activation {name!s:.100}, which may need "
                "program code of its own; embedsmith runs none.\nChoose a model with an activation of torch's."
            )


def _check_weights(network: Any, modules: Modules) -> None:
    """Raise ModelError where weights of the body are missing, which the package starts at random, or are no numbers."""
    advice = "Download or save the model again."
    path = modules.find_file(0, "config.json")
    body = network.transformers_model
    if body is not None and path is not None and modules.find_file(0, "adapter_config.json") is None:
        # Once more without memory, for what transformers says of it: the package keeps that to itself.
        kind, where = type(body), str(path.parent)
        _, report = kind.from_pretrained(
            where, device_map="meta", use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        # Some heads for the first token come without weights; mean and other poolings have no use for them.
        missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
        if missing:
            raise ModelError(
                f"The weights of '{modules.model}' are incomplete: {name_some(missing)} are missing.\n{advice}"
            )
    check_finite(dict(network.named_parameters()), owner=f"The weights of '{modules.model}'", advice=advice)
