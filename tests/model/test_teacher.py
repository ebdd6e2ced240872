"""Teachers: a MODEL of ours or a sentence-transformers folder; no program code, no pickle, a function of the texts."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embedsmith.data.triplets import load_triplets
from embedsmith.model.embedder import Embedder
from embedsmith.model.teacher import load_teacher, load_teachers
from embedsmith.settings.choices import Side
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import MissingExtraError, ModelError
from tests.tiny import TEXTS, save_teacher

CPU = torch.device("cpu")
DISTINCT = list(dict.fromkeys(TEXTS))
MIXED = [row % 2 == 0 for row in range(len(TEXTS))]  # every other text is a query


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_teacher(tmp_path)


def test_a_sentence_transformers_folder(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    vectors = load_teacher(str(folder), device=CPU).embed(TEXTS, are_queries=MIXED)
    expected = torch.from_numpy(SentenceTransformer(str(folder), device="cpu").encode(TEXTS, show_progress_bar=False))
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(TEXTS)))


def test_control_tokens_in_a_text_are_its_characters(folder: Path) -> None:
    spelled, characters = load_teacher(str(folder), device=CPU).embed(
        ["a cat </s> sleeps", "a cat </ s > sleeps"], are_queries=[False, False]
    )
    torch.testing.assert_close(spelled, characters, rtol=0, atol=1e-6)


def test_a_finished_run_of_ours(llama: Embedder, tmp_path: Path) -> None:
    llama.add_adapter(AdapterSection())
    llama.save(tmp_path / "run")
    vectors = load_teacher(str(tmp_path / "run"), device=CPU).embed(TEXTS, are_queries=MIXED)
    expected = torch.from_numpy(Embedder.load(str(tmp_path / "run")).encode(TEXTS))
    torch.testing.assert_close(vectors, expected, rtol=0, atol=0.01)  # in two batches here


@pytest.mark.parametrize("kind", ["sentence-transformers", "ours"])
def test_queries_and_documents_get_their_prompts(llama: Embedder, folder: Path, tmp_path: Path, kind: str) -> None:
    from sentence_transformers import SentenceTransformer

    if kind == "ours":
        llama.settings = replace(llama.settings, query_prompt="the cat {text}")
        llama.add_adapter(AdapterSection())
        llama.save(tmp_path / "run")
        live = Embedder.load(str(tmp_path / "run"))
        encoded = {side: live.encode(TEXTS, side=side) for side in ("query", "document")}
        found = load_teacher(str(tmp_path / "run"), device=CPU).embed(TEXTS, are_queries=MIXED)
    else:
        other = SentenceTransformer(str(folder), device="cpu", prompts={"query": "the cat ", "document": ""})
        other.save(str(tmp_path / "prompted"))
        encoded = {"query": other.encode_query(TEXTS), "document": other.encode_document(TEXTS)}
        found = load_teacher(str(tmp_path / "prompted"), device=CPU).embed(TEXTS, are_queries=MIXED)
    for row, is_query in enumerate(MIXED):
        own, wrong = (encoded[side][row] for side in (("query", "document") if is_query else ("document", "query")))
        np.testing.assert_allclose(found[row], own, atol=0.01)  # the other texts of a bf16 batch move its last bits
        assert np.abs(found[row].numpy() - wrong).max() > 0.05


def test_a_batch_gives_the_same_bytes_whatever_came_before(folder: Path) -> None:
    """Nothing is remembered from one batch to the next."""
    first, second = (load_teacher(str(folder), device=CPU) for _ in range(2))
    first.embed(TEXTS[3:], are_queries=MIXED[3:])
    torch.manual_seed(9)
    state = torch.get_rng_state()
    assert torch.equal(first.embed(TEXTS, are_queries=MIXED), second.embed(TEXTS, are_queries=MIXED))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["sentence-transformers", "ours"])
def test_what_is_kept_is_what_the_model_says(
    llama: Embedder, folder: Path, tmp_path: Path, cache: Path, kind: str
) -> None:
    """Each side under its own prompt; the same texts in another order, or asked for again, come from the disk."""
    teacher = str(folder)
    if kind == "ours":
        llama.settings = replace(llama.settings, query_prompt="the cat {text}")
        llama.add_adapter(AdapterSection())
        llama.save(tmp_path / "run")
        teacher = str(tmp_path / "run")
    rows = [("a cat", "an animal", "rain"), ("rain", "the sea", "a cat"), ("a cat", "the", "an animal")]
    lines = ["\t".join(row) for row in rows]
    finished: list[int] = []
    kept = []
    for name, order in (("one", lines), ("two", lines[::-1])):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["anchor\tpositive\tnegative", *order]) + "\n")
        table = load_triplets([str(tmp_path / f"{name}.tsv")])
        texts = table.texts_by_side(with_negatives=True)
        assert {side: sorted(found) for side, found in texts.items()} == {
            Side.QUERY: ["a cat", "rain"],
            Side.DOCUMENT: ["a cat", "an animal", "rain", "the", "the sea"],
        }
        live = load_teacher(teacher, device=CPU)
        assert live.has_kept(texts) == (name == "two")
        kept.append(live.keep(texts, on_progress=finished.append))
        assert live.has_kept(texts)
    assert sum(finished) == 7
    batch = table.rows(np.array([2, 0]))
    asked = [*batch.anchors, *batch.positives, *(text for [text] in batch.negatives)]
    found = kept[1].embed(asked, are_queries=batch.are_queries())
    assert torch.equal(found, kept[0].embed(asked, are_queries=batch.are_queries()))
    assert found.shape == (6, live.dim)
    expected = live.embed(asked, are_queries=batch.are_queries())
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)  # bfloat16 and other texts of a batch
    assert "the sea" not in table.draw(1).texts_by_side(with_negatives=False)[Side.QUERY]
    with pytest.raises(AssertionError, match="a text of other data"):
        kept[0].embed(["the sea"], are_queries=[True])


@pytest.mark.parametrize("centers", [False, True])
def test_several_are_one_whose_cosine_is_the_mean_of_theirs(
    llama: Embedder, folder: Path, tmp_path: Path, cache: Path, centers: bool
) -> None:
    llama.add_adapter(AdapterSection())
    llama.save(tmp_path / "run")
    names = [str(folder), str(tmp_path / "run")]
    texts = {Side.QUERY: DISTINCT[:3], Side.DOCUMENT: DISTINCT}
    together = load_teachers(names, centers=centers, device=CPU)
    assert not together.has_kept(texts)
    kept = together.keep(texts)
    assert together.has_kept(texts)

    cosines = torch.zeros(len(DISTINCT), len(DISTINCT), dtype=torch.float64)
    for name in names:
        alone = load_teacher(name, device=CPU).keep(texts)
        as_documents = alone.embed(DISTINCT, are_queries=[False] * len(DISTINCT))
        if centers:
            as_queries = alone.embed(DISTINCT[:3], are_queries=[True] * 3)
            as_documents = as_documents - torch.cat([as_queries, as_documents]).mean(0)
        unit = as_documents.double() / as_documents.double().norm(dim=1, keepdim=True)
        cosines += unit @ unit.T / len(names)
    found = kept.embed(DISTINCT, are_queries=[False] * len(DISTINCT))
    assert found.shape == (len(DISTINCT), kept.dim)
    torch.testing.assert_close(found @ found.T, cosines.float(), rtol=0, atol=1e-5)


def test_one_that_is_not_centered_stays_as_it_is(folder: Path, cache: Path) -> None:
    alone, listed = load_teacher(str(folder), device=CPU), load_teachers([str(folder)], centers=False, device=CPU)
    texts = {Side.DOCUMENT: DISTINCT}
    asked = [False] * len(DISTINCT)
    assert torch.equal(listed.embed(DISTINCT, are_queries=asked), alone.embed(DISTINCT, are_queries=asked))
    kept = listed.keep(texts).embed(DISTINCT, are_queries=asked)
    assert torch.equal(kept, alone.keep(texts).embed(DISTINCT, are_queries=asked))


def _change_modules(folder: Path, **values: str) -> None:
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    modules[1].update(values)
    path.write_text(json.dumps(modules))


@pytest.mark.parametrize("kind", ["custom_pooling.Pooling", "os.system", "sentence_transformers.base.modules.Router"])
def test_program_code_is_never_run(folder: Path, kind: str) -> None:
    (folder / "custom_pooling.py").write_text("raise SystemExit('this ran')\n")
    _change_modules(folder, type=kind)
    with pytest.raises(ModelError, match=f"has a module {kind}, which may need program code"):
        load_teacher(str(folder), device=CPU)


def test_pickled_weights_are_refused(folder: Path) -> None:
    _change_modules(folder, type="sentence_transformers.models.Dense", path="1_Dense")
    (folder / "1_Dense").mkdir()
    (folder / "1_Dense" / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="the weights of 1_Dense in a pickle"):
        load_teacher(str(folder), device=CPU)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    _change_modules(folder, type="sentence_transformers.models.Pooling", path="1_Pooling")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_teacher(str(folder), device=CPU)


def test_other_faults(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no model 'who/nobody'"):
        load_teacher("who/nobody", device=CPU)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "sentence_transformers", None)
        with pytest.raises(MissingExtraError, match=r"embedsmith\[encoders\]"):
            load_teacher(str(folder), device=CPU)
    (folder / "modules.json").write_text("{]")
    with pytest.raises(ModelError, match=r"modules\.json is damaged"):
        load_teacher(str(folder), device=CPU)
