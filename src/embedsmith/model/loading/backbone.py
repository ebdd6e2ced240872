"""MODEL -> a frozen decoder without its LM head, ready for packed texts, and its tokenizer.

MODEL is a built-in or shipped name, a hub id, a local folder, a GGUF file, a finished run's folder, or an adapter in
peft's format (its base is loaded here, the adapter in `adapter.py`). Only safetensors weights and in-tree architectures
are loaded: no pickle, no remote code; MiniCPM runs as Granite (`minicpm.py`).
"""

import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel

from embedsmith.model.layers.attention import PACKED_ATTENTION
from embedsmith.model.loading.builtin import BUILTIN
from embedsmith.model.loading.checkpoint_files import SETTINGS_FILE, conversion_advice, find_file
from embedsmith.model.loading.configuration import is_decoder, load_config, reason_of
from embedsmith.model.loading.dense import Dense, load_dense
from embedsmith.model.loading.devices import choose_dtype
from embedsmith.model.loading.exported_prompts import has_prompts, take_out_prompts
from embedsmith.model.loading.graph_files import find_graph
from embedsmith.model.loading.minicpm import OTHER_VARIANT
from embedsmith.model.loading.quantization import loading_options, use_differentiable_products
from embedsmith.model.loading.sentence_files import MODULES_FILE, find_modules, is_encoder
from embedsmith.model.loading.shipped import find_shipped
from embedsmith.model.loading.sources import is_converted, with_source
from embedsmith.model.loading.tokenizer_files import check_token_ids, load_tokenizer
from embedsmith.model.loading.weight_files import AGAIN, check_weight_files
from embedsmith.model.loading.weights import check_weights
from embedsmith.settings.choices import Precision, Quantization
from embedsmith.support.allocator import give_back_freed_memory
from embedsmith.support.errors import EmbedsmithError, ModelError

ADAPTER_FILE = "adapter_config.json"
_TOKENIZER_AGAIN = "Get tokenizer.json and tokenizer_config.json again, as the model was published with them."


@dataclass(frozen=True)
class Backbone:
    """A frozen decoder.

    Attributes:
        name: what the user called it: built-in name, hub id or folder.
        model: the transformer stack; its last hidden state is after the final norm.
        tokenizer: as the model's own folder defines it.
        dense: layers behind the pooling, which some published embedding models have.
    """

    name: str
    model: PreTrainedModel
    tokenizer: Any
    dense: tuple[Dense, ...] = ()


def find_model(model: str) -> str:
    """The folder of a model that comes with this package, or inside a run of all weights; anything else as it is.

    Raises:
        ModelError: MODEL is empty, which as a path would be the folder at work, or a file that is no GGUF,
            which transformers would open whatever it holds.
    """
    if not model.strip():
        raise ModelError("No model is named: the name is empty.\nName a built-in model, a hub id or a folder.")
    if shipped := find_shipped(model):
        return str(shipped)
    if Path(model).is_file() and not is_converted(model):
        raise ModelError(f"'{model}' is a file.\nName the folder that holds it, with config.json and the tokenizer.")
    inner = Path(model) / "model"
    return str(inner) if (inner / SETTINGS_FILE).exists() else model


def find_adapter(model: str) -> Path | None:
    """The adapter's folder, if MODEL is a finished run's folder, or a folder or hub id of an adapter in peft's format.

    Raises:
        ModelError: the folder is a run without an adapter, a model and an adapter at once, or neither.
    """
    folder = Path(model)
    if not folder.is_dir():
        return None if is_converted(model) else _find_hub_adapter(model)
    if (folder / ADAPTER_FILE).exists():
        if any(folder.glob("model*.safetensors")):
            raise ModelError(
                f"The folder {folder} holds a model (model*.safetensors) and an adapter ({ADAPTER_FILE}).\n"
                "Move one of them to a folder of its own."
            )
        return folder
    if (folder / "config.json").exists() or (folder / MODULES_FILE).exists():
        return None
    for candidate in (folder / "adapter", folder):
        if (candidate / SETTINGS_FILE).exists() or (candidate / ADAPTER_FILE).exists():
            return candidate
    if (folder / "run.yaml").exists():
        raise ModelError(
            f"The run {folder} holds no adapter yet: it was stopped before its first evaluation.\n"
            f"Go on with it: embedsmith train --resume {folder}"
        )
    raise ModelError(
        f"The folder {folder} holds neither a model (config.json) nor an adapter ({ADAPTER_FILE}) nor a run "
        "(adapter/).\nName a folder that holds one of them."
    )


def weights_folder(model: str) -> Path:
    """Where MODEL's own weights lie: its adapter, the model inside a run that trained all weights, or MODEL itself.

    Raises:
        ModelError: as `find_adapter`.
    """
    inner = find_model(model)
    return find_adapter(inner) or Path(inner)


def _find_hub_adapter(model: str) -> Path | None:
    if not (found := find_file(model, ADAPTER_FILE)):
        return None
    for name in ("adapter_model.safetensors", SETTINGS_FILE):
        find_file(model, name)  # fetched into the same folder
    return found.parent


