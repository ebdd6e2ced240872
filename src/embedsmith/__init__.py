"""embedsmith turns a small language model into a text-embedding model.

    data/        text -> triplets
    model/       triplets -> embeddings
    training/    embeddings -> adapter
    evaluation/  embedder -> results
    reporting/   results -> pages

The public names below are imported on first use, so that `import embedsmith` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedsmith.config import RunConfig
    from embedsmith.errors import EmbedsmithError
    from embedsmith.model.embedder import Embedder
    from embedsmith.recipe import load_config
    from embedsmith.results import EvaluationResult
    from embedsmith.verbs import diagnose, evaluate, train

_HOMES = {
    "Embedder": "embedsmith.model.embedder",
    "EmbedsmithError": "embedsmith.errors",
    "EvaluationResult": "embedsmith.results",
    "RunConfig": "embedsmith.config",
    "diagnose": "embedsmith.verbs",
    "evaluate": "embedsmith.verbs",
    "load_config": "embedsmith.recipe",
    "train": "embedsmith.verbs",
}

__all__ = [
    "Embedder",
    "EmbedsmithError",
    "EvaluationResult",
    "RunConfig",
    "diagnose",
    "evaluate",
    "load_config",
    "train",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'embedsmith' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
