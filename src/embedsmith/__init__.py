"""embedsmith turns a small language model into a text-embedding model.

    support/     errors, files, progress, the machine
    settings/    recipes and command lines -> settings
    records/     plain records that pass between the rooms below
    data/        text -> triplets, pairs, scored pairs
    model/       texts -> embeddings
    training/    embeddings -> adapter
    evaluation/  embedder -> results
    reporting/   results -> pages
    export/      embedder -> other tools
    serving/     embedder -> HTTP
    verbs/       the rooms composed, one file a command
    cli/         the command line

The public names below are imported on first use, so that `import embedsmith` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedsmith.model.embedder import Embedder
    from embedsmith.records.results import EvaluationResult
    from embedsmith.settings.config import RunConfig
    from embedsmith.settings.recipe import load_config
    from embedsmith.support.errors import EmbedsmithError
    from embedsmith.verbs.doctor import diagnose
    from embedsmith.verbs.evaluate import evaluate
    from embedsmith.verbs.train import train

_HOMES = {
    "Embedder": "embedsmith.model.embedder",
    "EmbedsmithError": "embedsmith.support.errors",
    "EvaluationResult": "embedsmith.records.results",
    "RunConfig": "embedsmith.settings.config",
    "diagnose": "embedsmith.verbs.doctor",
    "evaluate": "embedsmith.verbs.evaluate",
    "load_config": "embedsmith.settings.recipe",
    "train": "embedsmith.verbs.train",
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
