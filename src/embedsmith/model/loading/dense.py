"""Dense layers behind the pooling, as a sentence-transformers model keeps them: pooled vectors -> embeddings.

They belong to the published model (EmbeddingGemma has two), stay frozen and are computed in float32: their cost is
nothing beside the body's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from embedsmith.model.loading.checkpoint_files import read_object
from embedsmith.model.loading.sentence_files import Modules
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, ModelError

# What `activation_function` may name, by the last part of its path; a class of any other package would be its code.
ACTIVATIONS: dict[str, type[torch.nn.Module]] = {
    kind.__name__: kind
    for kind in (torch.nn.Identity, torch.nn.Tanh, torch.nn.ReLU, torch.nn.GELU, torch.nn.SiLU, torch.nn.Sigmoid)
}
_UNUSUAL = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}


@dataclass(frozen=True)
class Dense:
    """x -> activation(x W^T + b).

    Attributes:
        weight: (out, in) float32.
        bias: (out,), or None.
        activation: name of one of `ACTIVATIONS`.
        is_normalized: whether what goes in is brought to unit length first.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    activation: str
    is_normalized: bool = False

    @property
    def in_features(self) -> int:
        """Width of what goes in."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """Width of what comes out."""
        return self.weight.shape[0]

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """(S, in) float32 -> (S, out)."""
        rows = torch.nn.functional.normalize(rows, dim=-1) if self.is_normalized else rows
        device = rows.device
        bias = None if self.bias is None else self.bias.to(device)
        activate: Callable[[torch.Tensor], torch.Tensor] = ACTIVATIONS[self.activation]()
        return activate(torch.nn.functional.linear(rows, self.weight.to(device), bias))


def load_dense(modules: Modules | None) -> tuple[Dense, ...]:
    """The Dense modules of a sentence-transformers model, in their order; none for another model.

    Raises:
        ModelError: they are damaged, do not fit each other, or have a part that is not computed here.
    """
    layers: list[Dense] = []
    is_normalized = False
    for index, kind in enumerate(modules.kinds if modules else ()):
        if kind == "Dense":
            assert modules is not None
            layer = _load(modules, index, is_normalized=is_normalized)
            if layers and layers[-1].out_features != layer.in_features:
                raise ModelError(
                    f"{modules.folders[index]} of '{modules.model}' takes vectors of {layer.in_features}, but "
                    f"those before it have {layers[-1].out_features}."
                )
            layers.append(layer)
        is_normalized = kind == "Normalize"
    return tuple(layers)


def _load(modules: Modules, index: int, *, is_normalized: bool) -> Dense:
    name = f"{modules.folders[index]} of '{modules.model}'"
    config_file, weights_file = (modules.find_file(index, name) for name in ("config.json", "model.safetensors"))
    if config_file is None or weights_file is None:
        raise ModelError(f"{name} lacks its config.json or model.safetensors.")
    config = read_object(config_file)
    try:
        activation = _activation_of(config, name=name)
        tensors = load_file(weights_file)
        weight, bias = tensors.pop("linear.weight"), tensors.pop("linear.bias", None)
        shape, has_bias = (int(config["out_features"]), int(config["in_features"])), bool(config.get("bias", True))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, SafetensorError) as error:
        raise ModelError(f"{name} is damaged: {error!r}") from error
    if tensors:
        raise ModelError(f"{name} holds {', '.join(sorted(tensors))}, which embedsmith does not compute.")
    if tuple(weight.shape) != shape or (bias is not None) != has_bias:
        raise ModelError(f"{name} is damaged: its weights are {tuple(weight.shape)}, its config.json says {shape}.")
    return Dense(weight.float(), None if bias is None else bias.float(), activation, is_normalized)


def _activation_of(config: dict[str, Any], *, name: str) -> str:
    unusual = {key: config[key] for key, usual in _UNUSUAL.items() if config.get(key) not in (None, usual)}
    if config.get("use_residual"):
        unusual["use_residual"] = True
    package, _, kind = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")
    if not package.startswith("torch.nn") or kind not in ACTIVATIONS:
        unusual["activation_function"] = config["activation_function"]
    if unusual:
        said = ", ".join(f"{key} {value}" for key, value in unusual.items())
        raise ModelError(f"{name} has {said}, which embedsmith does not compute.")
    return kind


def check_dense(layers: Sequence[Dense], *, width: int) -> None:
    """Raise ConfigError where the first of the layers does not take pooled vectors of this width."""
    if layers and layers[0].in_features != width:
        raise ConfigError(
            f"The model's dense layers take vectors of {layers[0].in_features}, but its pooling gives {width}.\n"
            "Leave the pooling as the model has it."
        )


def save_dense(layer: Dense, folder: Path) -> None:
    """Write a layer as sentence-transformers reads it."""
    folder.mkdir()
    kind = ACTIVATIONS[layer.activation]
    files.write_json(
        folder / "config.json",
        {
            "in_features": layer.in_features,
            "out_features": layer.out_features,
            "bias": layer.bias is not None,
            "activation_function": f"{kind.__module__}.{kind.__qualname__}",
        },
    )
    tensors = {"linear.weight": layer.weight.contiguous()}
    if layer.bias is not None:
        tensors["linear.bias"] = layer.bias
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
