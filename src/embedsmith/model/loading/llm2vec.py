"""LLM2Vec's own file beside a merged model -> how it embeds.

Source: `LLM2Vec.save` and `encode` in the code of BehnamGhader et al. 2024 (arXiv 2404.05961).
Attention goes both ways, and means are over the text alone, as its tokenizer cuts it: no end token is put.
"""

from pathlib import Path

from embedsmith.model.loading.checkpoint_files import find_file, read_object
from embedsmith.model.loading.settings import Described, EmbeddingSettings
from embedsmith.settings.choices import Pooling
from embedsmith.support.errors import ModelError

LLM2VEC_FILE = "llm2vec_config.json"
_POOLINGS = {
    "mean": Pooling.MEAN,
    "weighted_mean": Pooling.WEIGHTED_MEAN,
    "last_token": Pooling.LAST,
    "eos_token": Pooling.LAST,
}
# What it puts around every text of a model made from one of these.
_PROMPTS = {
    "meta-llama/Meta-Llama-3-8B-Instruct": "<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>",
    "mistralai/Mistral-7B-Instruct-v0.2": "[INST] {text} [/INST]",
    "meta-llama/Llama-2-7b-chat-hf": "[INST] {text} [/INST]",
}


def read_llm2vec_settings(model: str, path: Path) -> Described:
    """What the file at `path` says of MODEL; raises ModelError where it is damaged or asks for another pooling."""
    values = read_object(path)
    config_file = find_file(model, "config.json")
    base = read_object(config_file).get("_name_or_path") if config_file else None
    try:
        mode = str(values.get("pooling_mode", "mean"))
        # There, longer texts lose whole words until so many tokens are left; here, tokens.
        max_length = min(int(values.get("max_length", 512)), int(values.get("doc_max_length", 400)))
        if max_length < 1:
            raise ValueError(f"its lengths allow {max_length} tokens, and no text has so few")
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{path} is damaged: {error!r}") from error
    if mode not in _POOLINGS:
        raise ModelError(f"'{model}' pools by {mode} ({LLM2VEC_FILE}); embedsmith computes {', '.join(_POOLINGS)}.")
    settings = EmbeddingSettings(
        base_model=model,
        pooling=_POOLINGS[mode],
        pool_over="text" if values.get("skip_instruction", True) else "all",
        prompt=_PROMPTS.get(str(base)),
        prompt_tokens="joined",
        end_token=True if mode == "eos_token" else None,
        max_length=max_length,
        bidirectional_layers="all",
    )
    names = ("pooling", "pool_over", "end_token", "max_length", "bidirectional_layers")
    origins = {**dict.fromkeys(names, LLM2VEC_FILE), "prompt": f"LLM2Vec, for {base}"}
    return Described(settings, origins)
