"""The built-in sample: original English triplets and graded pairs, written for this project (docs/sample.md)."""

from importlib.resources import files
from pathlib import Path

SAMPLE = "sample"


def sample_triplets_path() -> Path:
    """TSV with the columns anchor, positive, negative, domain."""
    return _path("triplets.tsv")


def sample_pairs_path() -> Path:
    """TSV with the columns sentence1, sentence2, score (0 to 5), domain."""
    return _path("dev.tsv")


def _path(name: str) -> Path:
    return Path(str(files("embedsmith.data") / "sample" / name))
