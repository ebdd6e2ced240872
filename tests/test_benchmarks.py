"""What the benchmarks make of measured times; the measuring itself is tried by `python -m benchmarks --quick`."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.pool import Series, Work
from benchmarks.render import render
from benchmarks.rows import Row, cosines_to, read_results, summarize, with_fractions, write_results
from benchmarks.tables import slope
from benchmarks.variants import VARIANTS

WORK = Work(name="4 triplets", requests=({"step": 0},) * 4, tokens=(90, 100, 110, 120), items=4)


def _rows() -> list[Row]:
    results = {
        ("4 triplets", "embedsmith"): Series(
            seconds=[1.0, 2.0, 1.0], replies=[{"tokens": 100}] * 4, peak_bytes=2_000_000_000
        ),
        ("4 triplets", "st-bf16"): Series(seconds=[4.0, 6.0, 5.0], replies=[{"tokens": 100}] * 4),
        ("4 triplets", "published"): Series(failure="it would need about 30 GB"),
    }
    return summarize(
        results,
        part="step",
        works=[WORK],
        variants=[VARIANTS[name] for name in ("embedsmith", "st-bf16", "published")],
        reference="embedsmith",
        operations_per_token=1e9,
        cosines={},
    )


def test_ratios_are_taken_within_rounds() -> None:
    ours, theirs, failed = _rows()
    assert (ours.seconds, ours.ratio, ours.repetitions) == (1.0, 1.0, 3)
    assert theirs.ratio == 4.0  # of 4, 3 and 5; the medians alone would say 5
    assert failed.seconds is None
    assert failed.failure == "it would need about 30 GB"


def test_fractions_count_real_tokens_against_the_peak() -> None:
    ours = with_fractions(_rows(), peak_flops=200e9, mm_flops=125e9)[0]
    assert ours.fraction == pytest.approx(100e9 / 200e9)  # of 100, 55 and 120 GFLOPS
    assert ours.fraction_of_mm == pytest.approx(100e9 / 125e9)


def test_slopes_are_exponents() -> None:
    assert slope([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)


def test_smallest_cosine(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.npy" for name in ("exact", "near")}
    np.save(files["exact"], np.array([[1.0, 0.0], [0.0, 2.0]]))
    np.save(files["near"], np.array([[3.0, 0.0], [1.0, 1.0]]))
    assert cosines_to("exact", files)["near"] == pytest.approx((0.5**0.5, (1 + 0.5**0.5) / 2))


def test_a_page_is_made_of_the_results_alone(tmp_path: Path) -> None:
    limits = {"bf16_gflops": 200.0, "bf16_mm_gflops": 125.0, "fp32_gflops": 100.0, "copy_gb_s": 50.0}
    part = {
        "command": "python -m benchmarks --parts step",
        "scale": {"repetitions": 3},
        "texts": "20 triplets",
        "missing": [],
        "limits": {"before": limits, "after": limits, "used": limits},
        "rows": [vars(row) for row in with_fractions(_rows(), peak_flops=200e9, mm_flops=125e9)],
    }
    machine = {
        "processor": "a processor",
        "cores": 2,
        "memory_gb": 24.0,
        "instructions": "AVX512",
        "bf16_in_hardware": True,
        "versions": {"torch": "2.13.0"},
    }
    write_results(tmp_path / "performance.json", {"machine": machine, "parts": {"step": part}})
    assert read_results(tmp_path / "performance.json")["machine"] == machine
    render(tmp_path)
    page = (tmp_path / "performance.md").read_text()
    assert "python -m benchmarks --parts step" in page
    assert "4.00 (3.50 to 4.50)" in page
    assert "it would need about 30 GB" in page
    (plot,) = (tmp_path / "images").glob("*.svg")
    assert plot.name in page
