"""A file of texts with labels -> a clustering set: whether texts of one label lie together."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.columns import CLUSTER_FIELDS, read_fields, text_fault
from embedsmith.data.faults import Faults
from embedsmith.support.errors import DataError


@dataclass(frozen=True)
class ClusteringSet:
    """K texts and the label of each."""

    texts: list[str]
    labels: list[str]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The texts, one a row."""
        return [(text,) for text in self.texts]

    @property
    def fingerprint(self) -> str:
        """Equal for equal texts and labels in equal order."""
        return hashlib.blake2b(json.dumps([self.texts, self.labels]).encode(), digest_size=20).hexdigest()


def load_clustering_set(path: Path, *, columns: Mapping[str, str] | None = None) -> ClusteringSet:
    """Read and check a set.

    Args:
        path: the file, of any format of `readers`.
        columns: {text: ..., label: ...} where they are named otherwise.

    Raises:
        DataError: faulty rows (all are named), one label alone, or one for each text.
    """
    faults = Faults()
    texts, labels = [], []
    for line, row in read_fields(path, fields=CLUSTER_FIELDS, columns=columns, faults=faults):
        named = {"text": text_fault(row["text"]), "label": _label_fault(row["label"])}
        bad = [f"{name} {fault}" for name, fault in named.items() if fault]
        for fault in bad:
            faults.add(path, line, fault)
        if not bad:
            texts.append(row["text"])
            labels.append(str(row["label"]))
    faults.raise_if_any(what="clustering set")
    if not 1 < len(set(labels)) < len(labels):
        raise DataError(
            f"{path} has {len(labels)} texts and {len(set(labels))} labels; it needs two labels or more, and some text "
            "that shares its label with another."
        )
    return ClusteringSet(texts, labels)


def _label_fault(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    return text_fault(value)
