"""Fitted curves of quality against data: what is known comes back, and intervals hold it as often as they say."""

import json

import numpy as np
import pytest

from benchmarks.scaling import Curve, Points, describe, fit_curve, main, read_points

CURVE = Curve(ceiling=0.86, scale=0.5, exponent=0.45)
AMOUNTS = np.array([500.0, 1500, 4500, 13500, 42338])
ONES = np.ones(len(AMOUNTS))


def write_sweep(path, scores, *, axis="triplets"):
    cells = [
        {"axis": axis, "label": f"{x:,.0f}", "scores": [score - 0.001, score + 0.001]}
        for x, score in zip(AMOUNTS, scores, strict=True)
    ]
    path.write_text(json.dumps([*cells, {"axis": "other", "label": "none", "scores": [0.5]}]))
    return path


def test_points_on_a_curve_give_that_curve():
    found = fit_curve(AMOUNTS, CURVE(AMOUNTS), weights=ONES)
    assert found(AMOUNTS) == pytest.approx(CURVE(AMOUNTS), abs=1e-5)
    assert found(np.array(275_601.0)) == pytest.approx(float(CURVE(np.array(275_601.0))), abs=1e-4)


def test_a_point_measured_more_often_counts_more():
    scores = CURVE(AMOUNTS) + np.array([0.0, 0.02, -0.02, 0.02, 0.0])
    plain = fit_curve(AMOUNTS, scores, weights=ONES)
    weighted = fit_curve(AMOUNTS, scores, weights=np.array([1.0, 1, 1, 100, 1]))
    assert abs(weighted(AMOUNTS)[3] - scores[3]) < abs(plain(AMOUNTS)[3] - scores[3])


def test_intervals_hold_the_true_score_as_often_as_they_say():
    random = np.random.default_rng(3)
    inside = 0
    for _ in range(40):
        points = Points(AMOUNTS, CURVE(AMOUNTS) + random.normal(size=len(AMOUNTS)) * 0.005, ONES)
        found = describe("model", points, at=[20_000], seed_spread=0.005, num_draws=40)["at"][0]
        inside += found["ci95"][0] <= CURVE(np.array(20_000.0)) <= found["ci95"][1]
    assert inside >= 34  # of 40 at 95 %: fewer would come once in a hundred times


def test_a_sweep_becomes_a_table_and_a_picture(tmp_path, capsys):
    sweep = write_sweep(tmp_path / "sweep.json", CURVE(AMOUNTS))
    main([f"small={sweep}", "--axis", "triplets", "--at", "275601", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "275,601" in printed and "extrapolated" in printed
    assert (tmp_path / "out" / "scaling.svg").read_text().startswith("<svg")
    found = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert [point["num_seeds"] for point in found[0]["points"]] == [2] * len(AMOUNTS)


@pytest.mark.parametrize(("axis", "words"), [("steps", "0 finished points"), ("other", "has the value 'none'")])
def test_an_axis_that_has_no_curve_is_named(tmp_path, axis, words):
    sweep = write_sweep(tmp_path / "sweep.json", CURVE(AMOUNTS))
    with pytest.raises(ValueError, match=words):
        read_points(sweep, axis=axis)


def test_a_sweep_without_a_label_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["sweep.json", "--axis", "triplets", "--out", str(tmp_path)])
    assert "must be LABEL=FILE" in capsys.readouterr().err
