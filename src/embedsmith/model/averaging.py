"""What was trained of several models on one base -> its mean, as a model again.

    folders of adapters -> updates of the weights -> their mean, an adapter of the sum of ranks
    folders of models   -> their weights          -> the mean of each

The mean is that of the weights with every adapter taken into them (model soups, Wortsman et al. 2022, arXiv
2203.05482; of a run's late states: LAWA, Kaddour 2022, arXiv 2209.14981). Cost: reading what is averaged, once.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.adapter import load_adapter
from embedsmith.model.loading.low_rank import LowRank, make_plain, mean_updates, read_updates
from embedsmith.model.trained import read_weights
from embedsmith.support.errors import ModelError


def take_mean(embedder: Embedder, folders: Sequence[Path]) -> None:
    """Set what is trained of an embedder to the mean of what `Embedder.save` wrote of it into folders.

    Raises:
        ModelError: a folder is damaged or of another model.
    """
    weights = [1 / len(folders)] * len(folders)
    if embedder.adapter is None:
        embedder.trained.set_state(mean_weights(folders, weights=weights))
    else:
        updates = mean_adapter(embedder, folders, weights=weights)
        embedder.replace_adapter(make_plain(updates, backbone=embedder.backbone))


def mean_adapter(embedder: Embedder, folders: Sequence[Path], *, weights: Sequence[float]) -> dict[str, LowRank]:
    """The weighted sum of saved adapters, as updates by layer; the embedder's own adapter is taken off.

    Raises:
        ModelError: an adapter is damaged, more than a plain LoRA, or does not fit the embedder's base.
    """
    embedder.remove_adapter()
    found = []
    for folder in folders:
        adapter = load_adapter(embedder.backbone, folder=folder)
        found.append(read_updates(embedder.backbone))
        adapter.unload()
    return mean_updates(found, weights=weights)


def mean_weights(folders: Sequence[Path], *, weights: Sequence[float]) -> dict[str, torch.Tensor]:
    """The weighted sum of saved models' weights, float32; two models are in memory at one time.

    Raises:
        ModelError: they have not the same weights by name and shape.
    """
    first, *others = folders
    mean = {name: weights[0] * tensor for name, tensor in read_weights(first).items()}
    for folder, weight in zip(others, weights[1:], strict=True):
        state = read_weights(folder)
        different = sorted(mean.keys() ^ state.keys())
        different += [name for name in mean.keys() & state.keys() if mean[name].shape != state[name].shape]
        if different:
            raise ModelError(f"{folder} and {first} are models of different shape: {different[0]}.")
        for name, tensor in state.items():
            mean[name] += weight * tensor
    return mean
