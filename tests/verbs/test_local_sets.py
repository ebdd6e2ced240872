"""Duplicate and clustering sets in files: mteb's own scores, kept, compared where there is an interval."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta

from embedsmith.cli import run_command
from embedsmith.evaluation.duplicates import average_precision
from embedsmith.evaluation.mteb_encoder import model_meta
from embedsmith.evaluation.saved import load_evaluation
from embedsmith.model.embedder import Embedder
from embedsmith.support.errors import DataError
from embedsmith.verbs.compare import compare_models
from tests.evaluation.mteb_sets import FIRST, GRADES, SECOND, TOPICS, Groups, Same
from tests.tiny import write_pairs

LABELS = [int(grade > 2.5) for grade in GRADES]
TEXTS = [(topic.format(f"w{number}"), f"topic {label}") for number in range(12) for label, topic in enumerate(TOPICS)]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("sets").mkdir()
    rows = zip(FIRST, [FIRST[0], *SECOND[1:]], LABELS, strict=True)  # the first pair is one text twice
    Path("sets/same.tsv").write_text("sentence1\tsentence2\tlabel\n" + "".join(f"{a}\t{b}\t{c}\n" for a, b, c in rows))
    Path("sets/topics.jsonl").write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in TEXTS))
    return tmp_path


class Vectors(AbsEncoder):
    """Vectors looked up by text, and nothing of ours besides."""

    def __init__(self, of_text: Mapping[str, np.ndarray], meta: ModelMeta) -> None:
        self.mteb_model_meta = meta
        self._of_text = of_text

    def encode(self, inputs: Iterable[Mapping[str, Any]], **_: Any) -> np.ndarray:
        return np.stack([self._of_text[text] for batch in inputs for text in batch["text"]])


class AllGroups(Groups):
    """mteb's task over all of the texts."""

    max_document_to_embed = None

    def load_data(self, **_: Any) -> None:
        texts, labels = zip(*TEXTS, strict=True)
        self.dataset = DatasetDict({"test": Dataset.from_dict({"sentences": list(texts), "labels": list(labels)})})
        self.data_loaded = True


class AllSame(Same):
    """mteb's task over the same pairs."""

    def load_data(self, **_: Any) -> None:
        columns = {"sentence1": FIRST, "sentence2": [FIRST[0], *SECOND[1:]], "labels": LABELS}
        self.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
        self.data_loaded = True


def test_scores_are_those_of_mtebs_own_tasks_on_the_same_vectors(
    work: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["evaluate", model_folders["llama"], "--data", "sets", "--out", "r.json"]) == 0
    told = capsys.readouterr().out
    assert "v_measure" in told
    assert "60 pairs" in told
    embedder = Embedder.load(model_folders["llama"])
    texts = list(dict.fromkeys([*FIRST, *SECOND, *(text for text, _ in TEXTS)]))
    known = dict(zip(texts, embedder.encode(texts, side="query"), strict=True))
    other = Vectors(known, model_meta(embedder, model="other", embedding={}))
    expected = mteb.evaluate(other, [AllGroups(), AllSame()], cache=None, co2_tracker=False, show_progress_bar=False)
    groups, same = (one.scores["test"][0] for one in expected.task_results)
    kept = json.loads(Path("r.json").read_text())["mteb"]["scores"]
    assert kept["topics"]["score"] == pytest.approx(groups["v_measure"], abs=1e-5)
    assert 0.01 < groups["v_measure"] < 0.999  # nothing trivial is compared
    assert "ci95" not in kept["topics"]
    assert kept["same"]["score"] == pytest.approx(same["cosine_ap"], abs=1e-5)
    assert kept["same"]["ci95"][0] < kept["same"]["score"] < kept["same"]["ci95"][1]
    ranked = load_evaluation(Path("r.json")).duplicates["same"]
    assert average_precision(ranked.ranks, ranked.is_duplicate) == pytest.approx(kept["same"]["score"], abs=1e-6)
    assert ranked.ranks[0] == 60  # one text twice is the nearest pair
    assert ranked.is_duplicate.tolist() == [label == 1 for label in LABELS]

    # Again, from mteb's own result files: the same to their six digits, and with the same interval.
    assert run_command(["evaluate", model_folders["llama"], "--data", "sets", "--out", "again.json"]) == 0
    again = json.loads(Path("again.json").read_text())["mteb"]["scores"]
    assert again["same"]["ci95"] == kept["same"]["ci95"]
    for name in kept:
        assert again[name]["score"] == pytest.approx(kept[name]["score"], abs=1e-6)


def test_duplicate_sets_are_compared_and_clustering_sets_are_not(
    work: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    models = [model_folders["llama"], model_folders["mistral"]]
    for model, out in zip(models, ("a.json", "b.json"), strict=True):
        assert run_command(["evaluate", model, "--data", "sets", "--out", out]) == 0
    (saved,) = compare_models(["a.json", "b.json"], num_draws=200)
    (live,) = compare_models(models, data="sets", tasks=["same"], num_draws=200)
    assert live.average == saved.average
    assert (live.metric, live.average.num_pairs) == ("average precision", 60)
    capsys.readouterr()
    assert run_command(["compare", *models, "--data", "sets"]) == 2
    assert "topics: the score of a clustering set has no interval over its texts" in capsys.readouterr().err
    assert run_command(["compare", "a.json", "b.json", "--tasks", "topics"]) == 2
    assert "Only scored pairs, retrieval sets and duplicate sets can be compared" in capsys.readouterr().err
    text = Path("sets/same.tsv").read_text()
    Path("sets/same.tsv").write_text(text.replace("\t1\n", "\t0\n", 1))
    assert run_command(["evaluate", models[1], "--data", "sets", "--tasks", "same", "--out", "b.json"]) == 0
    with pytest.raises(DataError, match="was scored on other pairs of same"):
        compare_models(["a.json", "b.json"])


def test_columns_of_other_names_and_kinds_side_by_side(
    work: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", model_folders["llama"], "--data", "sets"]
    Path("sets/topics.jsonl").write_text(Path("sets/topics.jsonl").read_text().replace('"text"', '"body"'))
    assert run_command(command) == 2
    assert "topics.jsonl is no evaluation set: it has the columns body, label" in capsys.readouterr().err
    assert run_command([*command, "--tasks", "topics", "--columns", "{text: body}"]) == 0
    write_pairs(Path("sets/pairs.tsv"))
    capsys.readouterr()
    assert run_command([*command, "--tasks", "same", "pairs"]) == 2
    assert "duplicate sets (same) and scored pairs (pairs)" in capsys.readouterr().err
    assert (
        run_command(["report", model_folders["llama"], "--data", "sets", "--tasks", "same", "pairs", "--out", "r.html"])
        == 2
    )
    assert "Name these alone: --tasks pairs" in capsys.readouterr().err
    assert run_command(["evaluate", model_folders["llama"], "--tasks", "STS12", "--columns", "{text: body}"]) == 2
    assert "there is no --data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("a\tb\tyes\nc\td\t0\n", "line 2: label must be 0 or 1, but is 'yes'"),
        ("a\t\t1\nc\td\t2\n", "line 3: label must be 0 or 1, but is '2'"),
        ("a\tb\t1\nc\td\t1\n", "2 pairs with one and the same label"),
    ],
)
def test_faulty_labels(
    rows: str, fault: str, work: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sets/same.tsv").write_text(f"sentence1\tsentence2\tlabel\n{rows}")
    assert run_command(["evaluate", model_folders["llama"], "--data", "sets", "--tasks", "same"]) == 2
    assert fault in capsys.readouterr().err
