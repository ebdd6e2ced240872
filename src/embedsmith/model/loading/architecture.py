"""A configuration -> its architecture without weights: the names that a class gives to its parts.

A checkpoint or an adapter may come from the class with the LM head, whose names have a part more than the backbone's,
and may hold weights of that head, or of one for another task. Built on torch's meta device, in some 20 milliseconds.
"""

import copy
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

# What classes for other tasks than language modelling call their heads.
_TASK_HEADS = {"score", "classifier"}


def build_skeleton(config: PreTrainedConfig, *, with_head: bool) -> PreTrainedModel:
    """The class with the LM head, or the backbone's, without weights."""
    make: Any = AutoModelForCausalLM if with_head else AutoModel
    with torch.device("meta"):
        return make.from_config(copy.deepcopy(config), attn_implementation="eager", trust_remote_code=False)


def head_names(skeleton: PreTrainedModel) -> set[str]:
    """What a class, or one for another task, has beside its backbone; no hidden state depends on it."""
    if not hasattr(skeleton, skeleton.base_model_prefix):
        return _TASK_HEADS
    return {name for name, _ in skeleton.named_children()} - {skeleton.base_model_prefix} | _TASK_HEADS
