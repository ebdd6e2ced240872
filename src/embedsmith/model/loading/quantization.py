"""A frozen base in 8 or 4 bits, for models that would not fit otherwise (QLoRA); needs bitsandbytes.

Fused blocks do not run on such layers: each product first gives the weights back their width, which costs time.

Reference: for 4 bits Dettmers et al. 2023, QLoRA (arXiv 2305.14314): NF4 and double quantisation; for 8 Dettmers et al.
2022, LLM.int8() (arXiv 2208.07339), of which only the weights are stored in 8 bits here.
"""

from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from embedsmith.settings.choices import Quantization
from embedsmith.support.errors import ConfigError, MissingExtraError


def loading_options(quantization: Quantization, *, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` needs for it; nothing for a base that stays whole.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        ConfigError: 8 bits on a GPU.
    """
    if quantization is Quantization.NONE:
        return {}
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", extra="quantization", needed_for=f"model.quantization: {quantization}")
    if quantization is Quantization.EIGHT_BIT:
        if device.type == "cuda":
            raise ConfigError(
                "model.quantization is 8bit, whose products on a GPU round the inputs too and look for outliers in the "
                "whole batch, so that a text's vector would depend on the others.\nTake 4bit or none, or device cpu."
            )
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return {"quantization_config": config, "device_map": {"": device}}


def use_differentiable_products(model: torch.nn.Module) -> None:
    """Leave quantised layers in training mode for good: they have no dropout, and one way to compute.

    In evaluation mode bitsandbytes takes other products on a CPU: those of 4 bits have no gradient, those of 8 bits
    round the inputs too, and look for outliers in the whole batch, so that a text's vector would depend on the others.
    """
    for module in model.modules():
        if type(module).__module__.startswith("bitsandbytes."):
            module.train()
