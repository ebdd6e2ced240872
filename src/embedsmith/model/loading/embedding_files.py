"""MODEL -> how its own files say that a text becomes a vector, and which file says what.

A run, an adapter or an export of ours has `embedding.json`; a GGUF file of ours has it among its metadata. A published
embedding model says it in the files of sentence-transformers (`modules.json` and what it names) or of LLM2Vec. Any
other model says nothing.
"""

from dataclasses import asdict, replace
from pathlib import Path

from embedsmith.model.loading.backbone import SETTINGS_FILE, find_adapter
from embedsmith.model.loading.checkpoint_files import find_file
from embedsmith.model.loading.gguf import is_gguf
from embedsmith.model.loading.llm2vec import LLM2VEC_FILE, read_llm2vec_settings
from embedsmith.model.loading.sentence_files import find_modules
from embedsmith.model.loading.sentence_settings import read_sentence_settings
from embedsmith.model.loading.settings import Described, EmbeddingSettings
from embedsmith.model.loading.sources import is_converted, source_of
from embedsmith.support.errors import ModelError


def describe_model(model: str, *, base_model: str | None = None) -> Described:
    """Read how MODEL embeds.

    Args:
        model: as `find_model` names it.
        base_model: where the base of an adapter lies; None: where its files say.

    Raises:
        ModelError: the files are damaged, or ask for something that is not computed here.
    """
    adapter = find_adapter(model)
    folder = adapter or Path(source_of(model) if is_gguf(model) else model)
    if (folder / SETTINGS_FILE).exists():
        settings = EmbeddingSettings.read(folder)
        return Described(settings, dict.fromkeys(asdict(settings), SETTINGS_FILE))
    if adapter is None:
        return describe_published(model) or Described(EmbeddingSettings(base_model=model))
    # Another tool's adapter: it embeds as its own modules say, else as its base does.
    settings = EmbeddingSettings.read(adapter)
    base = base_model or settings.base_model
    modules = find_modules(str(adapter))
    if modules and "Dense" in modules.kinds:
        raise ModelError(
            f"The adapter {model} has dense layers of its own, which embedsmith takes from a whole model only.\n"
            "Let sentence-transformers merge it into its base."
        )
    described = read_sentence_settings(modules) if modules else describe_published(base) if base.strip() else None
    if described is None:
        return Described(settings)
    return replace(described, settings=replace(described.settings, base_model=base))


def describe_published(model: str) -> Described | None:
    """The same of a model that is published as an embedding model, in another tool's files; None where it is none.

    An export of ours is in such files too, and its own settings say more.
    """
    if is_converted(model):
        return None
    if modules := find_modules(model):
        if own := find_file(model, SETTINGS_FILE):
            settings = EmbeddingSettings.read(own.parent)
            return Described(settings, dict.fromkeys(asdict(settings), SETTINGS_FILE))
        return read_sentence_settings(modules)
    path = find_file(model, LLM2VEC_FILE)
    return read_llm2vec_settings(model, path) if path else None
