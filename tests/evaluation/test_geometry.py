"""Geometry by closed form: spaces whose shape is known."""

import numpy as np
import pytest

from embedsmith.evaluation.geometry import alignment, measure_geometry, project, similarity_bands


def _sphere(num_texts: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((num_texts, width))


def test_directions_spread_evenly() -> None:
    found = measure_geometry(_sphere(4000, 64))
    assert found.anisotropy == pytest.approx(0, abs=0.005)
    # For even directions cos is nearly normal with variance 1 / D: log E exp(4 cos - 4) = 8 / D - 4.
    assert found.uniformity == pytest.approx(8 / 64 - 4, abs=0.02)
    assert 60 < found.effective_rank <= 64
    assert found.top_share < 1 / 64 * 1.5
    assert (found.width, found.num_texts, found.alignment) == (64, 4000, None)


def test_a_narrow_cone() -> None:
    cone = np.array([10.0, 0, 0, 0]) + 0.1 * _sphere(500, 4)
    found = measure_geometry(cone)
    assert found.anisotropy > 0.99
    assert found.uniformity > -0.01
    assert found.effective_rank < 1.2
    assert found.top_share > 0.99


def test_effective_rank_of_orthogonal_texts_is_their_number() -> None:
    found = measure_geometry(np.eye(8)[:3] * [[1.0], [5.0], [0.2]])  # lengths do not matter
    assert found.effective_rank == pytest.approx(3)
    assert found.top_share == pytest.approx(1 / 3)
    assert found.anisotropy == pytest.approx(0)
    assert found.uniformity == pytest.approx(-4)


def test_one_direction_has_effective_rank_one() -> None:
    found = measure_geometry(np.ones((10, 5)))
    assert found.effective_rank == pytest.approx(1)
    assert found.anisotropy == pytest.approx(1)
    assert found.uniformity == pytest.approx(0, abs=1e-9)


def test_of_many_texts_a_sample_counts_and_the_seed_fixes_it() -> None:
    vectors = _sphere(5000, 8)
    assert measure_geometry(vectors).num_texts == 4096
    assert measure_geometry(vectors) == measure_geometry(vectors)
    assert measure_geometry(vectors) != measure_geometry(vectors, seed=1)


def test_alignment_is_the_mean_squared_distance_of_positives() -> None:
    gold = np.array([0.0, 4.0, 5.0, 3.9])  # 4 of 5 and above are positives
    cosines = np.array([-1.0, 0.5, 1.0, -1.0])
    assert alignment(cosines, gold) == pytest.approx(np.mean([2 - 2 * 0.5, 0.0]))


def test_similarity_bands_hold_every_pair_once() -> None:
    gold = np.array([0.0, 0.5, 1.0, 5.0, 5.0, 2.4])
    cosines = np.array([0.1, 0.3, 0.5, 0.9, 0.7, 0.0])
    bands = similarity_bands(cosines, gold)
    assert sum(band.num_pairs for band in bands) == 6
    assert [band.edges for band in bands] == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (4.0, 5.0)]
    assert bands[0].quantiles[2] == pytest.approx(0.2)
    assert bands[-1].num_pairs == 2
    assert bands[-1].quantiles[2] == pytest.approx(0.8)


def test_projection_finds_the_plane_in_which_texts_differ() -> None:
    plane = np.random.default_rng(0).standard_normal((50, 2)) * [0.3, 0.1]
    vectors = np.concatenate([np.ones((50, 1)), plane, np.zeros((50, 3))], axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    seen = project(vectors)
    assert seen.shape == (50, 2)
    assert seen.var(axis=0)[0] > seen.var(axis=0)[1]
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    true = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    assert np.corrcoef(distances.ravel(), true.ravel())[0, 1] > 0.99
    assert np.array_equal(seen, project(vectors))
