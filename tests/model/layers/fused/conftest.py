"""Fixtures of the fused decoder's tests: one tame random model of every fused family."""

from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.model.layers.fused.cases")

from tests.model.layers.fused.cases import save_variant  # noqa: E402
from tests.tiny import FAMILIES  # noqa: E402


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("variants")
    return {family: save_variant(family, root / family) for family in FAMILIES}
