"""init writes a recipe that trains as it stands, and says what it took the data for."""

from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from embedsmith.cli import run_command
from embedsmith.settings.data import TrainSource
from embedsmith.settings.prompts import PROMPTS, NamedPrompt
from embedsmith.settings.recipe import load_config
from tests.tiny import save_model, save_teacher, write_pairs, write_triplets
from tests.tuned import save_tuned


def _write_questions(path: Path, *, num_rows: int) -> Path:
    rows = [f"{number},w{number} cat the roof,the rain w{number} falls on it" for number in range(num_rows)]
    path.write_text("\n".join(["id,question,answer", *rows, ""]), encoding="utf-8")
    return path


def _save_model_that_knows(prompt: NamedPrompt, folder: Path) -> Path:
    """Whose tokenizer gives the parts of a prompt back as they are."""
    save_model("llama", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([part.strip() for part in prompt.template.split("{text}")])
    tokenizer.save_pretrained(folder)
    return folder


def test_from_a_csv_to_a_run(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    prompt = PROMPTS["pretended-cot"]
    model = _save_model_that_knows(prompt, tmp_path / "model")
    _write_questions(tmp_path / "mine.csv", num_rows=40)
    assert run_command(["init", "mine.csv", "--model", str(model)]) == 0
    printed = capsys.readouterr().out
    assert "anchor (column question, guessed): 40 distinct texts" in printed
    assert (printed + caplog.text).count("columns that are not used: id") == 1
    assert "data mine mine.csv --columns '{anchor: question, positive: answer}'" in printed
    assert printed.endswith("Next: embedsmith train --config recipe.yaml\n")
    config = load_config(tmp_path / "recipe.yaml")
    assert config.data.columns == {"anchor": "question", "positive": "answer"}
    assert (config.training.batch_size, config.training.max_steps) == (4, 30)
    assert (config.model.prompt, config.model.end_token) == (prompt.template, False)
    assert "Foretold for this machine" in (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    assert run_command(["train", "--config", "recipe.yaml", "--max_steps", "3", "--warmup_steps", "1"]) == 0
    assert (tmp_path / "runs" / "mine" / "adapter").is_dir()


def test_a_recipe_is_never_overwritten(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("output_dir: mine\n", encoding="utf-8")
    assert run_command(["init", "sample", "--no-plan"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "recipe.yaml").read_text(encoding="utf-8") == "output_dir: mine\n"


@pytest.mark.parametrize(("num_rows", "batch_size", "max_steps"), [(8, 2, 12), (700, 64, 32), (4000, 64, 125)])
def test_the_run_follows_the_size_of_the_data(
    num_rows: int,
    batch_size: int,
    max_steps: int,
    tmp_path: Path,
    cache: Path,
    model_folders: dict[str, str],
) -> None:
    data, out = _write_questions(tmp_path / "mine.csv", num_rows=num_rows), tmp_path / "r.yaml"
    assert run_command(["init", str(data), "--model", model_folders["llama"], "--no-plan", "--out", str(out)]) == 0
    training = load_config(out).training
    assert (training.batch_size, training.max_steps) == (batch_size, max_steps)


def test_long_texts(tmp_path: Path, cache: Path, model_folders: dict[str, str]) -> None:
    """Room for all where the longest is short, else for all but the twentieth that is longest, within bounds."""
    rows = [["rain " * 20, "cat " * 40]] * 99 + [["rain falls", "roof " * 900]]
    data, out = tmp_path / "mine.tsv", tmp_path / "r.yaml"
    data.write_text("".join("\t".join(row) + "\n" for row in [["anchor", "positive"], *rows]), encoding="utf-8")
    assert run_command(["init", str(data), "--model", model_folders["llama"], "--no-plan", "--out", str(out)]) == 0
    assert 256 < load_config(out).model.max_length < 300
    assert "longer texts are cut" in out.read_text(encoding="utf-8")


def test_texts_alone_need_a_teacher(
    tmp_path: Path, cache: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "texts.txt"
    data.write_text("".join(f"w{number} cat the roof\n" for number in range(40)), encoding="utf-8")
    options = [str(data), "--model", model_folders["llama"], "--no-plan", "--out", str(tmp_path / "r.yaml")]
    assert run_command(["init", *options]) == 2
    assert "--teacher MODEL" in capsys.readouterr().err
    teacher = str(save_teacher(tmp_path))
    assert run_command(["init", *options, "--teacher", teacher]) == 0
    assert load_config(tmp_path / "r.yaml").teacher.teacher == teacher


def test_files_with_names_of_their_own(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked into, and the recipe trains on them as it stands."""
    monkeypatch.chdir(tmp_path)
    _write_questions(tmp_path / "mine.csv", num_rows=40)
    write_triplets(tmp_path / "others.tsv", num_rows=20)
    model = str(_save_model_that_knows(PROMPTS["pretended-cot"], tmp_path / "model"))
    init = ["init", "mine.csv", "others.tsv", "--model", model, "--no-plan", "--out"]
    assert run_command([*init, "r.yaml"]) == 0
    config = load_config(tmp_path / "r.yaml")
    own = TrainSource(files="mine.csv", columns={"anchor": "question", "positive": "answer"})
    assert (config.data.train, config.data.columns) == ([own, "others.tsv"], {})
    text = (tmp_path / "r.yaml").read_text(encoding="utf-8")
    assert "# guessed: is it so?" in text and "negative (column negative): 20 distinct texts" in text
    assert run_command(["train", "--config", "r.yaml", "--max_steps", "2", "--warmup_steps", "1"]) == 0
    assert run_command([*init, "s.yaml", "--held-out", "apart"]) == 0
    assert load_config(tmp_path / "s.yaml").data.train == ["apart/train.jsonl"]


def test_a_column_that_is_taken_for_texts_alone_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its partner holds single words, which are not guessed to be texts."""
    (tmp_path / "shop.csv").write_text("asked;found\nwarm shoes;boots\nfor my feet;socks\n")
    assert run_command(["init", str(tmp_path / "shop.csv"), "--out", str(tmp_path / "r.yaml")]) == 2
    said = capsys.readouterr().err
    assert "texts alone (of the column asked, guessed)" in said and "not used: found" in said
    assert "--columns '{anchor: COLUMN" in said


def test_a_development_set_and_an_embedding_model(tmp_path: Path, cache: Path, model_folders: dict[str, str]) -> None:
    """A model that says itself how it embeds goes on so."""
    dev, out = write_pairs(tmp_path / "dev.tsv"), tmp_path / "r.yaml"
    save_tuned(model_folders["llama"], tmp_path / "run", prompt="a {text} is", end_token=False)
    options = ["--model", str(tmp_path / "run"), "--dev", str(dev), "--no-plan", "--out", str(out)]
    assert run_command(["init", "sample", *options]) == 0
    recipe = yaml.safe_load(out.read_text(encoding="utf-8"))
    assert (recipe["model"]["prompt"], recipe["model"]["end_token"]) == ("a {text} is", False)
    assert recipe["evaluation"] == {"dev": str(dev)}


def test_a_tenth_is_held_out(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training rows and test are what the next two commands take."""
    monkeypatch.chdir(tmp_path)
    model = str(save_model("llama", tmp_path / "model"))
    _write_questions(tmp_path / "mine.csv", num_rows=40)
    options = ["--model", model, "--held-out", "held", "--no-plan"]
    assert run_command(["init", "mine.csv", *options]) == 0
    printed = capsys.readouterr().out
    assert "anchor (column question, guessed)" in printed
    assert "Held out: 4 of 40 rows" in printed
    assert "--held-out FOLDER" not in printed
    assert printed.endswith(f"Then: embedsmith compare {model} runs/mine --data held/test\n")
    assert load_config(tmp_path / "recipe.yaml").data.train == ["held/train.jsonl"]
    assert run_command(["evaluate", model, "--data", "held/test"]) == 0
    assert "4 queries" in capsys.readouterr().out
    (tmp_path / "recipe.yaml").unlink()
    assert run_command(["init", "mine.csv", *options]) == 2
    assert "--held-out: held is there already" in capsys.readouterr().err
