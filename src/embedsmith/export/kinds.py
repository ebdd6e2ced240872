"""A folder -> which export of ours it is, by the files that each has."""

from pathlib import Path

from embedsmith.export.folders import PARITY_FILE
from embedsmith.export.gguf_files import GGUF, GGUF_FILE
from embedsmith.export.static import STATIC
from embedsmith.model.loading.backbone import ADAPTER_FILE, SETTINGS_FILE
from embedsmith.model.loading.checkpoint_files import read_object
from embedsmith.model.loading.graph_files import find_graph
from embedsmith.model.loading.sentence_files import MODULES_FILE


def kind_of_export(folder: Path) -> str | None:
    """What a folder was exported to, as `--to` calls it; None: it is no export.

    Raises:
        ModelError: a file of it is damaged.
    """
    if (folder / GGUF_FILE).exists():
        return GGUF
    if (folder / MODULES_FILE).exists() and read_object(folder / "config.json").get("model_type") == "model2vec":
        return STATIC
    if (graph := find_graph(str(folder))) and (folder / PARITY_FILE).exists():  # it has no settings
        return "openvino" if graph.suffix == ".xml" else "onnx"
    if not (folder / SETTINGS_FILE).exists():
        return None
    for mark, kind in (
        (MODULES_FILE, "sentence-transformers"),
        (ADAPTER_FILE, "peft"),
        ("config.json", "merged"),
    ):
        if (folder / mark).exists():
            return kind
    return None
