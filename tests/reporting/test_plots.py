"""The rank and the median behind the similarity picture."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from embedsmith.reporting.plots import _running_median, mid_ranks, similarity_svg


def test_ranks_equal_scipy_s_with_ties() -> None:
    values = np.random.default_rng(0).integers(0, 5, 50)
    np.testing.assert_allclose(mid_ranks(values), rankdata(values) / 50, atol=1e-15)


def test_a_value_on_an_edge_counts_once() -> None:
    gold = np.arange(7.0).repeat(2)  # the edges of the six bins
    values = np.arange(14.0)
    assert _running_median(gold, values) == ([0.5, 1.5, 2.5, 3.5, 4.5, 5.5], [0.5, 2.5, 4.5, 6.5, 8.5, 11.5])


def test_the_title_holds_spearman() -> None:
    gold, values = np.random.default_rng(1).random((2, 30))
    title = f"tuned: {100 * spearmanr(gold, values).statistic:.1f}"
    assert title in similarity_svg(gold, {"tuned": values})


@pytest.mark.parametrize("num_models", [1, 6])
def test_every_model_has_a_panel(num_models: int) -> None:
    gold = np.arange(10.0)
    svg = similarity_svg(gold, {f"model {n}": gold**n for n in range(1, num_models + 1)})
    assert svg.count('id="PathCollection_') == num_models
