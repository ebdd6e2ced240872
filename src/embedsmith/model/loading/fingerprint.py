"""MODEL -> fingerprints of the files that its vectors come from, and a record of all that an embedding depends on.

Two models are one where these are equal, wherever they lie and whatever they are called. Cost: reading the weights
the first time, half a second a gigabyte; `digests.py` remembers.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedsmith.model.loading.backbone import find_adapter, find_model
from embedsmith.model.loading.checkpoint_files import find_file, why_missing
from embedsmith.model.loading.graph_files import find_graph, graph_files
from embedsmith.model.loading.llm2vec import LLM2VEC_FILE
from embedsmith.model.loading.sentence_files import MODULES_FILE, find_modules
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.model.loading.sources import source_of
from embedsmith.settings.choices import Pooling
from embedsmith.support import files
from embedsmith.support.digests import kept_digest
from embedsmith.support.errors import ModelError

_OWN_FILES = (
    *("config.json", "adapter_config.json", "*.safetensors", "*.safetensors.index.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
    *(MODULES_FILE, "config_sentence_transformers.json", "sentence_*_config.json", LLM2VEC_FILE),
)
_NOT_WEIGHTS = ".similarities.safetensors"  # an evaluation's, which a user may keep beside the model


def fingerprint_model(model: str, *, base_model: str | None = None) -> tuple[str, ...]:
    """Of MODEL's own weights, configuration and tokenizer; then of what it builds on, down to a model without a base.

    Args:
        model: built-in name, hub id, folder, run or adapter; a sentence-transformers model or a folder with a graph.
        base_model: where the base lies; None: where it lay in training.

    Raises:
        ModelError: there is no such model, or a base is not where it should be.
    """
    own = fingerprint_own_files(model)
    adapter = find_adapter(find_model(model))
    if adapter is None:
        return (own,)
    return (own, *fingerprint_model(base_model or EmbeddingSettings.read(adapter).base_model))


def fingerprint_own_files(model: str) -> str:
    """The first of `fingerprint_model`'s alone, for which no base is needed; errors as there."""
    model = find_model(model)
    adapter = find_adapter(model)
    found = _model_files(model) if adapter is None else _matching(adapter)
    return files.fingerprint(found, digest_of=kept_digest)


def describe_embedding(
    settings: EmbeddingSettings, *, weights: Sequence[str], pooling: Pooling | None = None, dim: int | None = None
) -> dict[str, Any]:
    """All that an embedding depends on, for files: `weights` as `fingerprint_model` gives them, and how a text is
    embedded; the base's name and the widths that were trained are left out, as no vector depends on them."""
    values = asdict(settings)
    del values["base_model"], values["matryoshka_dims"]
    return {"weights": list(weights), **values, "pooling": str(pooling or settings.pooling), "dim": dim}


def _model_files(model: str) -> list[Path]:
    if graph := find_graph(model):
        return [*_matching(Path(model)), *graph_files(graph)]
    folder = Path(source_of(model))
    if not folder.is_dir():
        found = find_file(model, "config.json") or find_file(model, MODULES_FILE)
        if found is None:
            reason = why_missing(model) or "there is no such folder, and the hub gives none."
            raise ModelError(
                f"There is no model '{model}': {reason}\nName a built-in one, a hub id, a folder or a .gguf file."
            )
        folder = found.parent
    modules = find_modules(str(folder))
    inner = {"", *modules.folders} if modules else {""}
    return sorted(path for name in inner for path in _matching(folder / name))


def _matching(folder: Path) -> list[Path]:
    found = {path for pattern in _OWN_FILES for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file() and not path.name.endswith(_NOT_WEIGHTS))
