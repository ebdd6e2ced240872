"""Where a graph lies in the folder that `embedsmith export` made, and whether a MODEL is such a folder."""

from pathlib import Path

ONNX_FILE = "onnx/model.onnx"
OPENVINO_FILE = "openvino/openvino_model.xml"


def find_graph(model: str) -> Path | None:
    """The graph's file in a folder that has one and no weights; None of any other MODEL."""
    folder = Path(model)
    if not model.strip() or not folder.is_dir() or any(folder.glob("*.safetensors")):
        return None
    return next((file for name in (ONNX_FILE, OPENVINO_FILE) if (file := folder / name).is_file()), None)


def graph_files(graph: Path) -> list[Path]:
    """All files that the graph is made of: weights may lie beside it, and a file per number format does not count."""
    beside = {".onnx": f"{graph.name}_data", ".xml": f"{graph.stem}.bin"}[graph.suffix]
    return [path for path in (graph, graph.with_name(beside)) if path.is_file()]
