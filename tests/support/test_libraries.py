"""What libraries say or do unasked reaches no user: commands are run in a process of their own, and listened to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import save_model, save_teacher, write_pairs, write_triplets

SETTINGS = "--data.train train.tsv --evaluation.dev dev.tsv --training.batch_size 8 --training.max_steps 3"
COMMANDS = f"""
train --output_dir run --model.model model --training.warmup_steps 1 --training.learning_rate 0.01 {SETTINGS}
train --output_dir taught --model.model model --training.warmup_steps 1 --teacher.teacher teacher/teacher
  --teacher.distill_weight 0.5 {SETTINGS}
doctor run
export model out --to sentence-transformers
export model out-merged --to merged --dtype bf16
evaluate out-merged --data sts
data stats train.tsv
"""


def _python(code: str, *arguments: str, folder: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EMBEDSMITH_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_commands_say_nothing_on_stderr(tmp_path: Path) -> None:
    save_model("llama", tmp_path / "model")
    save_teacher(tmp_path / "teacher")
    write_triplets(tmp_path / "train.tsv", num_rows=24)
    (tmp_path / "sts").mkdir()
    write_pairs(tmp_path / "dev.tsv").rename(tmp_path / "sts" / "T.tsv")
    write_pairs(tmp_path / "dev.tsv")
    commands = COMMANDS.replace("\n  ", " ").strip().splitlines()
    code = (
        "import sys; from embedsmith.cli import run_command\n"
        "sys.exit(max(run_command(command.split()) for command in sys.argv[1:]))"
    )
    done = _python(code, *commands, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_kernels_are_fetched(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    (tmp_path / "kernels.py").write_text("def get_kernel(*names, **_):\n    raise SystemExit(f'fetches {names}')\n")
    code = (
        "import embedsmith.model.embedder, bitsandbytes, kernels; print(kernels.__file__, bitsandbytes.nn.Linear4bit)"
    )
    done = _python(code, folder=tmp_path, path=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    file, _, kind = done.stdout.split()
    assert file == str(tmp_path / "kernels.py")
    assert kind == "'bitsandbytes.nn.modules.Linear4bit'>"


def test_what_quantises_is_loaded_for_what_is_quantised_alone(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    save_model("llama", tmp_path / "model")
    code = (
        "import sys\n"
        "from embedsmith.model.embedder import Embedder\n"
        "from embedsmith.settings.config import AdapterSection\n"
        "for quantization in ('none', '4bit'):\n"
        "    embedder = Embedder.load('model', precision='fp32', quantization=quantization, device='cpu')\n"
        "    embedder.add_adapter(AdapterSection())\n"
        "    layer = embedder.backbone.model.layers[0].self_attn.q_proj\n"
        "    print('bitsandbytes.nn' in sys.modules, type(layer).__name__)\n"
    )
    done = _python(code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "Linear", "True", "Linear4bit"]
