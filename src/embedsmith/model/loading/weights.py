"""Are these the weights that an architecture takes, all of them and no others, and are they numbers?

Each fault names its tensors. transformers alone would start what is missing at random, leave out what has no place, and
turn whole numbers into real ones. Cost: one pass over the weights, 40 ms for 135 million in float32.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from embedsmith.model.loading.architecture import build_skeleton, head_names
from embedsmith.model.loading.checkpoint_files import tensor_kinds
from embedsmith.model.loading.weight_files import AGAIN
from embedsmith.support.errors import ModelError

_REAL_KINDS = ("F64", "F32", "F16", "BF16")
_REAL_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_weights(
    network: PreTrainedModel, *, report: Mapping[str, Any], source: str, model: str, advice: str = ""
) -> None:
    """Check what was just loaded.

    Args:
        network: with its weights.
        report: what transformers says of loading them.
        source: the folder or hub id that they come from.
        model: as the user calls it.
        advice: on tensors without a place; has a default.

    Raises:
        ModelError: a tensor is missing, has another shape, has no place (heads and rotary tables aside), holds no real
            numbers, or holds NaN or infinity.
    """
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"The weights of '{model}' are incomplete: {name_some(missing)} are missing.\n{AGAIN}")
    if report["mismatched_keys"]:
        name, found, expected = min(report["mismatched_keys"])
        raise ModelError(
            f"The weights of '{model}' do not fit its config.json: {name} is {tuple(found)}, not {tuple(expected)}.\n"
            f"{AGAIN}"
        )
    if left := _without_place(network, report["unexpected_keys"]):
        raise ModelError(
            f"'{model}' has weights for which its architecture (model_type {network.config.model_type}) has no place: "
            f"{name_some(left)}.\n"
            + (advice or f"Its config.json does not belong to these weights, or says less than they need. {AGAIN}")
        )
    if not getattr(network.config, "quantization_config", None):
        _check_kinds(network, source=source, model=model)
    check_finite(held_parameters(network), owner=f"The weights of '{model}'", advice=AGAIN)


def held_parameters(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What this process holds of a network's parameters, by name: all of it, or its rows of what processes share."""
    return {name: one.to_local() if isinstance(one, DTensor) else one.data for name, one in network.named_parameters()}


def check_finite(tensors: Mapping[str, torch.Tensor], *, owner: str, advice: str) -> None:
    """Raise ModelError naming the tensors that hold NaN or infinity."""
    damaged = []
    for name, tensor in tensors.items():
        if tensor.dtype not in _REAL_DTYPES or not tensor.numel():
            continue
        if not torch.stack(tensor.aminmax()).isfinite().all():  # 25 times faster than isfinite of all
            count = int((~tensor.isfinite()).sum())
            damaged.append(f"{name} ({count} of {tensor.numel()} values)")
    if damaged:
        raise ModelError(f"{owner} are damaged: NaN or infinity in {name_some(damaged)}.\n{advice}")


def name_some(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _without_place(network: PreTrainedModel, unexpected: Iterable[str]) -> list[str]:
    keys = sorted(key for key in unexpected if not key.endswith("rotary_emb.inv_freq"))
    if not keys:
        return []
    skeleton = build_skeleton(network.config, with_head=True)
    # A file may have the head under an older name (GPT-NeoX's embed_out), which only the class with a head translates.
    renamings = [change for change in get_model_conversion_mapping(skeleton) if isinstance(change, WeightRenaming)]
    heads = head_names(skeleton)
    return [key for key in keys if rename_source_key(key, renamings, [])[0].split(".")[0] not in heads]


def _check_kinds(network: PreTrainedModel, *, source: str, model: str) -> None:
    own = dict(network.named_parameters())
    prefix = f"{network.base_model_prefix}."
    wrong = sorted(
        f"{name} ({kind})"
        for name, kind in tensor_kinds(source).items()
        if kind not in _REAL_KINDS and name.removeprefix(prefix) in own
    )
    if wrong:
        raise ModelError(
            f"The weights of '{model}' are not all real numbers: {name_some(wrong)}; its config.json has no "
            f"quantization_config that would explain them.\nTake the model in {', '.join(_REAL_KINDS)}."
        )
