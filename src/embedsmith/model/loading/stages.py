"""A model, or a finished run with its adapter taken into the weights, so that another stage can build on it.

The sum is formed in float32 and cast once. A run may itself build on a run.
"""

import shlex
from dataclasses import replace
from pathlib import Path

import torch

from embedsmith.model.loading.adapter import load_adapter
from embedsmith.model.loading.backbone import Backbone, find_adapter, find_model, load_backbone
from embedsmith.model.loading.devices import choose_dtype
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.settings.choices import Precision, Quantization
from embedsmith.support.errors import ConfigError, ModelError


def load_base(
    model: str,
    *,
    precision: Precision,
    device: torch.device,
    quantization: Quantization = Quantization.NONE,
    sharded: bool = False,
    above: tuple[Path, ...] = (),
) -> Backbone:
    """Load MODEL as something to put an adapter on.

    Args:
        model, precision, device, quantization, sharded: as `load_backbone`.
        above: folders of the adapters that stand on this base.

    Raises:
        ModelError: as `load_backbone` and `load_adapter`; or an adapter is a base of its own.
        ConfigError: a run is to be quantised, which its adapter would have to survive, or to be shared among processes.
    """
    model = find_model(model)
    folder = find_adapter(model)
    if folder is None:
        return load_backbone(model, precision=precision, device=device, quantization=quantization, sharded=sharded)
    if quantization is not Quantization.NONE:
        raise ConfigError(
            f"model.quantization is {quantization}, but '{model}' is a run, whose adapter would have to be merged "
            "first.\n"
            "Export it as a merged model and train on that, or leave model.quantization at none."
        )
    if sharded:
        raise ConfigError(
            f"model.sharded is true, but '{model}' is a run, whose adapter would have to be merged first, and no "
            "process holds the whole base to do it.\n"
            f"Export it as a merged model where it fits (embedsmith export {shlex.quote(model)} --to merged) and train "
            "on that."
        )
    if folder.resolve() in above:
        raise ModelError(f"The adapter {folder} is named as a base of its own.\nName its base: --base-model MODEL.")
    inner = EmbeddingSettings.read(folder).base_model
    base = load_base(inner, precision=Precision.FP32, device=device, above=(*above, folder.resolve()))
    merge_adapter(base, folder=folder)
    _cast_parameters(base.model, choose_dtype(precision, device))
    return replace(base, name=model)


def _cast_parameters(network: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast weights, and no buffers: rotary frequencies are float32 in a model loaded in any format, too."""
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)


def merge_adapter(backbone: Backbone, *, folder: Path) -> None:
    """Add a saved adapter to the weights of a backbone in float32; nothing of peft's stays on it.

    Raises:
        ModelError: the adapter does not fit.
    """
    assert backbone.model.dtype is torch.float32, "bfloat16 would lose small updates"
    merged = load_adapter(backbone, folder=folder).merge_and_unload()
    assert merged is backbone.model
    merged.requires_grad_(False)
