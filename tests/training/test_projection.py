"""Where a projection starts: the rotation that fits best, the identity between a model and itself."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from scipy.linalg import orthogonal_procrustes

from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import AdapterSection, RunConfig
from embedsmith.settings.recipe import load_config
from embedsmith.training.budget import TokenBudget
from embedsmith.training.distributed import Processes
from embedsmith.training.objective import Objective, make_objective
from embedsmith.training.projection import nearest_rotation, start_projection
from embedsmith.training.step import take_step
from tests.tiny import save_teacher, write_triplets

CPU = torch.device("cpu")


@pytest.fixture
def triplets(tmp_path: Path, cache: Path) -> TripletTable:
    return load_triplets([str(write_triplets(tmp_path / "t.tsv", num_rows=60))])


def _config(teacher: str, **overrides: str) -> RunConfig:
    values = {"output_dir": "x", "teacher": teacher, "embedding_weight": "1", "batch_size": "8"}
    return load_config(overrides={**values, **overrides})


def _start(objective: Objective, embedder: Embedder, triplets: TripletTable, config: RunConfig) -> None:
    processes = Processes(Accelerator(cpu=True))
    start_projection(objective, embedder=embedder, triplets=triplets, config=config, processes=processes)


def test_the_nearest_rotation_is_procrustes() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(40, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    found = nearest_rotation(teacher.T @ student)
    rotation, _ = orthogonal_procrustes(student.numpy(), teacher.numpy())  # least |student R - teacher|
    torch.testing.assert_close(found, torch.from_numpy(rotation.T))


@pytest.mark.parametrize(("width", "other"), [(5, 9), (9, 5), (7, 7)])
def test_it_is_orthonormal_between_any_widths(width: int, other: int) -> None:
    map_ = nearest_rotation(torch.randn(width, other, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    product = map_.T @ map_ if width >= other else map_ @ map_.T
    torch.testing.assert_close(product, torch.eye(min(width, other), dtype=torch.float64))


@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_a_model_is_no_distance_from_itself(
    model_folders: dict[str, str], triplets: TripletTable, distance: str
) -> None:
    """Teacher == student: the start is the identity where the texts' vectors lie, so the loss is nothing."""
    config = _config(model_folders["llama"], embedding_distance=distance)
    student = Embedder.load(model_folders["llama"], precision="fp32")
    student.add_adapter(AdapterSection(lora_dropout=0.0))
    objective = make_objective(config, data=triplets, dim=student.dim, device=CPU)
    assert objective.projection.isnan().all()
    _start(objective, student, triplets, config)
    batch = triplets.rows(torch.arange(8).numpy())
    processes = Processes(Accelerator(cpu=True))
    loss, _ = take_step(student, batch=batch, objective=objective, budget=TokenBudget(10_000), processes=processes)
    # The teacher is bfloat16 where the machine multiplies it; 1e-7 in float32.
    assert loss.item() < 1e-3
    objective.projection.data.copy_(torch.eye(64))
    assert objective.loss_of(batch)(objective.teacher_vectors(batch)).item() == pytest.approx(0, abs=1e-6)


def test_the_start_is_a_function_of_data_models_and_seed(
    llama: Embedder, tmp_path: Path, triplets: TripletTable
) -> None:
    teacher = str(save_teacher(tmp_path))
    starts = []
    for seed in ("7", "7", "8"):
        config = _config(teacher, seed=seed)
        objective = make_objective(config, data=triplets, dim=64, device=CPU)
        torch.manual_seed(len(starts))
        state = torch.get_rng_state()
        _start(objective, llama, triplets, config)
        assert torch.equal(torch.get_rng_state(), state)
        starts.append(objective.projection.detach())
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
