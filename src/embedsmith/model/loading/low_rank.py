"""Updates of frozen weights as products of two thin matrices: their exact mean, and the nearest one of a lower rank.

    adapters -> {layer: b a} -> mean: b's side by side, a's below each other -> nearest of rank r -> one adapter

A mean of A and of B apart would be another update: it also holds the products of one's A with another's B. Everything
is float64, and no matrix as large as a weight is formed. Cost of a layer: (in + out) r^2 with r the sum of ranks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from transformers.pytorch_utils import Conv1D

from embedsmith.model.loading.backbone import Backbone
from embedsmith.model.loading.plain_lora import PEFT_PREFIX, PlainLora, short_names

_ADAPTER = "default"  # what peft calls an adapter that nobody named


@dataclass(frozen=True)
class LowRank:
    """An update of one layer's weight, b @ a; a LoRA's scale is in b.

    Attributes:
        a: (r, in), float64.
        b: (out, r), float64.
    """

    a: torch.Tensor
    b: torch.Tensor

    @property
    def rank(self) -> int:
        """r."""
        return self.a.shape[0]


Updates = Mapping[str, LowRank]
"""Layers by the backbone's names; a layer that is not there is not changed."""


@dataclass(frozen=True)
class Reduced:
    """An update of a lower rank.

    Attributes:
        update: the nearest one to the whole (Eckart and Young 1936).
        kept: share of the whole's squared norm that it has, 0 to 1; of an update of nothing 1.
    """

    update: LowRank
    kept: float


def read_updates(backbone: Backbone) -> dict[str, LowRank]:
    """What the adapter on a backbone adds to the layers' weights."""
    layers = ((name, module) for name, module in backbone.model.named_modules() if isinstance(module, LoraLayer))
    return {
        name: LowRank(
            a=layer.lora_A[_ADAPTER].weight.detach().double(),
            b=layer.scaling[_ADAPTER] * layer.lora_B[_ADAPTER].weight.detach().double(),
        )
        for name, layer in layers
    }


def mean_updates(all_updates: Sequence[Updates], *, weights: Sequence[float]) -> dict[str, LowRank]:
    """The weighted sum of updates, exact; one that does not change a layer adds nothing there.

    The rank of a layer is the sum of ranks; beyond the layer's width it is brought down to that, which loses nothing.

    Args:
        all_updates: one for each model.
        weights: of the models; for a mean they add up to 1.
    """
    mean = {}
    for layer in sorted({layer for updates in all_updates for layer in updates}):
        parts = [
            (updates[layer], weight) for updates, weight in zip(all_updates, weights, strict=True) if layer in updates
        ]
        a = torch.cat([part.a for part, _ in parts])
        b = torch.cat([weight * part.b for part, weight in parts], dim=1)
        mean[layer] = reduce_rank(LowRank(a, b), rank=min(len(b), a.shape[1])).update
    return mean


def reduce_rank(update: LowRank, *, rank: int) -> Reduced:
    """The nearest update of at most this rank, by a singular value decomposition of r x r."""
    if update.rank <= rank:
        return Reduced(update, 1.0)
    left, left_rest = torch.linalg.qr(update.b)
    right, right_rest = torch.linalg.qr(update.a.T)
    u, values, v = torch.linalg.svd(left_rest @ right_rest.T)
    squares = values.square()
    whole = float(squares.sum())
    root = values[:rank].sqrt()  # half of the size in either factor, which few-bit formats like best
    reduced = LowRank(a=root[:, None] * (v[:rank] @ right.T), b=(left @ u[:, :rank]) * root)
    return Reduced(reduced, float(squares[:rank].sum()) / whole if whole else 1.0)


def make_plain(updates: Updates, *, backbone: Backbone) -> PlainLora:
    """The adapter that adds these updates: float32, alpha equal to the rank, no dropout."""
    ranks = {layer: update.rank for layer, update in updates.items()}
    counts = Counter(ranks.values())
    usual = max(counts, key=lambda rank: (counts[rank], rank))
    others = {layer: rank for layer, rank in ranks.items() if rank != usual}
    config = LoraConfig(
        task_type="FEATURE_EXTRACTION",
        r=usual,
        lora_alpha=usual,
        lora_dropout=0.0,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in backbone.model.modules()),
        target_modules=short_names(updates, backbone=backbone),
        rank_pattern=others,
        alpha_pattern=others,
    )
    weights = {
        f"{PEFT_PREFIX}{layer}.lora_{name}.weight": factor.float().contiguous()
        for layer, update in updates.items()
        for name, factor in (("A", update.a), ("B", update.b))
    }
    return PlainLora(config, weights)
