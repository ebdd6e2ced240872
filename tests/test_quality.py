"""The comparison with what is free, in small: every contestant is scored, timed and compared; columns stay apart."""

import json
from pathlib import Path

import pytest

from benchmarks import quality, sentence_transformers_nli
from benchmarks.quality_page import comparison_svg, comparison_table
from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.verbs.evaluate import evaluate
from tests.tiny import save_encoder, save_model, write_pairs, write_triplets


def _contestants(folder: Path) -> Path:
    models = [str(save_model(family, folder / family)) for family in ("llama", "qwen3")]
    encoder = str(save_encoder(folder / "encoder"))
    lines = [
        {"label": "two seeds", "column": "triplets", "models": models, "pooling": "mean"},
        {"label": "an encoder", "column": "as it ships", "models": [encoder]},
        {
            "label": "with a prompt",
            "column": "triplets",
            "models": models[:1],
            "prompt": "so: {text}",
            "end_token": False,
        },
    ]
    path = folder / "contestants.yaml"
    path.write_text(json.dumps(lines), encoding="utf-8")  # JSON is YAML
    return path


def test_contestants_are_scored_timed_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sts = tmp_path / "sts"
    sts.mkdir()
    for name in ("first", "second"):
        write_pairs(sts / f"{name}.tsv")
    path, out = _contestants(tmp_path), tmp_path / "out"
    arguments = [str(path), "--sts", str(sts), "--tasks", "first", "second", "--rounds", "2", "--out", str(out)]
    quality.main(arguments)
    found = json.loads((out / "comparison.json").read_text())
    seeds, encoder, prompted = found["contestants"]
    expected = [
        evaluate(model, data=sts, poolings=["mean"])[f"{model} (mean)"].average
        for model in json.loads(path.read_text())[0]["models"]
    ]
    assert seeds["averages"] == pytest.approx(expected)
    assert seeds["average"] == pytest.approx(sum(expected) / 2)
    assert "difference" not in seeds
    for one in (encoder, prompted):
        assert one["difference"]["base"] == pytest.approx(seeds["average"])
        assert one["difference"]["model"] == pytest.approx(one["average"])
        assert one["sentences_per_s"] > 0

    page = comparison_table(found)
    assert page.index("**triplets**") < page.index("with a prompt") < page.index("**as it ships**")
    assert comparison_svg(found) == comparison_svg(found) == (out / "comparison.svg").read_text()
    assert page == (out / "comparison.md").read_text()

    monkeypatch.setattr(quality, "evaluate", None)  # all is scored already
    quality.main(arguments)
    assert json.loads((out / "comparison.json").read_text())["contestants"][0]["scores"] == seeds["scores"]


@pytest.mark.parametrize("kind", [[], ["--static"]], ids=["transformer", "static"])
def test_what_sentence_transformers_makes_in_the_same_time_can_be_scored(
    kind: list[str], model_folders: dict[str, str], tmp_path: Path
) -> None:
    triplets, out = write_triplets(tmp_path / "t.tsv", num_rows=2100 if kind else 200), tmp_path / "out"
    given = [model_folders["llama"], "--triplets", str(triplets), "--minutes", "0.001", "--out", str(out), *kind]
    sentence_transformers_nli.main(given)
    assert load_embedding_model(str(out)).encode(["a cat", "a dog"]).shape[0] == 2


def test_faults_in_the_list_are_named(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- {label: a, column: b, models: [x], size: 3}", encoding="utf-8")
    with pytest.raises(SystemExit, match="size"):
        quality.read_contestants(path)
    path.write_text("- {label: a, column: b, models: [x]}\n- {label: a, column: b, models: [y]}", encoding="utf-8")
    with pytest.raises(SystemExit, match="a label of its own"):
        quality.read_contestants(path)
