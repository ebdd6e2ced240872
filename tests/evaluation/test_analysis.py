"""All that a report shows of some models, against what its parts say alone."""

import numpy as np
import pytest

from embedsmith.data.pairs import ScoredPairs
from embedsmith.evaluation.analysis import analyse, distinct_texts
from embedsmith.evaluation.geometry import measure_geometry
from embedsmith.evaluation.sts import cosine_similarities
from embedsmith.records.results import Verdict


def _pairs(num: int, *, offset: int = 0) -> ScoredPairs:
    texts = [f"text {n + offset}" for n in range(2 * num)]
    return ScoredPairs(texts[:num], texts[num:], np.linspace(0, 5, num))


def test_every_part_is_of_the_largest_task() -> None:
    tasks = {"small": _pairs(30, offset=500), "large": _pairs(80)}
    texts = distinct_texts(tasks)
    assert len(texts) == len(set(texts)) == 220
    random = np.random.default_rng(0)
    vectors = {"a": random.standard_normal((220, 8)), "b": random.standard_normal((220, 8))}
    found = analyse(tasks, vectors)
    assert found.focus == "large"
    row_of = {text: row for row, text in enumerate(texts)}
    one = [row_of[text] for text in tasks["large"].sentence1]
    two = [row_of[text] for text in tasks["large"].sentence2]
    for label, values in vectors.items():
        np.testing.assert_allclose(found.cosines[label], cosine_similarities(values[one], values[two]))
        assert found.geometry[label].anisotropy == pytest.approx(measure_geometry(values[[*one, *two]]).anisotropy)
        assert sum(band.num_pairs for band in found.bands[label]) == 80
        np.testing.assert_array_equal(found.alike_cosines[label], found.cosines[label][-16:])  # gold of 4 and more
    assert found.slices[0].num_pairs == 80
    assert [one.model for one in found.comparisons] == ["b"]
    assert set(found.comparisons[0].tasks) == {"small", "large"}


def test_a_model_beside_itself_cannot_be_told_apart() -> None:
    tasks = {"one": _pairs(60)}
    vectors = np.random.default_rng(1).standard_normal((120, 8))
    [found] = analyse(tasks, {"a": vectors, "b": vectors}).comparisons
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.average.gain == 0


def test_the_map_has_one_scale_and_joins_the_pairs_that_are_alike() -> None:
    tasks = {"one": _pairs(200)}
    random = np.random.default_rng(2)
    wide = random.standard_normal((400, 8))
    narrow = np.ones(8) + 0.01 * wide
    found = analyse(tasks, {"narrow": narrow, "wide": wide}).map
    assert len(found.links) == 60
    scores = dict(
        zip(zip(tasks["one"].sentence1, tasks["one"].sentence2, strict=True), tasks["one"].scores, strict=True)
    )
    for first, second, is_alike in found.links:
        score = scores[found.texts[first], found.texts[second]]
        assert score >= 4 if is_alike else score <= 1
    reach = {label: np.abs(places).max() for label, places in found.positions.items()}
    assert reach["wide"] == pytest.approx(1)
    assert reach["narrow"] < 0.1
