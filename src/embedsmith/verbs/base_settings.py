"""A recipe on a published embedding model -> the same with what its files say, where the recipe says nothing.

So an adapter on top embeds as the model did: its pooling, prompts, length, end token and attention are kept.
"""

import logging
from typing import Any

from embedsmith.model.loading.backbone import load_model_tokenizer
from embedsmith.model.loading.configuration import load_config, sees_both_ways
from embedsmith.model.loading.embedding_files import describe_published
from embedsmith.model.loading.settings import Described
from embedsmith.model.tokens import closing_token
from embedsmith.settings.config import RunConfig
from embedsmith.settings.prompts import TEXT_FIELD

log = logging.getLogger(__name__)

_NAMES = ("pooling", "prompt", "query_prompt", "end_token", "bidirectional_layers", "max_length")


def with_base_settings(config: RunConfig) -> RunConfig:
    """The recipe with its `model` section filled in; what it says itself stays, and is named where the files differ.

    Raises:
        ModelError: the files are damaged, or ask for something that is not computed here.
    """
    section = config.model
    described = describe_published(section.model)
    if described is None:
        return config
    base = _settled(described, section.model)
    taken, kept = {}, []
    for name in _NAMES:
        own = getattr(section, name)
        if name not in section.model_fields_set:
            taken[name] = base[name]
        elif own != base[name]:
            kept.append(f"{name} {_shown(own)} instead of {_shown(base[name])}")
            if own is None:
                taken[name] = TEXT_FIELD if name.endswith("prompt") else None
    if kept:
        log.warning("The recipe departs from what '%s' says of itself: %s.", section.model, "; ".join(kept))
    return config.model_copy(update={"model": section.model_copy(update=taken)})


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return repr(value) if isinstance(value, str) and TEXT_FIELD in value else str(value)


def _settled(described: Described, model: str) -> dict[str, Any]:
    """The files' settings, with what they leave to the tokenizer and the configuration looked up there."""
    values = {name: getattr(described.settings, name) for name in _NAMES}
    if values["end_token"] is None:
        values["end_token"] = closing_token(load_model_tokenizer(model)) is not None
    if values["bidirectional_layers"] is None:
        values["bidirectional_layers"] = "all" if sees_both_ways(load_config(model, model)[0]) else 0
    return values
