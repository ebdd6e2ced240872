"""STS scores: equal to mteb's own scorer, one pass for several models, clear errors."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.evaluation.sts import (
    cosine_similarities,
    evaluate_tasks,
    load_evaluation_sets,
    load_local_tasks,
    pair_similarities,
    score_task,
)
from embedsmith.support.errors import DataError, ModelError
from tests.tiny import write_pairs


def _embed(texts: list[str]) -> dict[str, np.ndarray]:
    vectors = np.stack([np.random.default_rng(sum(text.encode())).standard_normal(16) for text in texts])
    return {"a": vectors.astype(np.float32), "b": (vectors[:, :4] * 3).astype(np.float32)}


class _MtebEncoder:
    """The least that mteb's evaluator asks of a model."""

    mteb_model_meta = None

    def encode(self, inputs: object, **_: object) -> np.ndarray:
        return _embed([text for batch in inputs for text in batch["text"]])["a"]

    def similarity_pairwise(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return cosine_similarities(first, second)


def test_scores_equal_mteb_s_own_scorer() -> None:
    """mteb's STS task, evaluator and all, on the same pairs; as many as STSBenchmark has, so that its float32
    cosines, which can tie two neighbours, move the correlation by less than 1e-6."""
    from datasets import Dataset
    from mteb._evaluators import AnySTSEvaluator
    from mteb.tasks.sts.eng.sts12_sts import STS12STS
    from mteb.timing import TimingStack

    random = np.random.default_rng(0)
    first, second = ([f"text {number}" for number in random.integers(0, 10_000, 1500)] for _ in range(2))
    pairs = ScoredPairs(first, second, random.integers(0, 26, 1500) / 5)
    mine = evaluate_tasks(_embed, tasks={"dev": pairs})["a"].tasks["dev"]

    task = STS12STS()
    evaluator = AnySTSEvaluator(
        Dataset.from_dict({"sentence1": first, "sentence2": second, "score": pairs.scores}),
        task.column_names,
        task_metadata=task.metadata,
        hf_split="test",
        hf_subset="default",
        input1_prompt_type=None,
        input2_prompt_type=None,
        timer=TimingStack(),
    )
    scores = evaluator(_MtebEncoder(), encode_kwargs={"batch_size": 32})
    theirs = task._calculate_scores(scores, [task._normalize(score) for score in pairs.scores])
    assert mine.cosine_spearman == pytest.approx(theirs["cosine_spearman"], abs=1e-6)


def test_cosine_of_known_angles() -> None:
    first = np.array([[1.0, 0], [1, 0], [2, 0]], dtype=np.float32)
    second = np.array([[0.0, 1], [1, 1], [-3, 0]], dtype=np.float32)
    np.testing.assert_allclose(cosine_similarities(first, second), [0, 0.5**0.5, -1], atol=1e-7)


def test_equal_texts_are_embedded_once(tmp_path: Path) -> None:
    asked: list[list[str]] = []
    pairs = ScoredPairs(["x", "y", "x"], ["y", "z", "x"], np.array([1.0, 2, 3]))
    similarities = pair_similarities(lambda texts: asked.append(texts) or _embed(texts), pairs)
    assert asked == [["x", "y", "z"]]
    assert similarities["a"][2] == pytest.approx(1)


def test_several_models_in_one_pass(tmp_path: Path) -> None:
    pairs = load_pairs(str(write_pairs(tmp_path / "d.tsv")))
    started: list[str] = []
    results = evaluate_tasks(_embed, tasks={"one": pairs, "two": pairs}, on_task=started.append)
    assert started == ["one", "two"]
    assert list(results) == ["a", "b"]
    assert results["a"].tasks["one"] == results["a"].tasks["two"] != results["b"].tasks["one"]
    assert results["a"].tasks["one"].num_pairs == 24


@pytest.mark.parametrize("similarities", [np.full(3, 0.5), np.array([0.1, np.nan, 0.3])])
def test_collapsed_embeddings_are_an_error(similarities: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"on STS12 cannot be ranked[\s\S]*embedsmith doctor"):
        score_task(similarities, np.array([1.0, 2, 3]), task="STS12")


def test_tasks_of_a_folder(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "STS14.tsv")
    (tmp_path / "STS12.tsv.gz").write_bytes(gzip.compress(source.read_bytes()))
    (tmp_path / "README.md").touch()
    assert list(load_local_tasks(tmp_path)) == ["STS12", "STS14"]
    assert list(load_local_tasks(tmp_path, ["STS14"])) == ["STS14"]
    with pytest.raises(DataError, match=r"has no task STS13\. Did you mean STS14\?|Did you mean STS12"):
        load_local_tasks(tmp_path, ["STS13"])
    with pytest.raises(DataError, match="no data folder"):
        load_local_tasks(tmp_path / "none")
    with pytest.raises(DataError, match=f"is a file, .*\n.*: --data {re.escape(str(tmp_path))} --tasks STS14"):
        load_local_tasks(source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no task at all"):
        load_local_tasks(tmp_path / "empty")


def test_retrieval_sets_are_looked_for_by_their_relevant_pairs(tmp_path: Path) -> None:
    own = tmp_path / "sets" / "own"
    (own / "qrels").mkdir(parents=True)
    (own / "corpus.jsonl").write_text(
        '{"_id": "1", "title": "cats", "text": "They sleep."}\n{"_id": "2", "text": "Rain."}\n'
    )
    (own / "queries.jsonl").write_text('{"_id": "a", "text": "who sleeps?"}\n')
    (own / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\na\t1\t2\na\t2\t0\n")
    (tmp_path / "sets" / "Y.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t2\n")
    found = load_evaluation_sets([str(tmp_path / "sets")])
    assert list(found) == ["Y", "own"]
    assert (found["own"].sentence1, found["own"].sentence2) == (["who sleeps?"], ["cats They sleep."])
    assert list(load_evaluation_sets([str(own)])) == ["own"]
    (tmp_path / "sets" / "same.tsv").write_text("sentence1\tsentence2\tlabel\na\tb\t1\nc\td\t0\n")
    (tmp_path / "sets" / "topics.tsv").write_text("text\tlabel\na\tx\nb\ty\nc\ty\n")
    of_kinds = load_evaluation_sets([str(tmp_path / "sets" / "same.tsv"), str(tmp_path / "sets" / "topics.tsv")])
    assert [one.rows for one in of_kinds.values()] == [[("a", "b"), ("c", "d")], [("a",), ("b",), ("c",)]]
    assert list(load_evaluation_sets([str(tmp_path / "sets")])) == ["Y", "same", "topics", "own"]
    (tmp_path / "sets" / "own.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t2\n")
    with pytest.raises(DataError, match="holds own twice"):
        load_evaluation_sets([str(tmp_path / "sets")])


def test_a_task_in_two_files_is_refused_naming_both(tmp_path: Path) -> None:
    rows = "sentence1\tsentence2\tscore\na\tb\t1\nc\td\t2\n"
    (tmp_path / "X.tsv").write_text(rows)
    (tmp_path / "X.tsv.gz").write_bytes(gzip.compress(rows.encode()))
    (tmp_path / "Y.tsv").write_text(rows)
    for names in (None, ["X"], ["Y", "X"]):
        with pytest.raises(DataError, match=r"more than one file of a task \(X: X\.tsv and X\.tsv\.gz\)"):
            load_local_tasks(tmp_path, names)
    assert list(load_local_tasks(tmp_path, ["Y", "Y"])) == ["Y"]
    with pytest.raises(DataError, match=rf"the name Y: of {tmp_path / 'Y.tsv'} and of {tmp_path / 'Y.tsv'}"):
        load_evaluation_sets([str(tmp_path / "Y.tsv")] * 2)
