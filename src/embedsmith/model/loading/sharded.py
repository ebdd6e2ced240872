"""A base that several processes hold together: each has its rows of every weight, and a layer is whole while it runs.

    files of weights -> this process's rows of each tensor     no process ever holds the whole base
    forward, backward: gather a layer from all, run it, let go of what is the others'

That is fully sharded data parallelism (FSDP2, `torch.distributed.fsdp.fully_shard`) of a frozen base: weights are
gathered twice a step, and no gradient of theirs is sent. What is added later, an adapter, is whole in every process.
Every process must run the same number of forwards and backwards, whatever texts it has. Memory of R processes: 1/R of
the base each, and one or two layers, or the embedding, beside it.

Reference: Zhao et al. 2023, PyTorch FSDP (arXiv 2304.11277).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from embedsmith.model.layers.attention import PACKED_ATTENTION
from embedsmith.model.loading.checkpoint_files import tensor_files
from embedsmith.model.loading.weight_files import AGAIN
from embedsmith.support.errors import ModelError


def load_shares(
    model: str, source: str, config: PreTrainedConfig, *, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """This process's share of a frozen network, and what of its weights was missing or left, as transformers reports.

    Args:
        model: as the user calls it.
        source: the folder or hub id that its weights come from.
        config: its configuration.
        dtype: of its weights.
        device: of this process.

    Raises:
        ModelError: there are no safetensors files, or a file is damaged, or holds tensors that would have to be joined
            or cut to fit the architecture.
    """
    paths = tensor_files(source)
    if not paths:
        raise ModelError(
            f"'{model}' has no safetensors files, so processes cannot share it.\n"
            "Leave model.sharded at false, or give a model that has them."
        )
    with init_empty_weights(include_buffers=False):  # buffers are computed, not read
        network = AutoModel.from_config(
            config, attn_implementation=PACKED_ATTENTION, dtype=dtype, trust_remote_code=False
        )
    network.requires_grad_(False)
    share_out(network, device=device)
    places = dict(network.named_parameters())
    missing, left, misfits = set(places), [], []
    with torch.no_grad():
        for name, tensor in _read(paths, network=network, model=model, names=set(places)):
            if (place := places.get(name)) is None:
                left.append(name)
                continue
            missing.discard(name)
            if tuple(tensor.get_shape()) != tuple(place.shape):
                misfits.append((name, tuple(tensor.get_shape()), tuple(place.shape)))
                continue
            _fill(place, tensor)
    return network, {"missing_keys": missing, "unexpected_keys": left, "mismatched_keys": misfits}


def share_out(network: PreTrainedModel, *, device: torch.device) -> None:
    """Let the processes hold a network together, layer by layer, and the embedding apart; its weights are still unset.

    Buffers, such as rotary frequencies, are whole in every process.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in [*_layers_of(network), network.get_input_embeddings(), network]:
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    network._apply(lambda one: torch.empty_like(one, device=device) if one.is_meta else one.to(device))


def _layers_of(network: PreTrainedModel) -> torch.nn.ModuleList:
    number = network.config.num_hidden_layers
    lists = (module for module in network.modules() if isinstance(module, torch.nn.ModuleList))
    return next(layers for layers in lists if len(layers) == number)


def _read(paths: list[Path], *, network: PreTrainedModel, model: str, names: set[str]) -> Iterator[tuple[str, Any]]:
    """Every tensor of the files by the network's name for it; no value is read yet."""
    changes = get_model_conversion_mapping(network)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if not isinstance(change, WeightRenaming)]
    known = dict.fromkeys(names, True)
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118
                    name, converter = rename_source_key(key, renamings, converters, network.base_model_prefix, known)
                    if converter:
                        raise ModelError(
                            f"'{model}' keeps {key} in another form than its architecture has it, so its rows cannot "
                            "be shared as they are read.\nLeave model.sharded at false, or save the model with "
                            "transformers' save_pretrained first."
                        )
                    yield name, file.get_slice(key)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} is damaged or cannot be read: {error}\n{AGAIN}") from error


def _fill(place: torch.Tensor, tensor: Any) -> None:
    """Read a process's own rows of a tensor into their place."""
    assert isinstance(place, DTensor)
    own, mesh = place.to_local(), place.device_mesh
    first = -(-len(place) // mesh.size()) * mesh.get_local_rank()  # cut as torch.chunk does
    if own.numel():
        own.copy_(tensor[first : first + len(own)])
