"""Every type of task of mteb's: scores as of its own run of the exported model, and prompts where they belong."""

import json
import shutil
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from embedsmith.cli import run_command
from embedsmith.evaluation.mteb_encoder import MtebEncoder
from embedsmith.evaluation.saved import load_evaluation
from embedsmith.export.folders import Format, export
from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Precision
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import DataError
from embedsmith.verbs import benchmark
from embedsmith.verbs.benchmark import run_benchmark
from embedsmith.verbs.compare import compare_models
from tests.evaluation.mteb_sets import ALL, FIRST, NUM_ROWS, SECOND, Rank, Search, Similarity, Together, Topics
from tests.tiny import save_model, write_pairs


@pytest.fixture
def own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are found among the tasks in memory, as the hub's would be."""
    known = {task.metadata.name: task for task in (*ALL, Together)}
    every = [task.metadata.name for task in ALL]
    monkeypatch.setattr(benchmark, "find_mteb_tasks", lambda names, **_: [known[name]() for name in names or every])


@pytest.mark.filterwarnings("ignore:The fill_missing parameter", "ignore:The `get_sentence_emb")  # in mteb's wrapper
@pytest.mark.usefixtures("own_tasks")
def test_scores_equal_mtebs_own_run(model_folders: dict[str, str], tmp_path: Path) -> None:
    export(model_folders["llama"], folder=tmp_path / "st", to=Format.SENTENCE_TRANSFORMERS)
    found = run_benchmark(model_folders["llama"], folder=tmp_path / "mteb", precision=Precision.FP32)
    other = SentenceTransformer(str(tmp_path / "st"), device="cpu")
    expected = mteb.evaluate(other, [task() for task in ALL], cache=None, co2_tracker=False, show_progress_bar=False)
    assert [one.task_name for one in expected.task_results] == list(found.scores)
    for one in expected.task_results:
        assert found.scores[one.task_name].score == pytest.approx(one.get_score(), abs=1e-6), one.task_name
    assert len({round(one.score, 4) for one in found.scores.values()}) == len(ALL)  # nothing trivial is compared
    assert found.mean == pytest.approx(np.mean([one.get_score() for one in expected.task_results]), abs=1e-6)
    assert found.mean_of_kinds == pytest.approx(found.mean)  # one task of each type


@pytest.mark.usefixtures("own_tasks")
def test_similarity_has_an_interval_and_every_task_a_file_of_mtebs(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_benchmark(model_folders["llama"], folder=tmp_path, tasks=["Similarity", "Topics"])
    own = found.comparable.tasks["Similarity"]
    assert own.cosine_spearman == pytest.approx(found.scores["Similarity"].score, abs=1e-6)
    assert own.ci95[0] < own.cosine_spearman < own.ci95[1]
    written = {path.stem: json.loads(path.read_text()) for path in tmp_path.rglob("*.json")}
    for name in ("Similarity", "Topics"):
        assert written[name]["scores"]["test"][0]["main_score"] == pytest.approx(found.scores[name].score, abs=1e-6)
    assert written["model_meta"]["name"].startswith("embedsmith/")
    assert written["model_meta"]["embed_dim"] == 64

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Embedder, "encode", forbidden)
    again = run_benchmark(model_folders["llama"], folder=tmp_path, tasks=["Topics"])
    assert again.scores["Topics"].score == pytest.approx(found.scores["Topics"].score, abs=1e-6)  # kept with 6 digits
    with pytest.raises(AssertionError, match="encoded again"):  # another width is another model
        run_benchmark(model_folders["llama"], folder=tmp_path, tasks=["Topics"], dim=16)


@pytest.mark.usefixtures("own_tasks")
def test_a_task_made_of_tasks(model_folders: dict[str, str], tmp_path: Path) -> None:
    found = run_benchmark(model_folders["llama"], folder=tmp_path, tasks=["Together", "Search"])
    assert set(found.scores) == {"Together", "Search"}
    parts = {path.stem: json.loads(path.read_text()) for path in tmp_path.rglob("*.json")}
    own = [parts[name]["scores"]["test"][0]["main_score"] for name in ("Search", "Rank")]
    assert found.scores["Together"].score == pytest.approx(np.mean(own), abs=1e-5)


