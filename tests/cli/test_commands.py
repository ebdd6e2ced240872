"""The command line as a user meets it: what it writes, its messages, its exit codes; nothing half-written."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from embedsmith.cli import run_command
from embedsmith.model.embedder import Embedder
from embedsmith.settings.recipe import describe_settings, load_config
from embedsmith.support.display import TrainingDisplay, encoding_progress
from tests.cli.edits import replace_text
from tests.tiny import TEXTS


def test_train_evaluate_and_load(work: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(work) == 0
    run = Path("runs/r")
    assert sorted(path.name for path in run.iterdir()) == [
        "README.md",
        "adapter",
        "checkpoints",
        "metrics.jsonl",
        "outcome.json",
        "run.yaml",
    ]
    assert sorted(path.name for path in (run / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "embedding.json",
    ]
    assert "dev Spearman" in capsys.readouterr().out
    assert Embedder.load("runs/r", precision="fp32").encode(TEXTS).shape == (len(TEXTS), 64)

    assert run_command(["evaluate", "runs/r", "--data", "sts", "--tasks", "dev", "--out", "out/results.json"]) == 0
    result = json.loads(Path("out/results.json").read_text())
    assert result["model"] == "runs/r"
    assert result["tasks"]["dev"]["num_pairs"] == 24
    assert run_command(["evaluate", "runs/r", "--data", "sts", "--pooling", "all", "--out", "all.json"]) == 0
    assert list(json.loads(Path("all.json").read_text())) == [
        f"runs/r ({p})" for p in ("last", "mean", "weighted_mean", "concat")
    ]


def test_widths_are_trained_recorded_and_scored(work: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*work, "--matryoshka_dims", "[8, 32]"]) == 0
    assert json.loads(Path("runs/r/adapter/embedding.json").read_text())["matryoshka_dims"] == [8, 32, 64]
    assert "`embedder.encode(texts, dim=8)` gives shorter vectors" in Path("runs/r/README.md").read_text()
    command = ["evaluate", "runs/r", "--data", "sts", "--out", "out.json"]
    assert run_command([*command, "--dims", "8", "64"]) == 0
    results = json.loads(Path("out.json").read_text())
    assert list(results) == ["runs/r (8 dimensions)", "runs/r (64 dimensions)"]
    assert run_command(command) == 0
    assert json.loads(Path("out.json").read_text())["tasks"] == results["runs/r (64 dimensions)"]["tasks"]
    assert run_command([*command, "--dim", "8", "--dim", "9", "--pooling", "all"]) == 0
    assert list(json.loads(Path("out.json").read_text()))[:2] == [
        "runs/r (last) (8 dimensions)",
        "runs/r (last) (9 dimensions)",
    ]
    capsys.readouterr()
    assert run_command([*command, "--dims", "65"]) == 2
    assert "dim is 65, but the model's embeddings have 64 dimensions" in capsys.readouterr().err


def test_scored_pairs_are_trained_on(work: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*work, "--data.train", "sts/dev.tsv", "--loss", "angle"]) == 0
    assert "24 scored pairs, 6 steps of 6" in capsys.readouterr().out
    assert "on 24 scored pairs in 6 steps" in Path("runs/r/README.md").read_text()


def test_the_same_command_gives_the_same_adapter(work: list[str]) -> None:
    for name in ("runs/a", "runs/b"):
        work[2] = name
        assert run_command(work) == 0
    first, second = (Path(name) / "adapter" / "adapter_model.safetensors" for name in ("runs/a", "runs/b"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--lerning_rate", "1"], "Did you mean training.learning_rate?"),
        (["--batch_size", "many"], "training.batch_size"),
        (["--data.train", "nowhere.tsv"], "nowhere.tsv: no such file"),
        (["--dev", "nowhere.tsv"], "nowhere.tsv: no such file"),
        (["--config", "nowhere.yaml"], "no configuration file nowhere.yaml"),
        (["--model.model", "who/nobody"], "There is no model 'who/nobody'"),
        (["--batch_size", "41"], "only 40 rows without a common text"),
        (["--target_modules", "[w_pack]"], "w_pack: the model has no such layer"),
        (["--prompt", "'no field'"], "model.prompt: must hold {text} once"),
        (["--seed"], "--seed has no value"),
        (["stray"], "'stray' stands where a setting was expected"),
        (["--data.train", "t.tsv", "u.tsv"], "--data.train takes one value: several as --data.train '[a, b]'"),
        (["--warmup_steps", "6"], "would never reach its peak"),
        (["--loss", "cosent"], "training.loss is cosent, but data.train (t.tsv) holds triplets"),
        (["--data.train", "[t.tsv, sts/dev.tsv]"], "sts/dev.tsv: holds scored pairs, but t.tsv holds triplets"),
        (["--matryoshka_dims", "[65]"], "names 65, but the model's embeddings have 64"),
        (["--teacher", "who/nobody", "--guide", "true"], "There is no model 'who/nobody'"),
        (["--teacher", "who/nobody"], "but nothing asks it"),
    ],
)
def test_faults_end_in_exit_2_before_anything_is_written(
    work: list[str], change: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([*work, *change]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_a_prompt_that_cannot_be_computed_once_is_said(work: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told = "The prompt is computed anew with every text"
    once = [*work, "--model.prompt", "the {text}"]
    assert run_command(once) == 0
    assert told not in capsys.readouterr().out
    anew = [*once, "--bidirectional_layers", "1", "--output_dir", "runs/other"]
    assert run_command(anew) == 0
    assert f"{told}: attention goes both ways." in capsys.readouterr().out


def test_a_run_folder_that_exists_is_left_alone(work: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/r").mkdir(parents=True)
    Path("runs/r/mine.txt").write_text("keep")
    assert run_command(work) == 2
    assert "runs/r exists already" in capsys.readouterr().err
    assert Path("runs/r/mine.txt").read_text() == "keep"


def test_ctrl_c_leaves_nothing_half_written(
    work: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("embedsmith.verbs.train.train_adapter", interrupt)
    assert run_command(work) == 130
    assert "Stopped." in capsys.readouterr().err
    assert not Path("runs/r").exists()


def test_ctrl_c_later_keeps_the_best_adapter_and_resumes(work: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    work += ["--save_steps", "2", "--eval_steps", "2"]
    assert run_command(work) == 0
    whole = Path("runs/r/adapter/adapter_model.safetensors").read_bytes()
    work[2] = "runs/s"
    original = TrainingDisplay.update

    def stop_at_5(self: object, record: dict[str, object]) -> None:
        original(self, record)
        if record["step"] == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingDisplay, "update", stop_at_5)
        assert run_command(work) == 130
    assert Path("runs/s/adapter").exists()
    assert run_command(["train", "--resume", "runs/s"]) == 0
    assert Path("runs/s/adapter/adapter_model.safetensors").read_bytes() == whole
    assert run_command(["train", "--resume", "runs/s", "--seed", "3"]) == 2
    assert run_command(["train", "--resume", "runs"]) == 2


def test_a_full_disk(work: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/r/adapter")

    monkeypatch.setattr("embedsmith.model.trained.save_adapter", full)
    assert run_command(work) == 2
    assert "The disk is full: runs/r/adapter" in capsys.readouterr().err
    assert not Path("runs/r").exists()


def test_doctor(work: list[str], model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["doctor", model_folders["qwen3"], "--max-length", "64"]
    assert run_command([*arguments, "--text", "the cat runs"]) == 0
    assert "<s>:1 the:" in capsys.readouterr().out
    assert run_command([*arguments, "--prompt", "{text} </s> cat"]) == 2
    captured = capsys.readouterr()
    assert "WRONG" in captured.out
    assert "Remove the end token" in captured.err


def test_data_triplets(work: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("nli.csv").write_text("a,b,y\nA man eats.,He eats.,0\nA man eats.,He sleeps.,2\n")
    columns = "{premise: a, hypothesis: b, label: y}"
    assert run_command(["data", "triplets", "nli.csv", "--out", "made.tsv", "--columns", columns]) == 0
    assert Path("made.tsv").read_text() == "anchor\tpositive\tnegative\nA man eats.\tHe eats.\tHe sleeps.\n"
    assert run_command(["data", "triplets", "nli.csv", "--out", "other.tsv"]) == 2
    assert "no usable columns: it has a, b, y" in capsys.readouterr().err
    assert run_command(["data", "triplets", "nli.csv", "--out", "other.tsv", "--columns", "a"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "who/nobody", "--data", "sts"], "There is no model"),
        (["evaluate", "x", "--data", "sts", "--tasks", "STS12"], "has no task STS12"),
        (["evaluate", "x", "--data", "sts", "--pooling", "cls"], "--pooling is 'cls'"),
        (["evaluate"], "Missing argument"),
        (["explode"], "No such command"),
        (["train", "--resume", "nowhere"], "nowhere is no run folder: there is no such folder"),
        (["export", "./nowhere", "out", "--to", "gguf"], "no model './nowhere' that can be loaded: there is no such"),
    ],
)
def test_other_faults(work: list[str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments) == 2
    assert message in capsys.readouterr().err


def test_trackers_must_be_installed(
    work: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert run_command([*work, "--report_to", "tensorboard"]) == 2
    assert "embedsmith[tensorboard]" in capsys.readouterr().err


def test_errors_of_the_programmer_keep_their_traceback(work: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr("embedsmith.verbs.prepare.load_triplets", broken)
    with pytest.raises(AssertionError, match="a bug"):
        run_command(work)


def test_the_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["train", "--settings"]) == 0
    text = capsys.readouterr().out
    assert "training.learning_rate" in text
    assert "Peak, reached after the warm-up." in text


def test_every_setting_has_a_meaning() -> None:
    assert all(meaning for _, _, meaning in describe_settings())


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "MODEL", "--data", "sts"],
        ["compare", "MODEL", "MODEL", "--data", "sts"],
        ["report", "MODEL", "--data", "sts", "--out", "p.html"],
        ["baseline", "MODEL", "--dev", "sts/dev.tsv", "--prompts", "none"],
    ],
    ids=lambda command: command[0],
)
def test_what_a_command_advises_it_takes(
    command: list[str], work: list[str], model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    replace_text("sts/dev.tsv", "sentence1\tsentence2", "a\tb")
    command = [model_folders["llama"] if part == "MODEL" else part for part in command]
    assert run_command(command) == 2
    assert "name them with --columns" in capsys.readouterr().err
    assert run_command([*command, "--columns", "{sentence1: a, sentence2: b}"]) == 0
    assert run_command([*command, "--columns", "a"]) == 2
    assert "--columns must be a mapping such as" in capsys.readouterr().err


@pytest.mark.parametrize("behind", [[], ["--data", "sts"]])
def test_a_list_without_a_value_is_refused(
    behind: list[str], work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["evaluate", "MODEL", "--tasks", *behind]) == 2
    assert "--tasks has no value" in capsys.readouterr().err


def test_names_behind_a_double_dash(
    work: list[str], model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_folders["llama"], "--tasks")
    assert run_command(["evaluate", "--data", "sts", "--", "--tasks"]) == 0
    assert "--tasks" in capsys.readouterr().out


def test_a_terminal_that_cannot_show_a_name(work: list[str], model_folders: dict[str, str]) -> None:
    shutil.copytree(model_folders["llama"], "mü")
    command = [sys.executable, "-m", "embedsmith", "evaluate", "mü", "--data", "sts", "--out", "r.json"]
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "m\\xfc" in done.stdout
    assert json.loads(Path("r.json").read_text(encoding="utf-8"))["model"] == "mü"


def test_the_home_folder_in_every_path(
    work: list[str], model_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path.cwd() / "home"
    shutil.copytree(model_folders["llama"], home / "m")
    shutil.move("sts", home / "sts")
    shutil.move("t.tsv", home / "t.tsv")
    monkeypatch.setenv("HOME", str(home))
    assert run_command(["evaluate", "~/m", "--data=~/sts", "--out=~/r.json"]) == 0
    assert run_command(["compare", "~/m", "~/r.json", "--data", "~/sts", "--out", "~/c.json"]) == 0
    assert run_command(["baseline", "~/m", "--dev", "~/sts/dev.tsv", "--prompts", "none", "--out", "~/b.json"]) == 0
    assert run_command(["data", "check", "~/t.tsv", "--against", "~/sts", "--no-near", "--out", "~/l.json"]) == 0
    settings = {"output_dir": "~/run", "data.train": "~/t.tsv", "dev": "~/sts/dev.tsv", "model.model": "~/m"}
    assert run_command([*work, *(part for key, value in settings.items() for part in (f"--{key}", value))]) == 0
    assert run_command(["card", "~/run", "--results", "~/r.json"]) == 2  # another model's
    assert run_command(["report", "~/run", "--no-training-data"]) == 0
    found = {path.name for path in home.iterdir()}
    assert found >= {"r.json", "r.similarities.safetensors", "c.json", "b.json", "l.json", "run"}
    assert not list(Path.cwd().glob("~*"))


@pytest.fixture
def unrankable(work: list[str]) -> str:
    """A set beside `dev` whose pairs all have cosine 1: nothing to rank."""
    rows = "".join(f"w{row} cat\tw{row} cat\t{row}\n" for row in range(24))
    Path("sts/alike.tsv").write_text(f"sentence1\tsentence2\tscore\n{rows}")
    return "The model's similarities on alike cannot be ranked"


def test_a_task_that_cannot_be_ranked_takes_no_other_with_it(
    unrankable: str, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_folders["llama"]
    assert run_command(["evaluate", model, "--data", "sts", "--tasks", "dev", "--out", "alone.json"]) == 0
    capsys.readouterr()
    assert run_command(["evaluate", model, "--data", "sts", "--out", "r.json"]) == 2
    told = capsys.readouterr()
    assert unrankable in told.err
    assert "average of 1" in told.out
    alone, both = (json.loads(Path(name).read_text()) for name in ("alone.json", "r.json"))
    assert both["tasks"] == alone["tasks"]
    assert both["average"] == alone["average"]
    assert unrankable in both["failures"]["alike"]

    assert run_command(["compare", "r.json", model, "--data", "sts", "--out", "c.json"]) == 2
    told = capsys.readouterr()
    assert "verdict: cannot tell" in told.out
    assert unrankable in told.err
    assert list(json.loads(Path("c.json").read_text())[0]["tasks"]) == ["dev"]
    assert run_command(["compare", "r.json", "r.json", "--tasks", "dev"]) == 0  # what failed was not asked for
    assert run_command(["report", model, "--data", "sts", "--out", "p.html"]) == 2
    assert unrankable in capsys.readouterr().err
    assert unrankable in " ".join(Path("p.html").read_text().replace("&#39;", "'").split())

    Path("sts/dev.tsv").unlink()
    assert run_command(["evaluate", model, "--data", "sts", "--out", "none.json"]) == 2
    assert unrankable in capsys.readouterr().err
    assert not Path("none.json").exists()


def test_names_are_printed_as_they_are(
    work: list[str], model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "m [red]x[/red] :cat:, ü"
    shutil.copytree(model_folders["llama"], odd)
    Path("sts").rename("sts [bold]")
    for command in (["evaluate", odd, "--data", "sts [bold]", "--out", "[x].json"], ["compare", odd, "[x].json"]):
        assert run_command([*command, *(["--data", "sts [bold]"] if command[0] == "compare" else [])]) == 0
        assert odd in capsys.readouterr().out
    assert run_command(["train", "--settings"]) == 0
    assert "[a, b], of numbers and layer names also a,b. Mappings: {a: b}." in capsys.readouterr().out


def test_progress_prints_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, width=200)
    with encoding_progress(console) as (start, advance):
        start("[/red] [x]")
        advance(3)
    assert "[/red] [x]: " in capsys.readouterr().out


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--help"]) == 0
    assert "doctor" in capsys.readouterr().out


def test_published_results_stand_under_measured_ones(
    work: list[str], model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    named = Path("MiniCPM-2B-dpo-bf16")
    shutil.copytree(model_folders["llama"], named)
    for model, is_known in ((str(named), True), (model_folders["llama"], False)):
        assert run_command(["evaluate", model, "--data", "sts"]) == 0
        assert ("Published results of MiniCPM-2B" in capsys.readouterr().out) == is_known


def test_an_adapter_has_its_bases_published_results_wherever_that_lies_now(
    work: list[str], model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    named = Path("MiniCPM-2B-dpo-bf16")
    shutil.copytree(model_folders["llama"], named)
    assert run_command([*work, "--model.model", str(named), "--output_dir", "runs/on-it"]) == 0
    named.rename("moved")
    Path("runs/on-it/adapter").rename("ours")
    shutil.copytree("ours", "theirs")
    Path("theirs/embedding.json").unlink()
    for adapter in ("ours", "theirs"):
        assert run_command(["evaluate", adapter, "--data", "sts", "--base-model", "moved"]) == 0
        assert "Published results of MiniCPM-2B" in capsys.readouterr().out


def test_what_is_odd_in_the_data_is_said_before_training(
    work: list[str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"q": f"w{k} cat", "pos": [f"w{k} roof"], "bad": [f"w{k} sea", "w9"][: k % 3], "id": k} for k in range(9)]
    rows[4]["bad"] = ["w1 sea", "w4  cat"]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [
        "t.jsonl: columns that are not used: id",
        "1 row teaches the wrong thing: a negative equals the anchor; the first: t.jsonl, line 5",
    ]
    columns = "{anchor: q, negative: [bad]}"
    model = work[work.index("--model.model") + 1]
    commands = [
        [*work, "--data.train", "t.jsonl", "--data.columns", columns, "--batch_size", "2"],
        ["data", "stats", "t.jsonl", "--columns", columns, "--model", model],
        ["data", "check", "t.jsonl", "--columns", columns, "--against", "sts/dev.tsv", "--no-near"],
    ]
    for command in commands:
        caplog.clear()
        assert run_command(command) == 0
        assert [record.message for record in caplog.records if record.name.startswith("embedsmith.data")] == said
    assert "9 triplets with 0 to 2 negatives each, 6 steps of 2" in capsys.readouterr().out
    assert "on 9 triplets with 0 to 2 negatives each in 6 steps" in Path("runs/r/README.md").read_text()
    assert run_command(["data", "stats", "t.jsonl", "--model", model]) == 2
    assert "no usable columns: it has q, pos, bad, id" in capsys.readouterr().err


def test_paths_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop.tsv").symlink_to(tmp_path / "loop.tsv")
    for path in ("a" * 5000 + ".tsv", str(tmp_path / "file" / "x.tsv"), str(tmp_path / "loop.tsv")):
        for command in (["data", "stats", path], ["data", "check", "sample", "--no-near", "--against", path]):
            assert run_command(command) == 2
            message = capsys.readouterr().err
            assert any(why in message for why in ("too long", "no such file", "cannot be read", "symbolic links"))
            assert len(message) < 600


@pytest.mark.parametrize("arguments", [["--data", ""], ["--data="], ["--data", " ", "--tasks", "A"], ["--out", ""]])
def test_an_empty_path_is_not_the_folder_at_work(
    arguments: list[str], model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["evaluate", model_folders["llama"], *arguments]) == 2
    assert f"{arguments[0].rstrip('=')} is empty.\nIs a variable of your shell not set?" in capsys.readouterr().err


def test_an_instruction_without_a_place_is_refused(
    model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["evaluate", model_folders["llama"], "--instruction", "x"]) == 2
    assert "An instruction is given, but no prompt holds {instruction}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_full_memory_says_what_to_lower(
    error: Exception, work: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("embedsmith.training.loop.take_step", fill)
    assert run_command(work) == 2
    assert "The memory is full" in (told := capsys.readouterr().err)
    assert "lower training.max_tokens" in told


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "MODEL", "--data", "sts"],
        ["evaluate", "MODEL", "--data", "sts", "--pooling", "all"],
        ["export", "MODEL", "out", "--to", "merged"],
        ["doctor", "MODEL"],
        ["baseline", "MODEL", "--dev", "sts/dev.tsv"],
        ["compare", "MODEL", "MODEL,MODEL", "--data", "sts"],
        ["report", "MODEL", "--data", "sts", "--out", "report.html"],
        ["demo", "--output-dir", "demo"],
        ["plan", "--model.model", "MODEL", "--data.train", "t.tsv"],
        ["sweep", "--config", "recipe.yaml", "--grid", "lora_r=4,8", "--output_dir", "s"],
        ["optimize", "--config", "search.yaml", "--output_dir", "s"],
        ["train", "--model.model", "MODEL", "--data.train", "t.tsv", "--output_dir", "runs/r"],
        ["train", "--resume", "stopped"],
    ],
    ids=" ".join,
)
def test_a_device_that_is_not_there_is_refused_by_every_command(
    command: list[str], work: list[str], model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_config(overrides={"output_dir": "s", "model.model": model_folders["llama"], "data.train": "t.tsv"})
    Path("recipe.yaml").write_text(settings.to_yaml())
    search = "{recipe: recipe.yaml, space: {lora_r: [4, 8]}, settings: {max_steps: 9}, trials: 2, output_dir: s}"
    Path("search.yaml").write_text(search)
    Path("stopped").mkdir()
    Path("stopped/run.yaml").write_text(settings.to_yaml())
    before = sorted(Path().rglob("*"))
    named = [part.replace("MODEL", model_folders["llama"]) for part in command]
    assert run_command([*named, "--device", "cuda:7"]) == 2
    assert "device is 'cuda:7', which cannot be had here" in capsys.readouterr().err
    assert set(Path().rglob("*")) - set(before) <= {
        Path("cache"),
        *Path("cache").rglob("*"),
        Path("s"),
        *Path("s").rglob("*"),
    }


def test_the_device_of_a_run_may_be_named(work: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*work, "--device", "cpu"]) == 0
    assert "(float32, cpu, fused blocks" in capsys.readouterr().out
    work[2] = "runs/other"
    assert run_command([*work, "--device", "meta"]) == 2
    assert not Path("runs/other").exists()
