"""Points -> lines and verdicts."""

from pathlib import Path

import pytest

from embedsmith.records.results import SweepPoint
from embedsmith.reporting.sweep_report import sweep_lines, sweep_markdown, verdict, write_sweep_page


def _point(label: str, *scores: float | None, is_base: bool = False, value: float | None = None) -> SweepPoint:
    return SweepPoint("lr", label, value, is_base, scores)


BASE = _point("b", 0.70, 0.72, is_base=True)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (_point("c", 0.73, 0.75), "+3.0, higher with every seed"),
        (_point("c", 0.71, 0.75), "+2.0, within the spread of seeds"),
        (_point("c", 0.72, 0.75), "+2.5, within the spread of seeds"),
        (_point("c", 0.60, 0.69), "-6.5, lower with every seed"),
        (_point("c", 0.99), "one seed: cannot tell"),
        (_point("c", None, None), ""),
    ],
)
def test_a_difference_counts_only_beyond_every_seed(point: SweepPoint, expected: str) -> None:
    assert verdict(point, BASE) == expected


def test_the_base_is_compared_with_nothing() -> None:
    assert verdict(BASE, BASE) == ""
    assert verdict(_point("c", 0.9, 0.9), None) == ""


def test_lines_hold_mean_spread_and_every_seed() -> None:
    base, other = sweep_lines([BASE, _point("c", 0.5, None)])
    assert base[1:6] == ["b (the recipe's own)", "2 of 2", "71.0", "1.4", "70.0, 72.0"]
    assert other[2:6] == ["1 of 2", "50.0", "-", "50.0, -"]
    assert sweep_markdown([BASE]).count("\n") == 3


@pytest.mark.parametrize("values", [(1e-4, 1e-2), (1.0, 2.0), (None, None)], ids=["decades", "numbers", "words"])
def test_a_page_of_a_sweep_that_has_just_begun(values: tuple[float | None, float | None], tmp_path: Path) -> None:
    points = [_point("a", 0.5, None, value=values[0]), _point("b", None, None, value=values[1])]
    write_sweep_page(tmp_path / "p.html", points, title="t", recipe_yaml="")
    assert (tmp_path / "p.html").read_text().count("<svg") == 1


@pytest.mark.parametrize("values", [(1e-4, 1e-2), (1.0, 2.0), (None, None)], ids=["decades", "numbers", "words"])
def test_a_page_holds_a_picture_for_each_axis(values: tuple[float | None, float | None], tmp_path: Path) -> None:
    points = [_point("a", 0.6, 0.7, value=values[0]), _point("b & c", 0.5, None, value=values[1], is_base=True)]
    write_sweep_page(
        tmp_path / "p.html", [*points, SweepPoint("k", "x", None, True, (None,))], title="t", recipe_yaml=""
    )
    page = (tmp_path / "p.html").read_text()
    assert page.count("<svg") == 2
    assert "b &amp; c" in page
    assert "3 of 5 runs" in page
    assert (tmp_path / "lr.svg").read_text() in page
