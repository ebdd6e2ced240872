"""The pictures: a panel for each model, titles that fit, histograms of all there is."""

import pytest

from embedsmith.reporting import plots
from tests.reporting.contents import make_analysis, make_content


@pytest.mark.parametrize("num_models", [1, 6])
def test_every_model_has_a_panel(num_models: int) -> None:
    analysis = make_analysis(tuple(f"model {n}" for n in range(num_models)))
    assert plots.similarity_svg(analysis).count('id="PathCollection_') == num_models
    assert plots.cosines_svg(analysis).count('id="axes_') == num_models


def test_the_title_holds_spearman() -> None:
    analysis = make_analysis()
    for title, result in analysis.rows:
        assert f"{title}: {100 * result.tasks['large'].cosine_spearman:.1f}" in plots.similarity_svg(analysis)


def test_long_titles_are_cut_to_their_panel() -> None:
    analysis = make_analysis(("a" * 80, "b" * 80, "c" * 80))
    svg = plots.similarity_svg(analysis)
    assert "c" * 80 not in svg
    assert f"{'c' * 20}" in svg
    assert "…: " in svg


def test_data_has_a_histogram_of_each_column_and_overlap(cache: object) -> None:
    facts = make_content().data
    assert facts is not None
    svg = plots.data_svg(facts)
    for title in ("anchor: length in tokens", "negative: length in tokens", "positive: words shared"):
        assert title in svg


def test_pictures_take_the_colour_of_the_page() -> None:
    svg = plots.scores_svg(make_analysis().rows)
    assert "currentColor" in svg
    assert svg.startswith('<svg color="#808080" ')  # what it is in a file of its own
    assert svg.count("#808080") == 1
