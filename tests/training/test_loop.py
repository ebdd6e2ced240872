"""The loop: the same bytes twice, resumed == uninterrupted, the best adapter kept, a bad loss stopped in time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from embedsmith.data.rows import Triplets
from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Loss
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import DataError
from embedsmith.training import loop
from embedsmith.training.budget import TokenBudget
from embedsmith.training.distributed import Processes
from embedsmith.training.keeping import Watch
from embedsmith.training.metrics import read_metrics
from embedsmith.training.objective import Objective
from embedsmith.training.step import take_step
from tests.tiny import save_teacher, write_pairs, write_triplets
from tests.training.runs import adapter_bytes, read_losses, run_config, train


def test_a_seed_gives_the_same_bytes_twice(
    tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable
) -> None:
    for name in ("a", "b"):
        train(run_config(tmp_path / name), model_folders["llama"], triplets)
    train(run_config(tmp_path / "c", seed="8"), model_folders["llama"], triplets)
    assert adapter_bytes(tmp_path / "a") == adapter_bytes(tmp_path / "b") != adapter_bytes(tmp_path / "c")
    assert read_losses(tmp_path / "a") == read_losses(tmp_path / "b") != read_losses(tmp_path / "c")


def test_a_run_that_is_told_to_stop_goes_on_as_if_it_had_not(
    tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable
) -> None:
    scores = [0.1, 0.2, 0.4, 0.3, 0.5, 0.35, 0.6, 0.2]
    told: list[tuple[int, float]] = []

    def stop_at(step: int) -> Watch:
        def watch(record: dict[str, object]) -> bool:
            told.append((record["step"], record["dev_cosine_spearman"]))
            return record["step"] == step

        return watch

    settings = {"eval_at_start": "false", "save_steps": "8"}
    whole, stopped = run_config(tmp_path / "whole", **settings), run_config(tmp_path / "stopped", **settings)
    outcome, _ = train(whole, model_folders["llama"], triplets, scores=scores, watch=stop_at(8))
    assert (outcome.is_stopped, outcome.num_steps) == (False, 8)  # it was at its end
    assert told == list(enumerate(scores, start=1))
    outcome, _ = train(stopped, model_folders["llama"], triplets, scores=scores[:3], watch=stop_at(3))
    assert (outcome.is_stopped, outcome.num_steps, outcome.best_step) == (True, 3, 3)
    assert outcome.best is not None and outcome.best.cosine_spearman == 0.4
    outcome, _ = train(stopped, model_folders["llama"], triplets, scores=scores[3:], resume=True)
    assert (outcome.is_stopped, outcome.num_steps, outcome.best_step) == (False, 8, 7)
    assert adapter_bytes(tmp_path / "stopped") == adapter_bytes(tmp_path / "whole")
    assert read_losses(tmp_path / "stopped") == read_losses(tmp_path / "whole")


@pytest.mark.parametrize("method", ["paper", "teacher and widths", "angle", "embeddings", "texts", "terms, sources"])
def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(
    tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable, method: str
) -> None:
    settings: dict[str, str] = {}
    if method == "teacher and widths":
        teacher = str(save_teacher(tmp_path))
        settings = {"teacher": teacher, "guide": "true", "distill_weight": "0.5", "matryoshka_dims": "[8, 31]"}
    elif method == "texts":
        (tmp_path / "t.txt").write_text("".join(f"w{row} w{row + 1}\n" for row in range(60)))
        triplets, settings = load_triplets([str(tmp_path / "t.txt")]), {"teacher": str(save_teacher(tmp_path))}
        settings["embedding_weight"] = "1"
    elif method == "embeddings":
        settings = {"teacher": str(save_teacher(tmp_path)), "embedding_weight": "0.7", "embedding_distance": "squared"}
    elif method == "angle":
        triplets, settings = load_triplets([str(write_pairs(tmp_path / "s.tsv"))]), {"loss": "angle"}
    elif method == "terms, sources":
        names = [str(write_triplets(tmp_path / f"{rows}.tsv", num_rows=rows, first=rows)) for rows in (30, 20)]
        triplets = load_triplets(names)
        settings = {
            "data.train": f"[{', '.join(names)}]",
            "one_source_batches": "true",
            "source_temperature": "2",
            "directions": "[anchor_to_candidate, anchor_to_anchor]",
            "false_negative_margin": "0.1",
            "hardness_mode": "all_negatives",
            "spread_out_weight": "1",
        }

    class StopAt:
        def update(self, record: dict[str, object]) -> None:
            if record["step"] == 6:
                raise KeyboardInterrupt

    whole, stopped = (run_config(tmp_path / name, save_steps="4", **settings) for name in ("whole", "stopped"))
    train(whole, model_folders["llama"], triplets)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, model_folders["llama"], triplets, display=StopAt())
    train(stopped, model_folders["llama"], triplets, resume=True)
    assert adapter_bytes(tmp_path / "stopped") == adapter_bytes(tmp_path / "whole")
    assert read_losses(tmp_path / "stopped") == read_losses(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()) == [
        "step-000004",
        "step-000008",
    ]


def test_a_projection_is_in_checkpoints_alone(
    tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable
) -> None:
    settings = {"teacher": str(save_teacher(tmp_path)), "embedding_weight": "1"}
    train(run_config(tmp_path / "run", **settings), model_folders["llama"], triplets)
    kept = load_file(tmp_path / "run" / "checkpoints" / "step-000008" / "projection.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in kept.items()} == {"projection": (32, 64)}
    names = {"adapter_config.json", "adapter_model.safetensors", "embedding.json"}
    assert {path.name for path in (tmp_path / "run" / "adapter").iterdir()} == names
    weights = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert all("lora" in name for name in weights)
    losses = read_losses(tmp_path / "run")
    assert losses[-1] < losses[0]


def test_the_best_adapter_is_kept(tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable) -> None:
    config = run_config(tmp_path / "run", eval_steps="3")
    outcome, embedder = train(config, model_folders["llama"], triplets, scores=[0.9, 0.4, 0.6, 0.5])
    assert (outcome.num_steps, outcome.best_step) == (8, 6)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in records if "dev_cosine_spearman" in r] == [0, 3, 6, 8]
    last = embedder.encode(["w1 cat"])
    embedder.trained.reload(tmp_path / "run" / "adapter")
    assert abs(embedder.encode(["w1 cat"]) - last).max() > 1e-4


def test_the_loss_falls(tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable) -> None:
    train(run_config(tmp_path / "run", max_steps="40"), model_folders["llama"], triplets)
    losses = read_losses(tmp_path / "run")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("loss", ["cosent", "angle"])
def test_scored_pairs_are_learned(tmp_path: Path, cache: Path, model_folders: dict[str, str], loss: str) -> None:
    pairs = load_triplets([str(write_pairs(tmp_path / "s.tsv"))])
    train(run_config(tmp_path / "run", max_steps="40", batch_size="12", loss=loss), model_folders["llama"], pairs)
    losses = read_losses(tmp_path / "run")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_without_hard_negatives_they_are_not_embedded(
    tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable
) -> None:
    outcomes = [
        train(run_config(tmp_path / value, use_hard_negatives=value), model_folders["llama"], triplets)[0]
        for value in ("true", "false")
    ]
    assert outcomes[1].num_tokens < 0.8 * outcomes[0].num_tokens


def test_each_text_of_a_step_stands_under_its_prompt(model_folders: dict[str, str], tmp_path: Path) -> None:
    """The step's loss equals that of texts written out by hand."""
    batch = Triplets(
        anchors=["a cat", "rain falls"],
        positives=["an animal", "wind"],
        negatives=[["the roof"], ["chess"]],
        instructions=["w1", None],
        are_symmetric=[False, True],
    )
    settings = {"query_prompt": "{instruction} w9 {text}", "prompt": "the {text}", "instruction": "w2"}

    def loss(batch: Triplets, **prompts: str) -> float:
        embedder = Embedder.load(model_folders["llama"], precision="fp32", max_length=64, **prompts)
        torch.manual_seed(0)
        embedder.add_adapter(load_config(overrides={"output_dir": "x", "lora_dropout": "0"}).adapter)
        config = run_config(tmp_path)
        paper = Objective(Loss.INFO_NCE, config.training, config.teacher, widths=(embedder.dim,))
        alone = Processes(Accelerator(cpu=True))
        loss, _ = take_step(embedder, batch=batch, objective=paper, budget=TokenBudget(1000), processes=alone)
        return loss.item()

    written_out = Triplets.plain(
        ["w1 w9 a cat", "w2 w9 rain falls"], ["the an animal", "w2 w9 wind"], [["the the roof"], ["w2 w9 chess"]]
    )
    assert loss(batch, **settings) == pytest.approx(loss(written_out), rel=1e-5)
    assert loss(batch, **settings) != pytest.approx(loss(batch), rel=1e-3)


