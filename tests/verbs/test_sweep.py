"""Sweeps: cells checked together, killed == uninterrupted, shared runs, failures recorded."""

import json
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from embedsmith.cli import run_command
from embedsmith.cli.sweep_commands import read_axes
from embedsmith.model.embedder import Embedder
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import ConfigError, RunError
from embedsmith.verbs.sweep import SweepConfig, make_cells, read_sweep, report_sweep, run_sweep
from tests.tiny import write_pairs, write_triplets

SWEEPS = Path(__file__).parents[2] / "recipes" / "sweeps"
QUIET = Console(quiet=True)


@pytest.fixture
def work(model_folders: dict[str, str], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_triplets(tmp_path / "t.tsv", num_rows=40)
    write_pairs(tmp_path / "dev.tsv")
    (tmp_path / "recipe.yaml").write_text(
        "output_dir: unused\n"
        f"model: {{model: {model_folders['llama']}, max_length: 64, precision: fp32}}\n"
        "data: {train: t.tsv}\n"
        "training: {batch_size: 4, max_steps: 4, warmup_steps: 1, learning_rate: 1.0e-2}\n"
        "evaluation: {dev: dev.tsv, eval_steps: 2}\n"
    )
    return tmp_path


def _sweep(**changes: object) -> SweepConfig:
    axes = {"learning_rate": [1e-2, 1e-3], "use_hard_negatives": [True, False]}
    return SweepConfig.model_validate({"output_dir": "s", "recipe": "recipe.yaml", "axes": axes, **changes})


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_of_ours_has_sound_cells(path: Path) -> None:
    sweep = read_sweep(path, overrides={})
    cells = make_cells(sweep)
    assert sweep.output_dir == f"runs/sweep-{path.stem}"
    assert sum(cell.is_base for cell in cells) == 1
    assert all(len(cell.configs) == 2 for cell in cells)


def test_one_at_a_time_and_grid(work: Path) -> None:
    alone = make_cells(_sweep(seeds=[1, 2]))
    assert [(cell.axis, cell.label, cell.value, cell.is_base) for cell in alone] == [
        ("learning_rate", "0.01", 0.01, True),
        ("learning_rate", "0.001", 0.001, False),
        ("use_hard_negatives", "True", None, True),
        ("use_hard_negatives", "False", None, False),
    ]
    assert [config.training.seed for config in alone[0].configs] == [1, 2]
    assert [cell.label for cell in make_cells(_sweep(design="grid"))] == [
        "0.01, True",
        "0.01, False",
        "0.001, True",
        "0.001, False",
    ]


def test_an_axis_may_change_several_settings(work: Path) -> None:
    axes = {"prompt": [{"none": {"model.prompt": None}}, {"sum": {"model.prompt": "sum", "end_token": False}}]}
    none, summary = make_cells(_sweep(axes=axes))
    assert (none.is_base, summary.is_base) == (True, False)
    assert (summary.configs[0].model.end_token, summary.configs[0].model.prompt) == (
        False,
        'This sentence : "{text}" can be summarized as',
    )


def test_all_faults_show_together_before_anything_runs(work: Path) -> None:
    axes = {"learning_rate": [-1, 1e-3, 0.001], "no_such": [1], "batch_size": [1]}
    with pytest.raises(ConfigError) as caught:
        make_cells(_sweep(axes=axes))
    for part in (
        "learning_rate = -1: training.learning_rate: should be greater than 0",
        "learning_rate: 0.001 and 0.001 are the same run",
        "no_such is no setting",
        "batch_size = 1: training.batch_size",
    ):
        assert part in str(caught.value)
    assert not Path("s").exists()


def test_what_two_axes_have_in_common_runs_once(work: Path) -> None:
    sweep = _sweep()
    cells = make_cells(sweep)
    run_sweep(sweep, cells, console=QUIET)
    runs = sorted(Path("s/runs").glob("*-seed7-*"))
    assert len(runs) == 3
    assert all((run / "adapter" / "adapter_model.safetensors").exists() for run in runs)
    points = report_sweep(sweep, cells)
    assert points[0].scores == points[2].scores
    assert points[0].scores != points[1].scores
    assert json.loads(Path("s/sweep.json").read_text())[0]["scores"] == list(points[0].scores)
    page = Path("s/sweep.html").read_text()
    assert page.count("<svg") == 2
    assert not any(mark in page for mark in ("<script", "<link", " src=", 'href="http'))
    before = {run: (run / "metrics.jsonl").stat().st_mtime_ns for run in runs}
    run_sweep(sweep, cells, console=QUIET)
    assert {run: (run / "metrics.jsonl").stat().st_mtime_ns for run in runs} == before


def test_a_killed_sweep_goes_on_and_ends_the_same(work: Path) -> None:
    # Killed after the first checkpoint of the second run.
    program = (
        "import os, sys\n"
        "from embedsmith.cli import run_command\n"
        "from embedsmith.training import keeping\n"
        "saved = []\n"
        "def save_and_die(*arguments, save=keeping.save_checkpoint, **settings):\n"
        "    save(*arguments, **settings)\n"
        "    if settings['progress'].step: saved.append(1)\n"
        "    if len(saved) == 3: os._exit(9)\n"
        "keeping.save_checkpoint = save_and_die\n"
        "run_command(sys.argv[1:])\n"
    )
    command = ["sweep", "--config", "recipe.yaml", "--grid", "learning_rate=0.01,0.001", "--output_dir"]
    killed = subprocess.run([sys.executable, "-c", program, *command, "killed"], check=False)
    assert killed.returncode == 9
    assert len(list(Path("killed/runs").glob("*/result.json"))) == 1
    assert run_command([*command, "killed"]) == 0
    assert run_command([*command, "whole"]) == 0
    assert Path("killed/sweep.md").read_text() == Path("whole/sweep.md").read_text()
    for ours, theirs in zip(sorted(Path("killed/runs").iterdir()), sorted(Path("whole/runs").iterdir()), strict=True):
        if ours.is_dir():
            name = "adapter/adapter_model.safetensors"
            assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_a_run_that_fails_is_told_and_the_others_go_on(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "--config", "recipe.yaml", "--grid", "learning_rate=1e30,0.01", "--output_dir", "s"]
    assert run_command(command) == 2
    assert "learning_rate = 1e30: The model has collapsed in training." in capsys.readouterr().err.replace("\n", " ")
    points = json.loads(Path("s/sweep.json").read_text())
    assert [len(point["failures"]) for point in points] == [1, 0]
    assert points[1]["scores"][0] is not None


@pytest.mark.parametrize(
    ("name", "told"), [("t.tsv", "the training data"), ("dev.tsv", "the development set"), ("base", "the base model")]
)
def test_a_sweep_whose_files_have_changed_is_refused(
    name: str, told: str, work: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_folders["llama"], "base")
    command = ["sweep", "--config", "recipe.yaml", "--model.model", "base", "--output_dir", "s", "--grid"]
    assert run_command([*command, "learning_rate=0.01"]) == 0
    before = Path("s/sweep.json").read_bytes()
    path = Path(name) if name != "base" else Path("base/tokenizer_config.json")
    kept = path.read_text()
    path.write_text(kept.replace("w1 ", "w9 ", 1) if name != "base" else kept + " ")
    assert run_command([*command, "learning_rate=0.01,0.02"]) == 2
    assert f"-seed7-{next(Path('s/runs').glob('*-seed7-*')).name[-8:]}: {told}" in capsys.readouterr().err
    assert len(list(Path("s/runs").glob("*-seed7-*"))) == 1  # nothing was begun
    assert Path("s/sweep.json").read_bytes() == before
    path.write_text(kept)
    assert run_command([*command, "learning_rate=0.01,0.02"]) == 0


def test_a_sweep_does_not_mix_ways_of_tokenising_prompts(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "--config", "recipe.yaml", "--output_dir", "s", "--model.prompt", "the {text}", "--grid"]
    assert run_command([*command, "learning_rate=0.01"]) == 0
    path = next(Path("s/runs").glob("*/checkpoints/inputs.json"))
    values = json.loads(path.read_text())
    assert values.pop("prompt_tokens") == "apart"
    path.write_text(json.dumps(values))  # as it was written before there were two ways
    assert run_command([*command, "learning_rate=0.01,0.02"]) == 2
    assert "prompts and texts were tokenised joined, which new runs are not" in capsys.readouterr().err
    assert len(list(Path("s/runs").glob("*-seed7-*"))) == 1


def test_two_sweeps_at_once_are_refused(work: Path) -> None:
    sweep = _sweep()
    Path("s/runs").mkdir(parents=True)
    with FileLock("s/runs/.lock"), pytest.raises(RunError, match="Another sweep works in s"):
        run_sweep(sweep, make_cells(sweep), console=QUIET)


def test_faulty_sweep_files(work: Path) -> None:
    Path("bad.yaml").write_text("axes: {}\nseedz: [1]\n")
    with pytest.raises(ConfigError) as caught:
        read_sweep(Path("bad.yaml"), overrides={})
    for part in ("seedz: no such key", "axes", "recipe", "output_dir"):
        assert part in str(caught.value)
    Path("bad.yaml").write_text("output_dir: o\nrecipe: [r.yaml]\naxes: {seed: [3]}\n")
    with pytest.raises(ConfigError, match=r"(?m)^  recipe: should be a valid string$"):
        read_sweep(Path("bad.yaml"), overrides={})
    with pytest.raises(ConfigError, match=r"no sweep file nowhere\.yaml"):
        read_sweep(Path("nowhere.yaml"), overrides={})
    assert run_command(["sweep", "--config", "recipe.yaml", "--grid", "seed"]) == 2


def test_what_a_sweep_lacks_is_told_by_the_options_that_give_it(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["sweep", "--config", "recipe.yaml"]) == 2
    error = capsys.readouterr().err
    assert "output_dir: must be given in the file, or as --output_dir DIR" in error
    assert "axes: must be given in the file, or as --grid KEY=VALUE,VALUE" in error


def test_a_recipe_without_output_dir_can_be_swept(work: Path) -> None:
    recipe = Path("recipe.yaml").read_text().replace("output_dir: unused\n", "")
    Path("bare.yaml").write_text(recipe)
    command = ["sweep", "--config", "bare.yaml", "--grid", "learning_rate=0.01", "--output_dir", "s", "--report-only"]
    assert run_command(command) == 0


def test_seeds_are_no_axis(work: Path) -> None:
    for changes in (
        {"axes": {"seed": [1]}},
        {"axes": {"own": [{"low": {"training.seed": 1}}]}},
        {"settings": {"seed": 1}},
    ):
        with pytest.raises(ConfigError, match="seeds are no axis and no setting of a sweep"):
            make_cells(_sweep(**changes))


def test_the_command_line_goes_before_the_sweep_s_settings(work: Path) -> None:
    cells = make_cells(_sweep(settings={"max_steps": 3}), settings={"training.max-steps": "4"})
    assert {cell.configs[0].training.max_steps for cell in cells} == {4}


def test_a_grid_is_read_as_the_command_line_is(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = ["none", " Text {text} #sum ", "query: {text}", "yes {text}"]
    sweep = _sweep(axes=read_axes([f"model.prompt={','.join(prompts)}", "matryoshka_dims=[8],[8,32],16"]))
    cells = make_cells(sweep)
    assert [cell.configs[0].model.prompt for cell in cells[:4]] == [None, *prompts[1:]]
    assert [cell.configs[0].training.matryoshka_dims for cell in cells[4:]] == [[8], [8, 32], [16]]
    assert cells[0].is_base
    with pytest.raises(ConfigError, match="--grid names seed twice"):
        read_axes(["seed=1", "seed=2"])
    with pytest.raises(ConfigError, match="as a YAML list"):
        read_axes(["own={a: "])
    [own] = make_cells(_sweep(axes=read_axes(["own={low: {learning-rate: 1e-4, prompt: '2026-11-25 {text}'}}"])))
    assert (own.configs[0].training.learning_rate, own.configs[0].model.prompt) == (1e-4, "2026-11-25 {text}")


def test_texts_of_a_sweep_s_file_are_texts(work: Path) -> None:
    axes = "{model.instruction: [yes, 2026-11-25, null], max_length: [32]}"
    Path("s.yaml").write_text(
        f"output_dir: 007\nrecipe: recipe.yaml\nsettings: {{prompt: '{{instruction}} {{text}}'}}\naxes: {axes}\n"
    )
    sweep = read_sweep(Path("s.yaml"), overrides={})
    assert sweep.output_dir == "007"
    assert sweep.axes["model.instruction"] == ["yes", "2026-11-25", None]
    assert [cell.configs[0].model.instruction for cell in make_cells(sweep)[:3]] == ["yes", "2026-11-25", None]
    Path("twice.yaml").write_text("output_dir: a\noutput_dir: b\n")
    with pytest.raises(ConfigError, match="'output_dir' stands there twice, on line 1 and line 2"):
        read_sweep(Path("twice.yaml"), overrides={})


@pytest.mark.parametrize("seeds", ["7,x", "[", "", "7,,8"])
def test_faulty_seeds(seeds: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "--config", "recipe.yaml", "--grid", "learning_rate=0.01", "--output_dir", "s"]
    assert run_command([*command, "--seeds", seeds]) == 2
    assert "seeds." in capsys.readouterr().err


def test_a_recipe_s_settings_may_be_changed_for_all_runs(work: Path) -> None:
    cells = make_cells(_sweep(settings={"max_steps": 3}), settings={"weight_decay": "0.5"})
    assert {config.training.max_steps for cell in cells for config in cell.configs} == {3}
    assert {config.training.weight_decay for cell in cells for config in cell.configs} == {0.5}
    assert load_config("recipe.yaml").training.max_steps == 4


def test_no_model_outlives_its_run(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the next run's model would not fit beside it. One of the runs fails, which keeps nothing either."""
    made: list[weakref.ref[Embedder]] = []
    held: list[int] = []
    load = Embedder.load.__func__

    def count(cls: type[Embedder], *arguments: object, **named: object) -> Embedder:
        held.append(sum(one() is not None for one in made))
        embedder = load(cls, *arguments, **named)
        made.append(weakref.ref(embedder.backbone.model))
        return embedder

    monkeypatch.setattr(Embedder, "load", classmethod(count))
    sweep = _sweep(axes={"learning_rate": [1e-2, 1e30, 1e-3]})
    run_sweep(sweep, make_cells(sweep), console=QUIET)
    assert held == [0, 0, 0]
    failures = [point.failures for point in report_sweep(sweep, make_cells(sweep))]
    assert [len(one) for one in failures] == [0, 1, 0]