@pytest.mark.usefixtures("own_tasks")
def test_prompts_and_instructions_go_to_their_side(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None, list[str]]] = []
    encode = Embedder.encode

    def spy(self: Embedder, texts: list[str], *, side: str, instruction: str | None, **rest: Any) -> np.ndarray:
        asked.append((str(side), instruction, texts))
        return encode(self, texts, side=side, instruction=instruction, **rest)

    monkeypatch.setattr(Embedder, "encode", spy)
    run_benchmark(
        model_folders["llama"],
        folder=tmp_path,
        tasks=["Similarity", "Search", "Topics", "Rank"],
        prompt="Instruct: {instruction} Query: {text}",
    )
    told = {(side, instruction) for side, instruction, texts in asked if set(texts) & set(FIRST)}
    assert told == {
        ("query", str(Similarity.metadata.prompt)),
        ("query", str(Search.metadata.prompt)),
        ("query", Rank.abstask_prompt),
    }
    assert {side for side, _, texts in asked if set(texts) <= set(SECOND)} == {"query", "document"}
    assert ("query", Topics.abstask_prompt) in {(side, instruction) for side, instruction, _ in asked}


@pytest.mark.usefixtures("own_tasks")
def test_a_task_that_cannot_be_scored_takes_no_other_with_it(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no such host")

    monkeypatch.setattr(Topics, "load_data", unreachable)
    monkeypatch.setattr("tests.evaluation.mteb_sets.SECOND", FIRST)  # every pair of Similarity twice the same text
    command = [
        "evaluate",
        model_folders["llama"],
        "--mteb-folder",
        str(tmp_path / "m"),
        "--out",
        str(tmp_path / "r.json"),
    ]
    assert run_command([*command, "--tasks", "Topics", "Similarity", "Search"]) == 2
    told = capsys.readouterr()
    assert "Topics: The task Topics cannot be loaded from the hub: no such host" in told.err
    assert "Similarity: " in told.err
    kept = json.loads((tmp_path / "r.json").read_text(), parse_constant=lambda name: pytest.fail(name))["mteb"]
    assert list(kept["scores"]) == ["Search"]
    assert set(kept["failures"]) == {"Topics", "Similarity"}
    assert kept["mean"] == kept["scores"]["Search"]["score"]
    with pytest.raises(DataError, match="no such host"):
        run_benchmark(model_folders["llama"], folder=tmp_path, tasks=["Topics"])


def _write_beir(folder: Path, *, judged: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{row}", "title": "", "text": text} for row, text in enumerate(SECOND)]
    queries = [{"_id": f"q{row}", "text": text} for row, text in enumerate(FIRST)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder


def test_a_folder_in_beirs_layout(
    model_folders: dict[str, str], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """nDCG@10 against its definition (Järvelin and Kekäläinen 2002), from the embeddings themselves."""
    _write_beir(tmp_path / "sets" / "own", judged="".join(f"q{row}\td{row}\t1\n" for row in range(NUM_ROWS)))
    command = ["evaluate", model_folders["llama"], "--data", str(tmp_path / "sets"), "--out", str(tmp_path / "r.json")]
    assert run_command(command) == 0
    assert "ndcg_at_10" in capsys.readouterr().out
    embedder = Embedder.load(model_folders["llama"])
    cosines = embedder.encode(FIRST, side="query") @ embedder.encode(SECOND).T
    ranks = 1 + (cosines > np.diag(cosines)[:, None]).sum(axis=1)
    expected = np.mean(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0))
    kept = json.loads((tmp_path / "r.json").read_text())
    score = kept["mteb"]["scores"]["own"]
    assert score["score"] == pytest.approx(expected, abs=1e-4)  # mteb rounds to 5 digits
    assert score["mrr_at_10"] == pytest.approx(np.mean(np.where(ranks <= 10, 1 / ranks, 0)), abs=1e-4)
    assert score["ci95"][0] < score["score"] < score["ci95"][1]
    assert kept["tasks"] == {}
    by_query = dict(zip(sorted(f"q{row}" for row in range(NUM_ROWS)), range(NUM_ROWS), strict=True))
    own = load_evaluation(tmp_path / "r.json").queries["own"].ndcg_at_10
    expected_rows = [np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)[int(query[1:])] for query in by_query]
    np.testing.assert_allclose(own, expected_rows, atol=1e-6)


def test_models_are_compared_on_the_queries_of_a_set(
    model_folders: dict[str, str], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Live, from files, and from what mteb kept: the same; other queries and other kinds are refused."""
    _write_beir(tmp_path / "sets" / "own", judged="".join(f"q{row}\td{row}\t1\n" for row in range(NUM_ROWS)))
    data = ["--data", str(tmp_path / "sets")]
    models = [model_folders["llama"], model_folders["mistral"]]
    saved = [str(tmp_path / f"{name}.json") for name in "abc"]
    for model, path in zip([*models, models[0]], saved, strict=True):  # the third one is taken from mteb's file
        assert run_command(["evaluate", model, *data, "--out", path]) == 0
    (live,) = compare_models(models, data=tmp_path / "sets", num_draws=200)
    assert live.average == compare_models(saved[:2], num_draws=200)[0].average
    assert live.average == compare_models([saved[2], saved[1]], num_draws=200)[0].average
    assert (live.metric, live.average.num_pairs) == ("nDCG@10", NUM_ROWS)
    capsys.readouterr()
    assert run_command(["compare", saved[0], saved[2], "--draws", "200"]) == 0
    told = capsys.readouterr().out
    assert "queries" in told
    assert "nDCG@10 x 100" in told
    assert told.strip().endswith("verdict: cannot tell")  # of one model, twice
    _write_beir(tmp_path / "more" / "own", judged="q0\td1\t1\n")
    assert run_command(["evaluate", models[0], "--data", str(tmp_path / "more"), "--out", saved[2]]) == 0
    with pytest.raises(DataError, match="was scored on other queries of own"):
        compare_models([saved[0], saved[2]])
    (tmp_path / "sts").mkdir()
    write_pairs(tmp_path / "sts" / "one.tsv")
    assert run_command(["evaluate", models[0], "--data", str(tmp_path / "sts"), "--out", saved[1]]) == 0
    with pytest.raises(DataError, match="has one; asked for are own"):
        compare_models([saved[0], saved[1]])


def test_other_judgements_texts_or_queries_under_the_same_name(
    model_folders: dict[str, str], tmp_path: Path, cache: Path
) -> None:
    """Each part of a set alone is changed, then put back: nothing kept of the other set is taken."""
    own = _write_beir(tmp_path / "sets" / "own", judged="".join(f"q{row}\td{row}\t1\n" for row in range(NUM_ROWS)))
    again = _write_beir(tmp_path / "again" / "own", judged="".join(f"q{row}\td{row}\t1\n" for row in range(NUM_ROWS)))

    def score(data: Path) -> float:
        command = ["evaluate", model_folders["llama"], "--data", str(data.parent), "--out", str(tmp_path / "r.json")]
        assert run_command(command) == 0
        return float(json.loads((tmp_path / "r.json").read_text())["mteb"]["scores"]["own"]["score"])

    first = score(own)
    changes = {
        "qrels/test.tsv": lambda text: text.replace("q0\td0", "q0\td5"),
        "corpus.jsonl": lambda text: text.replace(SECOND[0], "the warm roof"),
        "queries.jsonl": lambda text: text.replace(FIRST[0], "the warm roof"),
    }
    for name, change in changes.items():
        before = (own / name).read_text()
        (own / name).write_text(change(before))
        assert (own / name).read_text() != before
        assert score(own) != first, name
        (own / name).write_text(before)
        assert score(own) == first, name
    (again / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td1\t1\n")
    assert score(again) != first  # another folder of the same name


def _revision(model: str, *, base_model: str | None = None, dim: int | None = None, **given: Any) -> str:
    embedder = Embedder.load(model, base_model=base_model, precision=given.pop("precision", "fp32"), **given)
    return str(MtebEncoder(embedder, model=model, base_model=base_model, dim=dim).mteb_model_meta.revision)


def test_a_revision_holds_all_that_an_embedding_depends_on(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "base")
    shutil.copytree("base", "moved")
    save_model("llama", tmp_path / "other")
    weights = load_file("other/model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.5
    save_file(weights, "other/model.safetensors", {"format": "pt"})
    embedder = Embedder.load("base", precision="fp32", prompt="{instruction} {text}", instruction="find", max_length=64)
    embedder.add_adapter(AdapterSection(init_lora_weights="gaussian"))
    embedder.save("run")
    known = _revision("run")
    assert _revision("run", base_model="moved") == known  # the same files elsewhere
    assert _revision("base") != known
    shutil.copytree("run", "copy")
    assert _revision("copy") == known
    adapter = load_file("copy/adapter_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in adapter.items()}, "copy/adapter_model.safetensors")
    changes: list[dict[str, Any]] = [
        *({"base_model": "other"}, {"dim": 16}, {"precision": "bf16"}, {"pooling": "mean"}, {"prompt": "say {text}"}),
        *({"query_prompt": "ask {text}"}, {"end_token": False}, {"max_length": 32}, {"bidirectional_layers": 1}),
    ]
    revisions = [known, _revision("copy"), *(_revision("run", **change) for change in changes)]
    assert len(set(revisions)) == len(revisions)
    for name in ("tokenizer.json", "config.json"):
        text = (tmp_path / "base" / name).read_text()
        (tmp_path / "base" / name).write_text(text + " ")
        assert _revision("run") != known, name
        (tmp_path / "base" / name).write_text(text)
    assert _revision("run") == known


@pytest.mark.usefixtures("own_tasks")
def test_what_another_version_of_mteb_kept_is_not_taken(model_folders: dict[str, str], tmp_path: Path) -> None:
    found = run_benchmark(model_folders["llama"], folder=tmp_path, tasks=["Together"])
    kept = {path.stem: path for path in tmp_path.rglob("*.json")}
    for change in (lambda values: values | {"mteb_version": "1.0"}, lambda values: values | {"dataset_revision": "x"}):
        values = change(json.loads(kept["Search"].read_text()))
        values["scores"]["test"][0]["main_score"] = 0.123456
        kept["Search"].write_text(json.dumps(values))
        again = run_benchmark(model_folders["llama"], folder=tmp_path, tasks=["Together"])
        assert again.scores["Together"].score == pytest.approx(found.scores["Together"].score, abs=1e-6)
    kept["Search"].write_text(kept["Search"].read_text()[:100])
    again = run_benchmark(model_folders["llama"], folder=tmp_path, tasks=["Search"])
    assert again.scores["Search"].score == json.loads(kept["Search"].read_text())["scores"]["test"][0]["main_score"]


def test_pairs_and_retrieval_side_by_side_are_told_apart(
    model_folders: dict[str, str], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_beir(tmp_path / "sets" / "own", judged="q0\td0\t1\n")
    write_pairs(tmp_path / "sets" / "pairs.tsv")
    command = ["evaluate", model_folders["llama"], "--data", str(tmp_path / "sets")]
    assert run_command(command) == 2
    assert "holds scored pairs (pairs) and retrieval sets (own)" in capsys.readouterr().err
    assert run_command([*command, "--tasks", "own"]) == 0
    assert "ndcg_at_10" in capsys.readouterr().out
    assert run_command([*command, "--tasks", "pairs"]) == 0
    assert "ndcg_at_10" not in capsys.readouterr().out


def test_a_set_and_a_file_of_one_name_are_refused_naming_both(
    model_folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_beir(tmp_path / "own", judged="q0\td0\t1\n")
    write_pairs(tmp_path / "own.tsv")
    for tasks in ([], ["--tasks", "own"]):
        assert run_command(["evaluate", model_folders["llama"], "--data", str(tmp_path), *tasks]) == 2
        assert "holds own twice: as a retrieval set and as a file" in capsys.readouterr().err


def test_the_folder_itself_may_be_the_set(
    model_folders: dict[str, str], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(_write_beir(tmp_path / "own", judged="q0\td0\t1\n"))
    for data in (".", str(tmp_path / "own")):
        out = str(tmp_path / "r.json")
        assert run_command(["evaluate", model_folders["llama"], "--data", data, "--out", out]) == 0
        assert list(json.loads((tmp_path / "r.json").read_text())["mteb"]["scores"]) == ["own"]


@pytest.mark.parametrize(
    ("judged", "fault"),
    [
        ("q0\td999\t1\n", "line 2: there is no document with the id 'd999'"),
        ("q0\td0\t1\nq999\td0\t1\n", "line 3: there is no query with the id 'q999'"),
        ("q0\td0\tyes\n", "score must be a whole number, but is 'yes'"),
        ("q0\td0\t0\n", "no document is relevant to any query"),
    ],
)
def test_faulty_judgements(
    judged: str, fault: str, model_folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_beir(tmp_path / "own", judged=judged)
    assert run_command(["evaluate", model_folders["llama"], "--data", str(tmp_path)]) == 2
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--benchmark", "MTEB(eng, v22)"], "Did you mean MTEB(eng, v2)"),
        (["--tasks", "NFCorpusX"], "Did you mean NFCorpus"),
        (["--benchmark", "MTEB(eng, v2)", "--tasks", "NFCorpus"], "MTEB(eng, v2) has no task NFCorpus"),
        (["--benchmark", "MTEB(eng, v2)", "--data", "."], "give one of the two"),
        (["--benchmark", "MTEB(eng, v2)", "--pooling", "all"], "one pooling and one width at a time"),
        (["--tasks", "NFCorpus"], "The task NFCorpus cannot be loaded from the hub"),
        (["--tasks", "CQADupstackRetrieval"], "cannot be loaded from the hub"),
        (["--tasks", "CIFAR10"], "The task CIFAR10 is of image"),
    ],
)
def test_what_cannot_be_run(
    arguments: list[str], told: str, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["evaluate", model_folders["llama"], *arguments]) == 2
    assert told in capsys.readouterr().err
