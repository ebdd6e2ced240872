"""Vectors of folders by the sentence-transformers of another environment; imports nothing of this repository.

python load_elsewhere.py JOBS    JSON, a list of: folder, backend, texts (prompt's name or "" -> texts), out (.npz)
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Do all jobs; one that fails leaves its reason beside where its vectors would be."""
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        try:
            np.savez(job["out"], **_encode(job))
        except Exception:
            Path(job["out"]).with_suffix(".txt").write_text(traceback.format_exc(), encoding="utf-8")


def _encode(job: dict[str, Any]) -> dict[str, np.ndarray]:
    sys.modules["openvino_telemetry"] = None  # it would report all of this over the network
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(job["folder"], backend=job["backend"], device="cpu")
    return {name or "bare": model.encode(texts, prompt_name=name or None) for name, texts in job["texts"].items()}


if __name__ == "__main__":
    main()
