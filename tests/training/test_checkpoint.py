"""Checkpoints: the last ones are kept, what is not as it was written is told, the one before goes on exactly."""

import json
import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from embedsmith.data.table import TripletTable
from embedsmith.support.errors import RunError
from embedsmith.training.checkpoint import find_fault, newest_progress
from tests.training.runs import adapter_bytes, read_losses, run_config, train

FILES = ("weights.safetensors", "optimizer.safetensors", "random.safetensors", "progress.json", "SHA256SUMS")


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def fill_with_zeros(file: Path) -> None:
    """As after a power failure on a file system that had written the size alone."""
    file.write_bytes(bytes(file.stat().st_size))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model_folders: dict[str, str]) -> Path:
    """A finished run of eight steps with checkpoints of the sixth and the eighth, and its best step was the third."""
    from embedsmith.data.triplets import load_triplets
    from tests.tiny import write_triplets

    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDSMITH_CACHE", str(folder / "cache"))
        triplets = load_triplets([str(write_triplets(folder / "t.tsv", num_rows=60))])
        _train_into(folder / "run", model_folders, triplets, scores=[0.1, 0.2, 0.4, 0.6, 0.3, 0.1, 0.5, 0.2, 0.1])
    return folder / "run"


def _train_into(
    run: Path, models: dict[str, str], triplets: TripletTable, *, scores: list[float], resume: bool = False
) -> None:
    settings = run_config(run, eval_steps="1", save_steps="2")
    train(settings, models["llama"], triplets, scores=scores, resume=resume)


def test_the_last_ones_are_kept(
    whole: Path, tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable
) -> None:
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["step-000006", "step-000008"]
    for limit, kept in (("1", ["step-000008"]), ("9", [f"step-00000{step}" for step in (0, 2, 4, 6, 8)])):
        train(run_config(tmp_path / limit, save_steps="2", save_total_limit=limit), model_folders["llama"], triplets)
        assert sorted(path.name for path in (tmp_path / limit / "checkpoints").iterdir()) == kept


def test_checksums_are_those_of_sha256sum(whole: Path) -> None:
    subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=whole / "checkpoints/step-000008", check=True
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, fill_with_zeros, Path.unlink])
def test_any_damage_is_seen(whole: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    checkpoint = tmp_path / "step-000008"
    shutil.copytree(whole / "checkpoints" / "step-000008", checkpoint)
    assert find_fault(checkpoint) is None
    damage(checkpoint / name)
    fault = find_fault(checkpoint)
    assert fault is not None
    assert name in fault


def test_the_one_before_a_damaged_one_is_taken_and_said(
    whole: Path,
    tmp_path: Path,
    model_folders: dict[str, str],
    triplets: TripletTable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The best adapter, too, is what it was at the checkpoint, whatever lies there now."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    cut_short(run / "checkpoints" / "step-000008" / "optimizer.safetensors")
    shutil.copytree(run / "checkpoints" / "step-000008", run / "checkpoints" / "step-000010")  # a damaged one besides
    shutil.rmtree(run / "adapter")
    assert (progress := newest_progress(run)) is not None
    assert (progress.step, progress.best_step) == (6, 3)
    _train_into(run, model_folders, triplets, scores=[0.2, 0.1], resume=True)
    assert [record.getMessage() for record in caplog.records if "checkpoints" in record.getMessage()] == [
        *(
            f"The checkpoint {run}/checkpoints/step-0000{step} is damaged: optimizer.safetensors "
            f"({(run / 'checkpoints/step-000006/optimizer.safetensors').stat().st_size - 7:,} bytes) does not fit its "
            "checksum in SHA256SUMS"
            for step in ("10", "08")
        ),
        f"The run goes on from the one before, {run}/checkpoints/step-000006.",
    ]
    assert adapter_bytes(run) == adapter_bytes(whole)
    assert read_losses(run) == read_losses(whole)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-000006", "step-000008"]
    assert all(find_fault(path) is None for path in (run / "checkpoints").iterdir())
    for name in FILES[:3]:
        last = Path("checkpoints/step-000008") / name
        assert (run / last).read_bytes() == (whole / last).read_bytes()


def test_without_a_whole_one_all_are_named(
    whole: Path, tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    flip_a_bit(run / "checkpoints/step-000006/weights.safetensors")
    (run / "checkpoints/step-000008/kept/embedding.json").unlink()
    with pytest.raises(
        RunError,
        match=r"No checkpoint is whole:\n.*embedding.json, which SHA256SUMS names, is missing\n.*weights.safetensors",
    ):
        _train_into(run, model_folders, triplets, scores=[0.1], resume=True)
    assert newest_progress(run) is None
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunError, match="holds no checkpoint"):
        _train_into(run, model_folders, triplets, scores=[0.1], resume=True)


def test_nothing_is_put_back_where_the_metrics_are_damaged(
    whole: Path, tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    flip_a_bit(run / "checkpoints/step-000008/weights.safetensors")  # so that the adapter of step 6 would be put back
    (run / "metrics.jsonl").write_text('{"step": "one"}\n', encoding="utf-8")
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"another")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"metrics.jsonl, line 1: .* is no record of a run"):
        _train_into(run, model_folders, triplets, scores=[0.1], resume=True)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_one_of_an_earlier_version_is_taken_as_it_is(
    whole: Path,
    tmp_path: Path,
    model_folders: dict[str, str],
    triplets: TripletTable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints/step-000008")
    old = run / "checkpoints/step-000006"
    (old / "SHA256SUMS").unlink()
    assert find_fault(old) == "SHA256SUMS is missing"
    progress = json.loads((old / "progress.json").read_text())
    del progress["awaits_evaluation"]
    (old / "progress.json").write_text(json.dumps(progress))
    shutil.rmtree(old / "kept")
    with caplog.at_level(logging.WARNING):
        _train_into(run, model_folders, triplets, scores=[0.2, 0.1], resume=True)
    assert "step-000006 was written by an earlier version, without checksums" in caplog.text
    assert adapter_bytes(run) == adapter_bytes(whole)


def test_what_a_kill_kept_from_being_removed_is_removed(
    whole: Path, tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.copytree(run / "checkpoints/step-000006", run / "checkpoints/step-000004")
    _train_into(run, model_folders, triplets, scores=[0.1], resume=True)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-000006", "step-000008"]
