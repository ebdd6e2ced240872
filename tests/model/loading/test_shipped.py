"""Models that come with the package: found by name, small, described, and better than their base."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.drift import draw_pairs
from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.data.sample import SAMPLE
from embedsmith.evaluation.correlation import spearman
from embedsmith.evaluation.sts import cosine_similarities
from embedsmith.export import parity
from embedsmith.export.folders import Format, export
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading import checkpoint_files
from embedsmith.model.loading.backbone import find_model, weights_folder
from embedsmith.model.loading.sentence_files import is_encoder
from embedsmith.model.loading.shipped import SHIPPED, find_shipped
from tests.tiny import TEXTS

MOST_BYTES = 8_000_000  # of each
NUM_PAIRS = 60


def _score(embedder: Embedder, pairs: ScoredPairs) -> float:
    first, second = (embedder.encode(side) for side in (pairs.sentence1, pairs.sentence2))
    return spearman(cosine_similarities(first, second), pairs.scores)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_small_and_its_card_says_where_it_is_from(name: str) -> None:
    folder = Path(find_model(name))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < MOST_BYTES
    assert all(np.isfinite(weight).all() for weight in load_file(folder / "adapter/adapter_model.safetensors").values())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f'Embedder.load("{name}")' in card
    assert "CC BY-SA 4.0" in card  # of the texts it was trained on


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_found_by_name_and_nobody_is_asked_for_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*arguments: object, **options: object) -> None:
        pytest.fail(f"asked the hub for {arguments}")

    monkeypatch.setattr(checkpoint_files, "cached_file", ask)
    assert not is_encoder(name)
    assert weights_folder(name) == Path(find_model(name)) / "adapter"
    assert Embedder.load(name).settings == Embedder.load(str(find_shipped(name))).settings


@pytest.mark.parametrize("name", SHIPPED)
def test_it_embeds_better_than_its_base_and_leaves_as_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = draw_pairs(load_pairs(SAMPLE), NUM_PAIRS)
    base = Embedder.load(name).settings.base_model
    tuned_score, base_score = (_score(Embedder.load(model), pairs) for model in (name, base))
    assert tuned_score > base_score + 0.3
    for number, value in (("_NUM_SAMPLES", 8), ("_NUM_LENGTHS", 2), ("_MOST_WORDS", 40)):
        monkeypatch.setattr(parity, number, value)  # a whole model: some seconds in the place of a minute
    export(name, folder=tmp_path / "merged", to=Format.MERGED)
    here, there = (Embedder.load(model, precision="fp32").encode(TEXTS) for model in (name, str(tmp_path / "merged")))
    np.testing.assert_allclose(there, here, atol=1e-4)


def test_a_name_that_is_none_of_them_is_another_model() -> None:
    assert find_shipped("smollm2-135m") is None
    assert find_shipped("../smollm2-135m-sts") is None
