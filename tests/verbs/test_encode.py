"""encode: the vectors of files as `Embedder.encode` gives them; queries and a corpus under the same ranges."""

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers.util import quantize_embeddings

from embedsmith.cli import run_command
from embedsmith.data.pairs import load_pairs
from embedsmith.evaluation.correlation import spearman
from embedsmith.evaluation.saved import load_evaluation
from embedsmith.model.embedder import Embedder
from embedsmith.model.vector_precision import Ranges
from tests.tiny import TEXTS, write_pairs

CORPUS = [f"w{number} cat w{number * 7 % 200}" for number in range(120)]


@pytest.fixture
def work(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("\n".join(CORPUS) + "\n")
    Path("queries.tsv").write_text("question\n" + "\n".join(TEXTS) + "\n")
    return tmp_path


def _load(path: str) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def test_vectors_are_those_of_encode(
    work: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Embedder.load(model_folders["llama"], query_prompt="the cat {text}", fused=False).save(work / "m")
    live = Embedder.load("m")
    assert run_command(["encode", "m", "corpus.txt", "--out", "c.npy"]) == 0
    np.testing.assert_array_equal(_load("c.npy"), live.encode(CORPUS))
    assert "c.npy: 120 vectors of 64 dimensions, float32, 30,720 bytes" in capsys.readouterr().out
    assert run_command(["encode", "m", "corpus.txt", "--out", "h.npy", "--vector-precision", "float16"]) == 0
    np.testing.assert_array_equal(_load("h.npy"), live.encode(CORPUS).astype(np.float16))
    queries = ["queries.tsv", "--text-column", "question", "--side", "query", "--dim", "12", "--out", "q.npy"]
    assert run_command(["encode", "m", *queries, "--vector-precision", "ubinary"]) == 0
    found = _load("q.npy")
    np.testing.assert_array_equal(found, live.encode(TEXTS, side="query", dim=12, vector_precision="ubinary"))
    assert (found.dtype, found.shape) == (np.uint8, (len(TEXTS), 2))
    assert {path.name for path in work.glob("*.json")} == set()


def test_queries_and_corpus_are_in_the_same_steps(
    work: Path, model_folders: dict[str, str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_folders["llama"]
    live = Embedder.load(model)
    corpus, queries = live.encode(CORPUS), live.encode(TEXTS)
    assert run_command(["encode", model, "corpus.txt", "--out", "c.npy", "--vector-precision", "int8"]) == 0
    assert "calibrated on themselves. Embed queries and later texts with --ranges c.ranges.json" in caplog.text
    assert "ranges: c.ranges.json" in capsys.readouterr().out
    ranges = Ranges.read("c.ranges.json")
    np.testing.assert_array_equal(ranges.bounds, Ranges.of(corpus).bounds)
    of_queries = [model, "queries.tsv", "--text-column", "question", "--vector-precision", "int8", "--out", "q.npy"]
    assert run_command(["encode", *of_queries, "--ranges", "c.ranges.json"]) == 0
    np.testing.assert_array_equal(_load("q.npy"), live.encode(TEXTS, vector_precision="int8", ranges=ranges))
    assert not Path("q.ranges.json").exists()
    # of other texts, which are read by the same column
    assert run_command(["encode", *of_queries, "--calibration", "queries.tsv"]) == 0
    np.testing.assert_array_equal(Ranges.read("q.ranges.json").bounds, Ranges.of(queries).bounds)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--vector-precision", "binary", "--calibration", "corpus.txt"], "binary vectors have no ranges"),
        (["--vector-precision", "int8", "--ranges", "r.json", "--calibration", "corpus.txt"], "given already"),
        (["--vector-precision", "int8", "--ranges", "none.json"], "none.json cannot be read"),
        (["--ranges", "r.json"], "float32 vectors need no ranges"),
        (["--vector-precision", "int8", "--ranges", "r.json", "--dim", "12"], "64 dimensions, and these vectors"),
        (["--vector-precision", "int8", "--ranges", "r.json", "--prompt", "a {text}"], "with another prompt"),
        (["--vector-precision", "int4"], "int4"),
        (["--dim", "99"], "dim is 99"),
        (["--text-column", "body"], "has no 'body'"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(
    arguments: list[str], fault: str, work: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_folders["llama"]
    assert run_command(["encode", model, "corpus.txt", "--out", "r.npy", "--vector-precision", "uint8"]) == 0
    Path("r.ranges.json").rename("r.json")
    assert run_command(["encode", model, "corpus.txt", "--out", "x.npy", *arguments]) == 2
    assert fault in capsys.readouterr().err
    assert not list(work.glob("x.*"))


def test_vectors_in_few_bits_are_scored_beside_the_others(
    work: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = model_folders["llama"]
    Path("sts").mkdir()
    pairs = load_pairs(str(write_pairs(work / "sts" / "dev.tsv")))
    encode = ["encode", model, "corpus.txt", "--out", "c.npy", "--side", "query", "--vector-precision", "int8"]
    assert run_command(encode) == 0
    for name, options in {
        "float": [],
        "int8": ["--vector-precision", "int8", "--ranges", "c.ranges.json"],
        "binary": ["--vector-precision", "binary"],
        "ubinary": ["--vector-precision", "ubinary"],
    }.items():
        assert run_command(["evaluate", model, "--data", "sts", "--out", f"{name}.json", *options]) == 0
    first, second = (Embedder.load(model).encode(one, side="query") for one in (pairs.sentence1, pairs.sentence2))
    found = {name: load_evaluation(Path(f"{name}.json")) for name in ("float", "int8", "binary", "ubinary")}
    assert found["int8"].model == f"{model} (int8)"
    assert found["int8"].embedding == {**found["float"].embedding, "vector_precision": "int8"}
    bounds = Ranges.read("c.ranges.json").bounds
    rows1, rows2 = (quantize_embeddings(one, "int8", ranges=bounds).astype(float) for one in (first, second))
    cosines = np.sum(rows1 * rows2, axis=1) / np.linalg.norm(rows1, axis=1) / np.linalg.norm(rows2, axis=1)
    np.testing.assert_allclose(found["int8"].similarities["dev"].cosine, cosines, atol=1e-5)
    num_equal = np.sum((first > 0) == (second > 0), axis=1)
    for name in ("binary", "ubinary"):
        score = found[name].tasks["dev"].cosine_spearman
        assert score == pytest.approx(spearman(num_equal.astype(float), pairs.scores))
    capsys.readouterr()
    assert run_command(["compare", "float.json", "int8.json", "binary.json", "--seed-spread", "0"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("int8.json", "binary.json", "verdict: "))
    caplog.clear()
    assert run_command(["evaluate", model, "--data", "sts", "--vector-precision", "uint8"]) == 0
    assert "calibrated on themselves" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--tasks", "STS12", "--vector-precision", "int8"], "on scored pairs in files alone"),
        (["--ranges", "c.ranges.json"], "float32 vectors need no ranges"),
        (["--vector-precision", "int8", "--ranges", "c.ranges.json", "--pooling", "mean"], "with another pooling"),
        (["--vector-precision", "int8", "--ranges", "c.ranges.json", "--dims", "8", "16"], "have 8"),
    ],
)
def test_ranges_that_do_not_fit_are_refused_before_anything_is_scored(
    arguments: list[str], fault: str, work: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_folders["llama"]
    assert run_command(["encode", model, "corpus.txt", "--out", "c.npy", "--vector-precision", "int8"]) == 0
    assert run_command(["evaluate", model, *arguments]) == 2
    assert fault in capsys.readouterr().err
