"""A sentence-transformers model with a decoder as its body -> how it embeds, and which of its files says what.

Queries and documents are embedded as that package's `encode_query` and `encode_document` do, at unit length.
"""

import math
from collections.abc import Mapping
from typing import Any

from embedsmith.model.loading.checkpoint_files import find_file, read_object
from embedsmith.model.loading.configuration import load_config
from embedsmith.model.loading.sentence_files import Modules
from embedsmith.model.loading.settings import Described, EmbeddingSettings
from embedsmith.settings.choices import Pooling
from embedsmith.settings.prompts import INSTRUCTION_FIELD, TEXT_FIELD
from embedsmith.support.errors import ModelError

_PROMPTS_FILE = "config_sentence_transformers.json"
_BODY_FILE = "sentence_bert_config.json"
_POOLINGS = {"lasttoken": Pooling.LAST, "mean": Pooling.MEAN, "weightedmean": Pooling.WEIGHTED_MEAN}
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_sentence_settings(modules: Modules) -> Described:
    """What a decoder's modules say; raises ModelError for what embedsmith does not compute."""
    model, kinds = modules.model, modules.kinds
    if modules.folders[0]:
        raise ModelError(
            f"'{model}' keeps its Transformer in the folder {modules.folders[0]}, where embedsmith does not look.\n"
            "Save the model anew with sentence-transformers, which writes it into the model's own folder."
        )
    if kinds[1:2] != ("Pooling",) or "Pooling" in kinds[2:] or "Transformer" in kinds[1:]:
        raise ModelError(f"'{model}' is made of {', '.join(kinds)}; embedsmith computes a Transformer, then a Pooling.")
    origins = {"end_token": "its tokenizer", "bidirectional_layers": "config.json"}
    pooling_file = f"{modules.folders[1]}/config.json"
    pooling, includes_prompt = _read_pooling(model, _read(modules, 1, "config.json"), name=pooling_file)
    origins["pooling"] = origins["pool_over"] = pooling_file
    max_length, origins["max_length"] = _read_length(modules)
    prompts = _read_prompts(model, _read(modules, None, _PROMPTS_FILE))
    document = next((name for name in ("document", "passage", "corpus") if prompts.get(name)), None)
    origins |= dict.fromkeys(("prompt", "query_prompt", "prompts"), _PROMPTS_FILE)
    settings = EmbeddingSettings(
        base_model=model,
        pooling=pooling,
        pool_over="all" if includes_prompt else "behind_prompt",
        prompt=prompts[document] if document else None,
        # Without one, queries are embedded bare, whatever stands before documents.
        query_prompt=prompts.get("query") or (TEXT_FIELD if document else None),
        prompts=prompts,
        prompt_tokens="joined",
        end_token=None,
        max_length=max_length,
        bidirectional_layers=None,
    )
    return Described(settings, origins)


def _read_pooling(model: str, config: Mapping[str, Any], *, name: str) -> tuple[Pooling, bool]:
    modes = config.get("pooling_mode") or [mode for key, mode in _OLD_POOLINGS.items() if config.get(key)] or "mean"
    modes = modes if isinstance(modes, list) else [modes]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in _POOLINGS:
        raise ModelError(
            f"'{model}' pools by {' and '.join(map(str, modes))} ({name}); embedsmith computes {', '.join(_POOLINGS)}."
        )
    return _POOLINGS[modes[0]], bool(config.get("include_prompt", True))


def _read_length(modules: Modules) -> tuple[int, str]:
    """Most tokens per text, as sentence-transformers finds it, and where."""
    body = _read(modules, 0, _BODY_FILE)
    if body.get("do_lower_case"):
        raise ModelError(
            f"'{modules.model}' has do_lower_case in {_BODY_FILE}, which embedsmith does not do.\n"
            "A tokenizer.json may say it itself, by its normalizer."
        )
    limit = None
    if modules.find_file(0, "config.json"):  # an adapter has none
        limit = getattr(load_config(modules.model, modules.model)[0], "max_position_embeddings", None)
    found = {_BODY_FILE: body.get("max_seq_length")}
    if found[_BODY_FILE] is None:
        found = {
            "tokenizer_config.json": _read(modules, 0, "tokenizer_config.json").get("model_max_length"),
            "config.json": limit,
        }
    if wrong := [name for name, length in found.items() if length and not _is_length(length)]:
        raise ModelError(
            f"{wrong[0]} of '{modules.model}' has a greatest length that is no number above 0: "
            f"{found[wrong[0]]!r:.60}.\n"
            "Get the file again."
        )
    known = {name: int(length) for name, length in found.items() if length}
    if not known:
        raise ModelError(f"Nothing in '{modules.model}' says how many tokens a text may have.\nGive max_length.")
    name = min(known, key=lambda name: known[name])
    return min(known[name], limit or known[name]), name


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and 1 <= value < math.inf


def _read_prompts(model: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Name -> template; names without a prompt are left out."""
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(value, str | None) for value in prompts.values()):
        raise ModelError(f"'{model}' has prompts in {_PROMPTS_FILE} that are no texts.\nGet the file again.")
    for name, value in prompts.items():
        if field_ := next((field_ for field_ in (TEXT_FIELD, INSTRUCTION_FIELD) if field_ in (value or "")), None):
            raise ModelError(f"The prompt {name} of '{model}' holds {field_}, which has a meaning here: {value!r}.")
    return {name: value + TEXT_FIELD for name, value in prompts.items() if value}


def _read(modules: Modules, index: int | None, name: str) -> dict[str, Any]:
    """A file of one module or (None) of the model itself; empty where there is none."""
    path = find_file(modules.model, name) if index is None else modules.find_file(index, name)
    return read_object(path) if path else {}
