"""Shorter embeddings: the first dimensions, unit length; the full width untouched."""

import pytest
import torch

from embedsmith.model.widths import shorten
from embedsmith.support.errors import ConfigError

ROWS = torch.tensor([[0.6, 0.0, 0.8], [0.48, 0.64, 0.6]])


def test_the_first_dimensions_at_unit_length() -> None:
    torch.testing.assert_close(shorten(ROWS, dim=2), torch.tensor([[1.0, 0.0], [0.6, 0.8]]))


def test_the_full_width_is_the_same_tensor() -> None:
    assert shorten(ROWS, dim=3) is ROWS


@pytest.mark.parametrize("dim", [0, -1, 4])
def test_widths_that_are_not_there(dim: int) -> None:
    with pytest.raises(ConfigError, match=f"dim is {dim}, but the model's embeddings have 3 dimensions"):
        shorten(ROWS, dim=dim)
