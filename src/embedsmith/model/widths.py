"""Embeddings -> shorter embeddings: the first dimensions, made unit length again."""

import torch
from torch.nn.functional import normalize

from embedsmith.support.errors import ConfigError


def shorten(embeddings: torch.Tensor, *, dim: int) -> torch.Tensor:
    """The first `dim` of D dimensions, unit length; (K, D) -> (K, dim). The full width comes back as it is.

    Raises:
        ConfigError: `dim` is not in 1 ... D.

    Reference: Kusupati et al. 2022, Matryoshka Representation Learning (arXiv 2205.13147).
    """
    width = embeddings.shape[-1]
    check_dim(dim, width=width)
    return embeddings if dim == width else normalize(embeddings[..., :dim], dim=-1)


def check_dim(dim: int, *, width: int) -> None:
    """Raise ConfigError when embeddings of `width` dimensions cannot be cut to `dim`."""
    if not 1 <= dim <= width:
        raise ConfigError(f"dim is {dim}, but the model's embeddings have {width} dimensions.\nChoose 1 to {width}.")
