"""The plan counts what the run will do: the same steps, tokens and evaluations, and it writes nothing."""

from pathlib import Path

import pytest

from embedsmith.cli import run_command
from embedsmith.data.triplets import load_triplets
from embedsmith.settings.recipe import load_config
from embedsmith.training.metrics import read_metrics
from embedsmith.verbs.plan import plan_run
from embedsmith.verbs.train import train
from tests.tiny import save_teacher, write_pairs, write_triplets


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"eval_at_start": "false", "eval_steps": "4"},
        {"use_hard_negatives": "false"},
        {"one_source_batches": "true"},
    ],
)
def test_a_plan_counts_what_the_run_does(
    changes: dict[str, str], model_folders: dict[str, str], tmp_path: Path, cache: Path
) -> None:
    names = [str(write_triplets(tmp_path / f"{rows}.tsv", num_rows=rows, first=rows)) for rows in (40, 20)]
    settings = {
        "output_dir": str(tmp_path / "run"),
        "model.model": model_folders["llama"],
        "max_length": "64",
        "data.train": f"[{', '.join(names)}]",
        "dev": str(write_pairs(tmp_path / "dev.tsv")),
        "batch_size": "6",
        "max_steps": "6",
        "warmup_steps": "1",
    }
    config = load_config(overrides={**settings, **changes})
    plan = plan_run(config)
    assert not (tmp_path / "run").exists()
    run = train(config)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert plan.num_steps == run.outcome.num_steps
    assert plan.total_tokens == pytest.approx(run.outcome.num_tokens)
    assert plan.num_evaluations == sum("dev_cosine_spearman" in record for record in records)
    assert plan.num_epochs == pytest.approx(0.6)
    assert plan.total_s == pytest.approx(plan.start_s + 6 * plan.step_s + plan.num_evaluations * plan.evaluation_s)
    assert min(plan.step_s, plan.evaluation_s, plan.start_s) > 0
    assert [source.num_batches for source in plan.sources] == ([4, 2] if "one_source_batches" in changes else [])
    assert plan.peak_bytes > 50e6  # torch alone takes more
    assert plan.num_processes == 8  # of whom each has two texts, of 64 dimensions, for seven others
    assert plan.embedding_bytes == 7 * 2 * 64 * 4
    assert plan.gradient_bytes == 2 * 7 / 8 * run.outcome.num_trained * 4


def test_a_teacher_is_asked_once_about_all_texts(
    model_folders: dict[str, str], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan counts its vectors, and no longer once they are kept; a run says which of both."""
    write_triplets(tmp_path / "t.tsv", num_rows=60)
    settings = ["--model.model", model_folders["llama"], "--max_length", "64", "--data.train", str(tmp_path / "t.tsv")]
    settings += ["--dev", "none", "--max_steps", "2", "--batch_size", "4", "--teacher", str(save_teacher(tmp_path))]
    table = load_triplets([str(tmp_path / "t.tsv")])
    num_texts = sum(map(len, table.texts_by_side(with_negatives=True).values()))
    runs = {"a": ["--embedding_weight", "0.5"], "b": ["--distill_weight", "0.5"]}
    for number, (name, method) in enumerate(runs.items()):
        assert run_command(["plan", *settings, *method]) == 0
        assert ("teacher's vectors" in capsys.readouterr().out) == (number == 0)
        assert run_command(["train", *settings, *method, "--output_dir", str(tmp_path / name)]) == 0
        said = "all kept before" if number else f"{num_texts:,} computed in"
        assert f"the teacher's vectors of {num_texts:,} texts: {said}" in capsys.readouterr().out
    config = load_config(
        overrides=dict(zip([key[2:] for key in settings[::2]], settings[1::2], strict=True))
        | {"output_dir": str(tmp_path / "c"), "embedding_weight": "0.5", "use_hard_negatives": "false"}
    )
    plan = plan_run(config)
    assert plan.teacher_s > 0
    assert plan.total_s == pytest.approx(plan.start_s + plan.teacher_s + 2 * plan.step_s)


def test_the_command_prints_time_tokens_and_memory(
    model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", "--model.model", model_folders["llama"], "--max_length", "64", "--data.train", "sample"]
    assert run_command([*command, "--dev", "null", "--max_steps", "2", "--batch_size", "4"]) == 0
    printed = capsys.readouterr().out
    for part in ("time in all", "tokens a second", "GB in these few steps", "0 of 0 s"):
        assert part in printed
    assert run_command(["plan", "--batch_size", "none"]) == 2