def test_batches_are_packed_one_ahead_each_once_and_none_behind_the_last(
    tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the second step's record there are three batches, then one more each, and eight in all."""
    packed: list[int] = []
    seen: list[int] = []
    pack = loop.pack_share

    def count(*arguments: object, batch: Triplets, **named: object) -> object:
        result = pack(*arguments, batch=batch, **named)
        assert threading.current_thread() is not threading.main_thread()
        packed.append(len(batch))
        return result

    class Watch:
        def update(self, record: dict[str, object]) -> None:
            deadline = time.monotonic() + 10
            while len(packed) < min(8, record["step"] + 1) and time.monotonic() < deadline:
                time.sleep(0.001)
            seen.append(len(packed))

    monkeypatch.setattr(loop, "pack_share", count)
    train(run_config(tmp_path / "run"), model_folders["llama"], triplets, display=Watch())
    assert seen == [2, 3, 4, 5, 6, 7, 8, 8]


def test_a_batch_that_cannot_be_packed_stops_the_run_where_it_would_be_taken(
    tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps before it are done and kept."""
    pack, calls = loop.pack_share, list[int]()

    def fail_at_7(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 7:
            raise DataError("the row is gone")
        return pack(*arguments, **named)

    monkeypatch.setattr(loop, "pack_share", fail_at_7)
    with pytest.raises(DataError, match="the row is gone"):
        train(run_config(tmp_path / "run", save_steps="3"), model_folders["llama"], triplets)
    assert len(read_losses(tmp_path / "run")) == 6
    assert (tmp_path / "run" / "checkpoints" / "step-000006").exists()


def test_the_tokenizer_serves_two_threads_at_once(model_folders: dict[str, str]) -> None:
    """A batch may be tokenised while the development set is encoded."""
    embedder = Embedder.load(model_folders["llama"], precision="fp32", max_length=64)
    texts = [f"w{number % 200} cat </s> w{number % 7}" for number in range(3000)]
    expected = [ids.tolist() for ids in embedder.tokenizer(texts)]
    with ThreadPoolExecutor(max_workers=4) as threads:
        for found in threads.map(lambda _: embedder.tokenizer(texts), range(8)):
            assert [ids.tolist() for ids in found] == expected