def load_backbone(
    model: str,
    *,
    precision: Precision = Precision.AUTO,
    device: torch.device,
    quantization: Quantization = Quantization.NONE,
    sharded: bool = False,
) -> Backbone:
    """Load a decoder for packed texts.

    Args:
        model: see above.
        precision, device, quantization: of its weights.
        sharded: hold it together with the other processes; see `sharded.py`.

    Raises:
        ModelError: there is no such model, its weights are not safetensors, or it is no decoder that takes packed
            attention.
        MissingExtraError: its tokenizer or its quantisation needs a package that is not installed.
    """
    load = partial(_load, model, precision=precision, device=device, quantization=quantization, sharded=sharded)
    return with_source(model, load)


def load_model_tokenizer(model: str) -> Any:
    """The tokenizer alone of a model: built-in name, hub id or folder with config.json.

    Raises:
        ModelError: there is no such model, or it has no usable tokenizer.
        MissingExtraError: its tokenizer needs a package that is not installed.
    """
    return with_source(model, lambda source: _load_tokenizer(model, source, load_config(model, source)[0]))


def _load(
    model: str,
    source: str,
    *,
    precision: Precision,
    device: torch.device,
    quantization: Quantization,
    sharded: bool,
) -> Backbone:
    if is_encoder(source):
        raise ModelError(
            f"{_no_decoder(model, 'an encoder of sentence-transformers')}"
            "Train an encoder with sentence-transformers' own trainer. Here it can be evaluated, be the mark to beat "
            f"(embedsmith compare {shlex.quote(model)} RUN) and a teacher (--teacher.teacher)."
        )
    if find_graph(source):
        raise ModelError(
            f"{_no_decoder(model, 'a graph without weights')}A graph is there to be run: evaluate, encode and compare "
            "take it. Give the model that it was exported from."
        )
    config, is_mapped = load_config(model, source)
    _check_decoder(model, config)
    dtype = choose_dtype(precision, device)
    options = loading_options(quantization, dtype=dtype, device=device)
    check_weight_files(source, config=config)
    if sharded:
        from embedsmith.model.loading.sharded import load_shares  # brings torch's FSDP, which takes its time

        network, report = load_shares(model, source, config, dtype=dtype, device=device)
    else:
        network, report = _load_network(model, source, config, dtype=dtype, **options)
    check_weights(network, report=report, source=source, model=model, advice=OTHER_VARIANT if is_mapped else "")
    tokenizer = _load_tokenizer(model, source, config)
    check_token_ids(tokenizer, num_rows=network.get_input_embeddings().num_embeddings, model=model)
    network.requires_grad_(False)
    network.train(mode=False)
    use_differentiable_products(network)
    if not (options or sharded):  # those are there already, and a quantised one cannot be moved
        network = network.to(device)
    if device.type == "cuda":
        give_back_freed_memory()
    return Backbone(name=model, model=network, tokenizer=tokenizer, dense=load_dense(find_modules(model)))


def _load_network(model: str, source: str, config: Any, *, dtype: torch.dtype, **options: Any) -> tuple[Any, Any]:
    """The network, and what transformers reports of its weights."""
    try:
        return AutoModel.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            attn_implementation=PACKED_ATTENTION,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # named later, in one line
            # A named commit: from "main", pickled weights would make transformers ask the hub's robot for a conversion.
            revision=getattr(config, "_commit_hash", None) or "main",
            **options,
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # damaged files make the libraries raise errors of every kind
        advice = conversion_advice(source) if _has_only_pickles(source, error) else AGAIN
        raise ModelError(f"The model '{model}' cannot be loaded: {reason_of(error)}\n{advice}") from error


def _load_tokenizer(model: str, source: str, config: Any) -> Any:
    try:
        tokenizer = load_tokenizer(source, config=config)
        # An export of ours: its prompts are put where its settings say.
        if has_prompts(tokenizer.backend_tokenizer) and find_file(source, SETTINGS_FILE):
            take_out_prompts(tokenizer.backend_tokenizer)
        return tokenizer
    except EmbedsmithError:
        raise
    except Exception as error:  # of every kind: tokenizers raises the bare class
        raise ModelError(
            f"The tokenizer of '{model}' cannot be loaded: {reason_of(error)}\n{_TOKENIZER_AGAIN}"
        ) from error


def _check_decoder(model: str, config: Any) -> None:
    kind = config.model_type
    if not is_decoder(config):
        raise ModelError(
            f"{_no_decoder(model, f'model_type {kind}')}"
            "An encoder can be a mark to beat or a teacher where it is a sentence-transformers model (modules.json)."
        )
    network = AutoModel._model_mapping[type(config)]
    if not network.is_backend_compatible():
        raise ModelError(
            f"'{model}' (model_type {kind}) does not take its attention from transformers' attention interface, so "
            "packed texts would see each other."
        )


def _no_decoder(model: str, kind: str) -> str:
    return (
        f"'{model}' ({kind}) is not a decoder language model.\n"
        f"Training, export, baseline and doctor are for decoders: {', '.join(BUILTIN)}, or any Llama, Qwen, Gemma, "
        "Phi, Mistral, SmolLM2, MiniCPM ...\n"
    )


def _has_only_pickles(source: str, error: Exception) -> bool:
    """Whether weights were missed as safetensors; a hub repository is not searched, transformers' words suffice."""
    if Path(source).is_dir():
        has_safetensors = any(Path(source).glob("*.safetensors"))
        return not has_safetensors and any(Path(source).glob("pytorch_model*.bin"))
    return isinstance(error, OSError) and "model.safetensors" in str(error)
