"""`embedsmith report`: a run beside what it came from, several models, faults; what a run's folder tells."""

import json
from pathlib import Path

import pytest

from embedsmith.cli import run_command
from embedsmith.records.findings import Cost
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import RunError
from embedsmith.training.metrics import read_metrics
from embedsmith.verbs.evaluate import evaluate
from embedsmith.verbs.report import report_models
from embedsmith.verbs.run_folder import OUTCOME_FILE, read_run
from embedsmith.verbs.train import Run, train
from tests.tiny import write_pairs, write_triplets


@pytest.fixture
def run(tmp_path: Path, cache: Path, model_folders: dict[str, str]) -> Run:
    settings = {
        "output_dir": str(tmp_path / "run"),
        "model.model": model_folders["llama"],
        "model.pooling": "mean",
        "max_length": "64",
        "data.train": str(write_triplets(tmp_path / "t.tsv", num_rows=60)),
        "dev": str(write_pairs(tmp_path / "dev.tsv")),
        "batch_size": "6",
        "max_steps": "4",
        "warmup_steps": "1",
    }
    return train(load_config(overrides=settings))


def test_a_run_is_put_beside_what_it_was_trained_from(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["report", run.config.output_dir]) == 0
    printed = capsys.readouterr().out
    assert "run is " in printed or "Whether run is better" in printed
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "untrained (mean)" in page
    assert "60 triplets" in page
    assert "texts overlap" in page or "clean" in page
    assert run.dev is not None
    assert f"{100 * run.dev.average:.1f} [" in page  # the saved adapter scores what the run said


def test_several_models_on_tasks_of_a_folder(run: Run, tmp_path: Path, model_folders: dict[str, str]) -> None:
    (tmp_path / "sts").mkdir()
    write_pairs(tmp_path / "sts" / "one.tsv", num_rows=40)
    write_pairs(tmp_path / "sts" / "two.tsv", num_rows=30)
    models = [model_folders["gemma"], run.config.output_dir]
    content = report_models(models, out=tmp_path / "r.html", data=tmp_path / "sts", with_data=False)
    assert [title for title, _ in content.analysis.rows] == ["gemma", "run"]
    assert list(content.analysis.rows[0][1].tasks) == ["one", "two"]
    assert content.analysis.focus == "one"
    assert content.data is None
    scored = evaluate(run.config.output_dir, data=tmp_path / "sts")[run.config.output_dir]
    assert content.analysis.rows[1][1].average == pytest.approx(scored.average)


def test_training_data_that_is_gone_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").unlink()
    content = report_models([run.config.output_dir], out=tmp_path / "r.html")
    [remark] = content.remarks
    assert "cannot be looked into any more" in remark
    assert "cannot be looked into any more" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_folder_tells_what_the_run_took(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    outcome = json.loads((folder / OUTCOME_FILE).read_text())
    assert outcome["cost"]["num_steps"] == 4
    assert outcome["cost"]["num_tokens"] == run.outcome.num_tokens
    assert outcome["cost"]["peak_bytes"] > 50e6  # torch alone takes more
    record = read_run(folder, title="mine")
    assert record.title == "mine"
    assert list(record.metrics) == read_metrics(folder / "metrics.jsonl")
    assert {"model", "data", "kept", "training time", "peak memory", "energy", "software", "system"} <= set(
        record.facts
    )
    (folder / OUTCOME_FILE).write_text("{}")
    with pytest.raises(RunError, match="not the folder of a finished run"):
        read_run(folder, title="mine")


def test_energy_is_what_the_assumptions_say() -> None:
    on_cpu = Cost(num_steps=1, num_tokens=1, elapsed_s=1800, peak_bytes=1, num_threads=4, num_gpus=0)
    assert on_cpu.energy_wh == pytest.approx(20)  # 4 threads of 10 W for half an hour
    on_gpus = Cost(num_steps=1, num_tokens=1, elapsed_s=3600, peak_bytes=1, num_threads=1, num_gpus=2)
    assert on_gpus.energy_wh == pytest.approx(710)
    assert "350 W for each of 2 GPUs" in on_gpus.lines["energy"]
    assert "not measured" in on_cpu.lines["energy"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{model}"], "name a file with --out"),
        (["nowhere/run"], "There is no folder nowhere/run."),
        (["{tmp}/nothing", "--out", "{tmp}/r.html"], "There is no model"),
        (["{model}", "--out", "{tmp}/r.html", "--data", "{tmp}/nothing"], "There is no data folder"),
    ],
)
def test_faults(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    cache: Path,
    model_folders: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [argument.format(model=model_folders["llama"], tmp=tmp_path) for argument in arguments]
    assert run_command(["report", *filled]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()
