"""Data of small runs."""

from pathlib import Path

import pytest

from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from tests.tiny import write_triplets


@pytest.fixture
def triplets(tmp_path: Path, cache: Path) -> TripletTable:
    return load_triplets([str(write_triplets(tmp_path / "t.tsv", num_rows=60))])
