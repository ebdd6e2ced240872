"""A backbone's output matrix, which it is loaded without: states -> logits over the vocabulary."""

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM

from embedsmith.model.loading.backbone import Backbone
from embedsmith.model.loading.sources import source_of
from embedsmith.model.loading.weights import check_finite, name_some
from embedsmith.support.errors import ModelError


@dataclass(frozen=True)
class Head:
    """The output matrix and what else makes logits.

    Attributes:
        weight: (V, H), frozen.
        bias: (V,) or None.
        scaling: logits are divided by it (Granite, MiniCPM).
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scaling: float = 1.0

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(n, H) -> (n, V) float32."""
        products = (states.to(self.weight.dtype) @ self.weight.T).float()
        return (products if self.bias is None else products + self.bias.float()) / self.scaling


def load_head(backbone: Backbone) -> Head:
    """The head of a model; where it shares the embedding's weights, no byte is read.

    Raises:
        ModelError: a head of its own cannot be read: the model is a run, or no plain folder or hub id.
    """
    config = backbone.model.config
    scaling = float(getattr(config, "logits_scaling", 1.0))
    if config.tie_word_embeddings:
        return Head(backbone.model.get_input_embeddings().weight.detach(), scaling=scaling)
    name = source_of(backbone.name)
    advice = "Choose a model whose folder holds it."
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=backbone.model.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"The output matrix of '{backbone.name}' cannot be read: {error}\n{advice}") from error
    if missing := sorted(report["missing_keys"]):  # transformers would start it at random
        raise ModelError(f"The weights of '{backbone.name}' hold no output matrix ({name_some(missing)}).\n{advice}")
    layer = model.get_output_embeddings()
    check_finite(dict(layer.named_parameters()), owner=f"The output matrix of '{backbone.name}'", advice=advice)
    bias = None if layer.bias is None else layer.bias.detach().to(backbone.model.device)
    return Head(layer.weight.detach().to(backbone.model.device), bias, scaling)
