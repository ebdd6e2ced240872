"""A sentence-transformers model's files -> the modules that it is made of, read without that package.

`modules.json` names them in the order in which they run; each has a folder of its own, and the first one's is often
the model's itself. Their names have moved between versions of the package (`sentence_transformers.models.Pooling`,
`sentence_transformers.sentence_transformer.modules.pooling.Pooling`): only the last part counts here.
"""

from dataclasses import dataclass
from pathlib import Path

from embedsmith.model.loading.checkpoint_files import find_file
from embedsmith.model.loading.configuration import is_decoder, load_config
from embedsmith.model.loading.sources import is_converted
from embedsmith.support import files
from embedsmith.support.errors import ModelError
from embedsmith.support.json_text import parse_json

MODULES_FILE = "modules.json"
# Modules that need no program code of their own.
_READERS = ("Transformer", "StaticEmbedding")  # of texts
_KNOWN = (*_READERS, "Pooling", "Normalize", "Dense")
_WITH_OWN_WEIGHTS = ("Dense", "StaticEmbedding")


@dataclass(frozen=True)
class Modules:
    """What a sentence-transformers model is made of, in the order in which it runs.

    Attributes:
        model: the folder or hub id that they lie in.
        kinds: `Transformer` or `StaticEmbedding`, then `Pooling`, `Normalize` or `Dense`.
        folders: of each, within the model's; empty: the model's own.
    """

    model: str
    kinds: tuple[str, ...]
    folders: tuple[str, ...]

    def find_file(self, index: int, name: str) -> Path | None:
        """A file of one module (downloaded where the model is the hub's); None: it has none of this name."""
        folder = self.folders[index]
        return find_file(self.model, f"{folder}/{name}" if folder else name)


def find_modules(model: str) -> Modules | None:
    """The modules of a folder or hub id; None where it is no sentence-transformers model, or nothing is known of it.

    Raises:
        ModelError: `modules.json` is damaged, or names modules that need program code or pickled weights.
    """
    # An empty name would be the folder at work.
    path = None if is_converted(model) or not model.strip() else find_file(model, MODULES_FILE)
    if path is None:
        return None
    try:
        named = [(str(module["type"]), str(module["path"])) for module in parse_json(files.read_text(path))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error!r}\nGet the file again.") from error
    for kind, folder in named:
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise ModelError(
                f"{path} names the folder {folder!r}, which lies outside of the model's.\n"
                "Get the file again; a module lies in the model's own folder."
            )
        if not kind.startswith("sentence_transformers.") or _leaf(kind) not in _KNOWN:
            raise ModelError(
                f"'{model}' has a module {kind}, which may need program code of its own; embedsmith runs none.\n"
                f"Choose a model made of {', '.join(_KNOWN)}."
            )
    if not named or _leaf(named[0][0]) not in _READERS:
        raise ModelError(
            f"{path} begins with neither {' nor '.join(_READERS)}, so nothing in it reads a text.\nGet the file again."
        )
    modules = Modules(
        model, kinds=tuple(_leaf(kind) for kind, _ in named), folders=tuple(folder.rstrip("/") for _, folder in named)
    )
    for index, kind in enumerate(modules.kinds):
        if kind in _WITH_OWN_WEIGHTS and modules.find_file(index, "model.safetensors") is None:
            raise ModelError(
                f"'{model}' keeps the weights of {modules.folders[index] or kind} in a pickle, which embedsmith never "
                "reads.\nSave the model anew with sentence-transformers, which writes safetensors."
            )
    return modules


def is_encoder(model: str) -> bool:
    """Whether MODEL is a sentence-transformers model whose body is no decoder, which embedsmith runs in that package.

    Such a body is an encoder, or a table of vectors by token (StaticEmbedding, as model2vec makes them).

    Raises:
        ModelError: as `find_modules`; or the body has no configuration that transformers knows.
    """
    modules = find_modules(model)
    if modules is None:
        return False
    if modules.kinds[0] == "StaticEmbedding":
        return True
    path = modules.find_file(0, "config.json")
    if path is None and modules.find_file(0, "adapter_config.json"):
        return False  # loading the adapter says what its base is
    if path is None:
        raise ModelError(
            f"'{model}' has no config.json in the folder of its Transformer ({modules.folders[0] or '.'})."
        )
    config, _ = load_config(model, str(path.parent))
    return not is_decoder(config)


def _leaf(kind: str) -> str:
    return kind.rsplit(".", 1)[-1]
