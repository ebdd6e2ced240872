"""The paper's recipes, started from the command line on toy checkpoints that lie as the published ones do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from embedsmith.cli import run_command
from tests.published import SAVERS
from tests.published_adapter import save_adapter_folder
from tests.tiny import save_model, write_pairs, write_triplets

RECIPES = Path(__file__).parent.parent / "recipes" / "paper"
NAMES = [path.stem for path in sorted(RECIPES.glob("*.yaml"))]
ARMS = {"no-hard-negatives", "no-hard-negatives-5e-4", *(f"learning-rate-{rate}" for rate in ("5e-3", "5e-4", "5e-5"))}
# The recipes' 1,000 steps, 100 of warm-up, and a checkpoint every 500 are too many for a test; nothing else is changed.
SHORT = ["--max_steps", "4", "--warmup_steps", "1", "--save_steps", "2"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = write_triplets(tmp_path / "nli.tsv", num_rows=130).read_text().splitlines()[1:]
    lines = ["sent0,sent1,hard_neg", *(row.replace("\t", ",") for row in rows)]
    (tmp_path / "nli_for_simcse.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "sts").mkdir()
    write_pairs(tmp_path / "sts" / "dev.tsv")
    return tmp_path


def start(name: str, run: str) -> list[str]:
    paths = {"--model.model": "model", "--data.train": "nli_for_simcse.csv", "--output_dir": run}
    return ["train", "--config", str(RECIPES / f"{name}.yaml"), *(part for pair in paths.items() for part in pair)]


def toy(name: str, folder: Path) -> Path:
    """A toy checkpoint of the recipe's model, in its published layout."""
    model = next((model for model in SAVERS if name.startswith(model)), "minicpm-2b")
    return SAVERS[model](folder)


def test_every_model_has_recipes_for_four_gpus_one_and_none_and_every_arm_has_one() -> None:
    wanted = {f"{model}{hardware}" for model in SAVERS for hardware in ("", "-4gpu", "-cpu")}
    assert wanted | ARMS == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_and_evaluates(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy(name, here / "model")
    assert run_command([*start(name, "runs/whole"), *SHORT]) == 0
    assert "fused blocks" in capsys.readouterr().out
    weights = load_file(here / "runs/whole/adapter/adapter_model.safetensors")
    assert {key.split(".")[-3] for key in weights} == {"q_proj", "v_proj"}
    assert all(weight.abs().max() > 0 for weight in weights.values())

    command = ["evaluate", "runs/whole", "--data", "sts", "--out", "results.json"]
    assert run_command(command) == 0
    assert json.loads(Path("results.json").read_text())["tasks"]["dev"]["num_pairs"] == 24


@pytest.mark.parametrize("model", SAVERS)
def test_a_killed_run_of_each_model_resumes_to_the_same_bytes(model: str, here: Path) -> None:
    toy(model, here / "model")
    assert run_command([*start(model, "runs/whole"), *SHORT]) == 0
    # Killed after the second step: what is on the disk then, and a process of its own to go on from it.
    program = (
        "import os, sys\n"
        "from embedsmith.cli import run_command\n"
        "from embedsmith.training import keeping\n"
        "def save_and_die(*arguments, save=keeping.save_checkpoint, **settings):\n"
        "    save(*arguments, **settings)\n"
        "    if settings['progress'].step: os._exit(9)\n"
        "keeping.save_checkpoint = save_and_die\n"
        "run_command(sys.argv[1:])\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, *start(model, "runs/killed"), *SHORT], check=False)
    assert killed.returncode == 9
    checkpoints = sorted(path.name for path in (here / "runs/killed/checkpoints").glob("step-*"))
    assert checkpoints == ["step-000000", "step-000002"]
    assert not (here / "runs/killed/adapter").exists()
    assert run_command(["train", "--resume", "runs/killed"]) == 0
    ours, theirs = (here / f"runs/{run}/adapter/adapter_model.safetensors" for run in ("whole", "killed"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_published_adapters_are_evaluated_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = SAVERS["minicpm-2b"](here / "model")
    save_adapter_folder(here / "adapter", base=base)
    command = ["evaluate", "adapter", "--data", "sts", "--out", "results.json"]
    assert run_command(command) == 2
    assert "name it: --base-model MODEL" in capsys.readouterr().err
    assert run_command([*command, "--base-model", "model"]) == 0
    assert json.loads(Path("results.json").read_text())["model"] == "adapter"
    assert run_command(["doctor", "adapter", "--base-model", "model"]) == 0
    assert run_command(["evaluate", "model", "--base-model", "model"]) == 2


def test_an_unlisted_family_trains_on_named_targets(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model("olmo", here / "model")
    command = [*start(NAMES[0], "runs/r"), *SHORT, "--max_length", "64"]
    values = yaml.safe_load((RECIPES / f"{NAMES[0]}.yaml").read_text())
    del values["adapter"]["target_modules"]
    (here / "recipe.yaml").write_text(yaml.safe_dump(values))
    command[2] = "recipe.yaml"
    assert run_command(command) == 2
    message = capsys.readouterr().err
    assert "No default LoRA targets are known for model_type 'olmo'" in message
    assert "--adapter.target_modules '[q_proj, v_proj]'" in message
    assert run_command([*command, "--adapter.target_modules", "[q_proj, v_proj]"]) == 0
