"""data mine: the negatives that sentence-transformers picks, in a file that trains; nothing in silence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsmith.cli import run_command
from embedsmith.data.mining import MiningRules
from embedsmith.data.triplets import load_triplets
from embedsmith.records.mined import Dropped
from embedsmith.settings.choices import CandidatePool, NegativeChoice, SearchKind, TooFew
from embedsmith.support.errors import DataError, EmbedsmithError
from embedsmith.verbs.mine import MiningModel, mine
from tests.tiny import save_encoder, write_pairs, write_triplets

NUM_ROWS = 60


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_encoder(tmp_path_factory.mktemp("mining") / "encoder", prompts={"query": "the cat "}))


@pytest.fixture
def pairs(tmp_path: Path, cache: Path) -> Path:
    """Some anchors have two positives, some positives two anchors."""
    stream = np.random.default_rng(3)
    lines = ["anchor\tpositive"]
    for row in range(NUM_ROWS):
        a, b, c = row % 50, *stream.integers(0, 12, size=2)
        lines.append(f"w{a} cat w{b}\tw{a} animal w{c} roof")
        if row % 9 == 0:
            lines.append(f"w{a} cat w{b}\tw{c} rain w{a}")
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def mined(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def mine_with(pairs: Path, out: Path, encoder: str, *, rules: MiningRules, **options: Any) -> Any:
    return mine([str(pairs)], out=out, model=MiningModel(encoder), rules=rules, **options)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"relative_margin": None}, {}),
        ({"relative_margin": 0.05}, {"relative_margin": 0.05}),
        ({"relative_margin": None, "absolute_margin": 0.1}, {"absolute_margin": 0.1}),
        (
            {"relative_margin": 0.02, "max_score": 0.8, "min_score": 0.1, "first_rank": 3},
            {"relative_margin": 0.02, "max_score": 0.8, "min_score": 0.1, "range_min": 2},
        ),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")  # of the other package and those that it imports
def test_the_same_negatives_as_sentence_transformers(
    pairs: Path, tmp_path: Path, encoder: str, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    datasets = pytest.importorskip("datasets")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    corpus = [f"w{number} roof w{number + 7} sea" for number in range(40)]
    table = load_triplets([str(pairs)])
    rows = table.rows(np.arange(len(table)))
    expected = mine_hard_negatives(
        datasets.Dataset.from_dict({"anchor": rows.anchors, "positive": rows.positives}),
        SentenceTransformer(encoder, device="cpu"),
        corpus=corpus,
        num_negatives=3,
        range_max=200,
        output_format="triplet",
        output_scores=True,
        verbose=False,
        **theirs,
    )
    wanted: dict[tuple[str, str], list[str]] = {}
    for row in expected:
        wanted.setdefault((row["anchor"], row["positive"]), []).append(row["negative"])
    texts = tmp_path / "corpus.tsv"
    texts.write_text("\n".join(["text", *corpus]) + "\n")
    report = mine_with(
        pairs,
        tmp_path / "out.jsonl",
        encoder,
        rules=MiningRules(num_negatives=3, last_rank=200, **ours),
        corpus=[str(texts)],
        with_scores=True,
    )
    found = {(row["anchor"], row["positive"]): row for row in mined(tmp_path / "out.jsonl")}
    assert {key: row["negatives"] for key, row in found.items() if row["negatives"]} == wanted
    for row in expected:
        own = found[row["anchor"], row["positive"]]
        score = own["negative_scores"][own["negatives"].index(row["negative"])]
        np.testing.assert_allclose([own["positive_score"], score], row["scores"], atol=1e-5)
    assert report.num_negatives == len(expected)
    assert report.num_negatives > 20


def test_what_comes_out_trains(
    model_folders: dict[str, str], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, dev = write_triplets(tmp_path / "rows.tsv", num_rows=40), write_pairs(tmp_path / "dev.tsv")
    out, model = tmp_path / "mined.jsonl", model_folders["llama"]
    command = ["data", "mine", str(rows), "--model", model, "--out", str(out), "--relative-margin", "none", "--scores"]
    assert run_command(command) == 0
    printed = capsys.readouterr().out
    assert "40 rows with 120 mined negatives" in printed
    table = load_triplets([str(out)])
    assert table.negatives_per_row == (4, 4)  # its own one stays
    assert table.facts.remarks == (f"{out}: columns that are not used: positive_score, negative_scores",)
    before = load_triplets([str(rows)]).rows(np.arange(40))
    after = table.rows(np.arange(40))
    assert (after.anchors, after.positives) == (before.anchors, before.positives)
    assert [own[:1] for own in after.negatives] == before.negatives
    short = ["--max_steps", "2", "--warmup_steps", "1", "--batch_size", "4", "--eval_steps", "2", "--save_steps", "2"]
    paths = ["--output_dir", str(tmp_path / "run"), "--evaluation.dev", str(dev)]
    assert run_command(["train", "--model.model", model, "--data.train", str(out), *paths, *short]) == 0


@pytest.mark.parametrize("suffix", [".jsonl", ".tsv", ".csv.gz"])
def test_every_format_holds_rows_with_fewer_negatives(pairs: Path, tmp_path: Path, encoder: str, suffix: str) -> None:
    rules = MiningRules(num_negatives=4, relative_margin=0.02, last_rank=6)
    plain, scored = tmp_path / f"plain{suffix}", tmp_path / f"scored{suffix}"
    report = mine_with(pairs, plain, encoder, rules=rules)
    mine_with(pairs, scored, encoder, rules=rules, with_scores=True)
    assert 0 < report.num_none < report.num_short < report.num_rows == report.num_written
    one, two = load_triplets([str(plain)]), load_triplets([str(scored)])
    assert one.fingerprint == two.fingerprint
    assert one.negatives_per_row == (0, 4)
    assert "positive_score" in two.facts.remarks[0]


def test_rows_with_too_few_are_dropped_if_asked(pairs: Path, tmp_path: Path, encoder: str) -> None:
    rules = MiningRules(num_negatives=4, relative_margin=0.02, last_rank=6)
    report = mine_with(pairs, tmp_path / "out.jsonl", encoder, rules=rules, too_few=TooFew.DROP)
    rows = mined(tmp_path / "out.jsonl")
    assert len(rows) == report.num_written == report.num_rows - report.num_short
    assert all(len(row["negatives"]) == 4 for row in rows)


def test_no_negative_is_a_positive_of_its_anchor(pairs: Path, tmp_path: Path, encoder: str) -> None:
    rules = MiningRules(num_negatives=50, relative_margin=None, last_rank=200)
    pools = [CandidatePool.POSITIVES, CandidatePool.ANCHORS]
    report = mine_with(pairs, tmp_path / "out.jsonl", encoder, rules=rules, pools=pools)
    positives_of: dict[str, set[str]] = {}
    rows = mined(tmp_path / "out.jsonl")
    for row in rows:
        positives_of.setdefault(row["anchor"], {row["anchor"]}).add(row["positive"])
    assert not any(positives_of[row["anchor"]] & set(row["negatives"]) for row in rows)
    assert report.dropped[Dropped.KNOWN] == sum(map(len, positives_of.values()))


def test_own_negatives_may_go(tmp_path: Path, cache: Path, encoder: str) -> None:
    rows = write_triplets(tmp_path / "rows.tsv", num_rows=20)
    rules = MiningRules(num_negatives=2, relative_margin=None)
    mine_with(
        rows, tmp_path / "out.jsonl", encoder, rules=rules, keeps_negatives=False, pools=[CandidatePool.NEGATIVES]
    )
    theirs = {negative for own in load_triplets([str(rows)]).rows(np.arange(20)).negatives for negative in own}
    found = mined(tmp_path / "out.jsonl")
    assert all(len(row["negatives"]) == 2 and set(row["negatives"]) <= theirs for row in found)


def test_going_on_ends_alike(
    pairs: Path, tmp_path: Path, cache: Path, encoder: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    rules = MiningRules(num_negatives=2, choice=NegativeChoice.RANDOM, relative_margin=None)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    mine_with(pairs, first, encoder, rules=rules)
    assert "texts are kept in" not in caplog.text
    mine_with(pairs, second, encoder, rules=rules)
    assert first.read_bytes() == second.read_bytes()
    assert caplog.text.count("texts are kept in") == 2


def test_through_an_index(pairs: Path, tmp_path: Path, encoder: str) -> None:
    pytest.importorskip("usearch")
    exact, index = tmp_path / "exact.jsonl", tmp_path / "index.jsonl"
    mine_with(pairs, exact, encoder, rules=MiningRules())
    report = mine_with(pairs, index, encoder, rules=MiningRules(), search=SearchKind.INDEX)
    assert report.recall == 1.0  # so few are all found
    assert index.read_bytes() == exact.read_bytes()


def test_instructions_are_used_or_said_not_to_be(
    tmp_path: Path, cache: Path, encoder: str, model_folders: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"query": f"w{row} cat", "pos": f"w{row} animal", "instruction": f"w{row % 2} rain"} for row in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules = MiningRules(num_negatives=1, relative_margin=None)
    mine_with(path, tmp_path / "unused.jsonl", encoder, rules=rules)
    assert "instructions are not used" in caplog.text
    caplog.clear()
    prompted = MiningModel(model_folders["llama"], prompt="{instruction} {text}", instruction="the sea")
    report = mine([str(path)], out=tmp_path / "used.jsonl", model=prompted, rules=rules)
    assert "instructions are not used" not in caplog.text
    assert report.num_negatives == 12
    assert [row["instruction"] for row in mined(tmp_path / "used.jsonl")] == [row["instruction"] for row in rows]


def test_nothing_is_written_where_nothing_is_found(pairs: Path, tmp_path: Path, encoder: str) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(
        DataError, match=r"No row has enough negatives(.|\n)*below the smallest score(.|\n)*Nothing was written"
    ):
        mine_with(pairs, out, encoder, rules=MiningRules(min_score=0.9999))
    assert not out.exists()


def test_what_cannot_be_written_shows_at_once(tmp_path: Path, cache: Path) -> None:
    taken, row = tmp_path / "taken.jsonl", tmp_path / "rows.jsonl"
    taken.write_text("")
    row.write_text('{"anchor": "a\\tb", "positive": "c"}\n{"anchor": "d", "positive": "e"}\n')
    cases: list[tuple[str, str]] = [("taken.jsonl", "exists already"), ("x.txt", "unknown format")]
    for name, message in cases:
        with pytest.raises(EmbedsmithError, match=message):
            mine([str(row)], out=tmp_path / name, model=MiningModel("nowhere"), rules=MiningRules())


def test_scored_pairs_are_refused_before_the_model_is_looked_for(tmp_path: Path, cache: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.tsv")
    with pytest.raises(DataError, match="these are scored pairs"):
        mine([str(pairs)], out=tmp_path / "out.jsonl", model=MiningModel("nowhere"), rules=MiningRules())


def test_a_text_that_the_format_cannot_hold(tmp_path: Path, cache: Path, encoder: str) -> None:
    row = tmp_path / "rows.jsonl"
    row.write_text('{"anchor": "a", "positive": "c", "neg": ["x\\ty"]}\n{"anchor": "d", "positive": "e", "neg": []}\n')
    with pytest.raises(DataError, match=r"holds a tab.*\nWrite a .jsonl"):
        mine_with(row, tmp_path / "out.tsv", encoder, rules=MiningRules())
    assert not (cache / "vectors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--relative-margin", "much"], "--relative-margin is 'much'; it must be a number, or none"),
        (["--text-column", "body"], "--text-column is the corpus's"),
        (["--candidates", "corpus"], "--candidates names the corpus, and there is none"),
        (["--corpus", "nothing.jsonl"], "nothing.jsonl: no such file"),
    ],
)
def test_options_that_do_not_fit(
    pairs: Path,
    tmp_path: Path,
    encoder: str,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    command = ["data", "mine", str(pairs), "--model", encoder, "--out", str(tmp_path / "out.jsonl"), *options]
    assert run_command(command) == 2
    assert message in capsys.readouterr().err
