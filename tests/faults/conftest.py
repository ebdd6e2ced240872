"""A folder with one of everything that embedsmith reads, made once by its own commands; each test gets a copy."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedsmith.cli import run_command
from embedsmith.support.display import TrainingDisplay
from tests.faults.digest import digest_of
from tests.gguf_files import save_gguf
from tests.tiny import TEXTS, save_model, write_pairs, write_triplets

RUN = {
    "model.model": "base",
    "precision": "fp32",
    "max_length": "64",
    "data.train": "t.tsv",
    "dev": "sts/dev.tsv",
    "batch_size": "6",
    "max_steps": "4",
    "warmup_steps": "1",
    "save_steps": "2",
    "eval_steps": "2",
}
COMMANDS = (
    "evaluate runs/r --data sts --out results.json",
    "evaluate base --data sts --out of-base.json",
    "encode base texts.txt --out vectors.npy --vector-precision int8",
    "encode base texts.txt --out corpus --shard-rows 8 --vector-precision int8",
    "export runs/r merged --to merged",
    "export runs/r peft --to peft",
    "average runs/r --to average --rank 2",
)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder, without a fault; what the tests do must leave it so."""
    root = tmp_path_factory.mktemp("faults")
    folder = root / "whole"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EMBEDSMITH_CACHE", str(root / "cache"))
        _write_data()
        save_model("llama", Path("base"))
        save_model("llama", Path("wider"), hidden_size=96)
        save_gguf(Path("model.gguf"))
        _train("runs/r")
        with patch.context() as stopping:
            stopping.setattr(TrainingDisplay, "update", _stop_at_3)
            _train("stopped", code=130)
        for command in COMMANDS:
            assert run_command(command.split()) == 0, command
        _write_sentence_files()
    before = digest_of(folder)
    yield folder
    assert digest_of(folder) == before


@pytest.fixture
def work(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in; all share a cache, where kernels are built once."""
    folder = tmp_path / "work"
    shutil.copytree(whole, folder)
    monkeypatch.setenv("EMBEDSMITH_CACHE", str(whole.with_name("cache")))
    monkeypatch.chdir(folder)
    return folder


def _write_data() -> None:
    write_triplets(Path("t.tsv"), num_rows=40)
    Path("sts").mkdir()
    write_pairs(Path("sts/dev.tsv"))
    Path("texts.txt").write_text("\n".join(dict.fromkeys(TEXTS)) + "\n")
    Path("beir/qrels").mkdir(parents=True)
    Path("beir/corpus.jsonl").write_text('{"_id": "d1", "text": "a cat"}\n{"_id": "d2", "text": "the sea"}\n')
    Path("beir/queries.jsonl").write_text('{"_id": "q1", "text": "an animal"}\n')
    Path("beir/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    recipe = ["output_dir: runs/new", "model:", "  model: base", "  precision: fp32", "data:", "  train: t.tsv"]
    Path("recipe.yaml").write_text("\n".join([*recipe, "training:", "  max_steps: 2", "  batch_size: 6"]) + "\n")
    Path("sweep.yaml").write_text("recipe: recipe.yaml\noutput_dir: s\naxes:\n  adapter.lora_r: [2, 4]\nseeds: [7]\n")
    Path("search.yaml").write_text(
        "recipe: recipe.yaml\noutput_dir: s\nspace:\n  adapter.lora_r: [2, 4]\n"
        "settings:\n  evaluation.dev: sts/dev.tsv\ntrials: 2\n"
    )


def _write_sentence_files() -> None:
    """The merged model as sentence-transformers would have it, without the seconds that its import takes."""
    shutil.copytree("merged", "sentence")
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    Path("sentence/modules.json").write_text(json.dumps(modules))
    Path("sentence/1_Pooling").mkdir()
    Path("sentence/1_Pooling/config.json").write_text('{"pooling_mode_lasttoken": true}')


def _train(folder: str, *, code: int = 0) -> None:
    settings = {**RUN, "output_dir": folder}
    assert run_command(["train", *(part for key, value in settings.items() for part in (f"--{key}", value))]) == code


def _stop_at_3(self: object, record: dict[str, object]) -> None:
    if record["step"] == 3:
        raise KeyboardInterrupt
