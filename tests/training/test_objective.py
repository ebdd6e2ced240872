"""What a run minimises: every option's gradients however the batch is cut, and refusals of what would do nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.nn.functional import normalize

from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import AdapterSection, RunConfig
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import ConfigError
from embedsmith.training.budget import TokenBudget
from embedsmith.training.distributed import Processes
from embedsmith.training.loss import distillation, guided_exclusion, info_nce
from embedsmith.training.objective import Objective, make_objective
from embedsmith.training.ranking import cosent
from embedsmith.training.step import pack_batch, take_step
from tests.tiny import save_teacher, write_pairs, write_triplets

CPU = torch.device("cpu")
ROWS = np.arange(6)
OPTIONS: dict[str, dict[str, str]] = {
    "weight": {"hard_negative_weight": "0.3"},
    "widths": {"matryoshka_dims": "[8, 31]"},
    "guide": {"guide": "true", "margin": "0.05"},
    "distill": {"distill_weight": "0.7", "distill_temperature": "0.2"},
    "distill only": {"distill_weight": "1"},
    "all": {"guide": "true", "distill_weight": "0.5", "hard_negative_weight": "2", "matryoshka_dims": "[16]"},
    "embeddings": {"embedding_weight": "0.8"},
    "embeddings only": {"embedding_weight": "1", "embedding_distance": "squared", "temperature": "0.05"},
    "embeddings, spread out": {"embedding_weight": "1", "spread_out_weight": "2", "temperature": "0.05"},
    "embeddings, all": {"embedding_weight": "0.3", "guide": "true", "distill_weight": "0.5", "matryoshka_dims": "[16]"},
    "cosent": {},
    "cosent, embeddings": {"embedding_weight": "0.5"},
    "angle": {"loss": "angle"},
    "angle, widths": {"loss": "angle", "matryoshka_dims": "[9]"},
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_teacher(tmp_path_factory.mktemp("teacher")))


@pytest.fixture
def triplets(tmp_path: Path, cache: Path) -> TripletTable:
    return load_triplets([str(write_triplets(tmp_path / "t.tsv", num_rows=20))])


@pytest.fixture
def scored(tmp_path: Path, cache: Path) -> TripletTable:
    return load_triplets([str(write_pairs(tmp_path / "s.tsv"))])


def _config(**overrides: str) -> RunConfig:
    return load_config(overrides={"output_dir": "x", "data.train": "my.tsv", "temperature": "0.1", **overrides})


def _gradients(embedder: Embedder, objective: Objective, data: TripletTable, *, max_tokens: int) -> list[torch.Tensor]:
    weights = [weight for weight in embedder.backbone.model.parameters() if weight.requires_grad]
    weights += objective.parameters
    for weight in weights:
        weight.grad = None
    torch.manual_seed(3)
    take_step(
        embedder,
        batch=data.rows(ROWS),
        objective=objective,
        budget=TokenBudget(max_tokens),
        processes=Processes(Accelerator(cpu=True)),
    )
    return [weight.grad for weight in weights]


@pytest.mark.parametrize("option", OPTIONS)
def test_pieces_give_the_gradients_of_one_forward(
    llama: Embedder, triplets: TripletTable, scored: TripletTable, teacher: str, option: str
) -> None:
    settings = OPTIONS[option]
    if {"guide", "distill_weight", "embedding_weight"} & set(settings):
        settings = {**settings, "teacher": teacher}
    data = scored if option.startswith(("cosent", "angle")) else triplets
    llama.add_adapter(AdapterSection(lora_dropout=0.3))
    with torch.no_grad():
        for name, weight in llama.backbone.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    objective = make_objective(_config(**settings), data=data, dim=64, device=CPU)
    for projection in objective.parameters:
        projection.data.normal_(generator=torch.Generator().manual_seed(1))
    whole = _gradients(llama, objective, data, max_tokens=10_000)
    assert any(gradient.abs().max() > 1e-4 for gradient in whole[: len(whole) - len(objective.parameters)])
    assert all(projection.grad.abs().max() > 1e-4 for projection in objective.parameters)
    for max_tokens in (1, 30):
        for gradient, expected in zip(_gradients(llama, objective, data, max_tokens=max_tokens), whole, strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    # each option changes what is learned
    plain = make_objective(_config(), data=data, dim=64, device=CPU)
    differs = any(
        not torch.equal(a, b) for a, b in zip(_gradients(llama, plain, data, max_tokens=10_000), whole, strict=False)
    )
    assert differs == bool(OPTIONS[option])


def _unit(rows: int) -> torch.Tensor:
    return normalize(torch.randn(rows, 64, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_widths_are_averaged_the_full_one_among_them(triplets: TripletTable, scored: TripletTable) -> None:
    config = _config(matryoshka_dims="[31, 8, 8]")
    embeddings = _unit(18)
    objective = make_objective(config, data=triplets, dim=64, device=CPU)
    assert objective.widths == (8, 31, 64)
    expected = 0.0
    for dim in (8, 31, 64):
        cut = embeddings[:, :dim] / embeddings[:, :dim].norm(dim=1, keepdim=True)
        expected += info_nce(cut[:6], cut[6:12], cut[12:], temperature=0.1).item() / 3
    assert objective.loss_of(triplets.rows(ROWS))(embeddings).item() == pytest.approx(expected, rel=1e-6)

    batch, expected = scored.rows(ROWS), 0.0
    for dim in (8, 31, 64):
        cut = embeddings[:, :dim] / embeddings[:, :dim].norm(dim=1, keepdim=True)
        expected += cosent(cut[:6], cut[6:12], torch.tensor(batch.scores), temperature=0.1).item() / 3
    objective = make_objective(config, data=scored, dim=64, device=CPU)
    assert objective.loss_of(batch)(embeddings[:12]).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["sentence-transformers", "ours"])
def test_a_teacher_guides_and_teaches(
    triplets: TripletTable, teacher: str, llama: Embedder, tmp_path: Path, kind: str
) -> None:
    if kind == "ours":
        llama.add_adapter(AdapterSection())
        llama.save(tmp_path / "run")
        teacher = str(tmp_path / "run")
    config = _config(teacher=teacher, guide="true", margin="0.1", distill_weight="0.25", distill_temperature="0.3")
    objective = make_objective(config, data=triplets, dim=64, device=CPU)
    batch = triplets.rows(ROWS)
    texts = [*batch.anchors, *batch.positives, *(text for [text] in batch.negatives)]
    taught = objective.teacher.embed(texts, are_queries=[True] * 6 + [False] * 12)
    similarities = taught[:6] @ taught[6:].T
    excluded = guided_exclusion(similarities, margin=0.1)
    assert excluded.any()
    anchor, positive, negative = _unit(18).chunk(3)
    contrast = info_nce(anchor, positive, negative, temperature=0.1, excluded=excluded)
    lesson = distillation(anchor, torch.cat([positive, negative]), similarities, temperature=0.3)
    expected = 0.75 * contrast.item() + 0.25 * lesson.item()
    assert objective.loss_of(batch)(_unit(18)).item() == pytest.approx(expected, rel=1e-5)


def test_without_hard_negatives_the_teacher_is_not_asked_about_them(triplets: TripletTable, teacher: str) -> None:
    config = _config(teacher=teacher, distill_weight="1", use_hard_negatives="false")
    objective = make_objective(config, data=triplets, dim=64, device=CPU)
    batch = triplets.rows(ROWS)
    assert objective.text_groups(batch) == [batch.anchors, batch.positives, []]
    taught = objective.teacher.embed([*batch.anchors, *batch.positives], are_queries=[True] * 6 + [False] * 6)
    anchor, positive = _unit(12).chunk(2)
    expected = distillation(anchor, positive, taught[:6] @ taught[6:].T, temperature=0.05)
    assert objective.loss_of(batch)(_unit(12)).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("distance", ["cosine", "squared"])
@pytest.mark.parametrize("weight", [0.4, 1.0])
def test_vectors_are_drawn_to_the_teachers_alone_or_besides(
    triplets: TripletTable, teacher: str, distance: str, weight: float
) -> None:
    """Plain loops over texts and widths; a shortened vector goes through the projection's first columns."""
    settings = {"embedding_weight": f"{weight}", "embedding_distance": distance, "matryoshka_dims": "[16]"}
    config = _config(teacher=teacher, temperature="0.05", **settings)
    objective, batch = make_objective(config, data=triplets, dim=64, device=CPU), triplets.rows(ROWS)
    objective.projection.data.normal_(generator=torch.Generator().manual_seed(1))
    texts = [*batch.anchors, *batch.positives, *(text for [text] in batch.negatives)]
    taught = objective.teacher.embed(texts, are_queries=[True] * 6 + [False] * 12).numpy()
    map_, students, expected = objective.projection.detach().numpy(), _unit(18).numpy(), 0.0
    for dim in (16, 64):
        cut = students[:, :dim] / np.linalg.norm(students[:, :dim], axis=1, keepdims=True)
        far = 0.0
        for student, vector in zip(cut, taught, strict=True):
            projected = map_[:, :dim] @ student
            cosine = projected @ vector / np.linalg.norm(projected) / np.linalg.norm(vector)
            far += (1 - cosine) / 18 if distance == "cosine" else ((projected - vector) ** 2).sum() / 18
        contrast = info_nce(*torch.from_numpy(cut).chunk(3), temperature=0.05).item()
        expected += (weight * far + (1 - weight) * contrast) / 2
    assert objective.loss_of(batch)(_unit(18)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "cosent"}, r"training\.loss is cosent, but data\.train \(my\.tsv\) holds triplets"),
        ({"loss": "angle"}, "losses for triplets are: auto, info_nce"),
        ({"hard_negative_weight": "2", "use_hard_negatives": "false"}, "use_hard_negatives is false"),
        ({"hardness_mode": "hard_negatives", "use_hard_negatives": "false"}, "use_hard_negatives is false"),
        ({"hardness_mode": "hard_negatives", "hardness_form": "importance"}, "needs rows with 2 negatives"),
        ({"matryoshka_dims": "[8, 65]"}, "names 65, but the model's embeddings have 64"),
        ({"matryoshka_dims": "[64]"}, "names only 64, the full width"),
    ],
)
def test_settings_that_do_not_fit_triplets(triplets: TripletTable, settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_objective(_config(**settings), data=triplets, dim=64, device=CPU)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "info_nce"}, r"training\.loss is info_nce, but data\.train \(my\.tsv\) holds scored pairs"),
        (
            {"hard_negative_weight": "2"},
            r"hard_negative_weight is 2\.0, but data\.train \(my\.tsv\) holds scored pairs",
        ),
        (
            {"teacher": "smollm2-135m", "guide": "true"},
            "guide and .* take triplets or pairs, but .* holds scored pairs",
        ),
        (
            {"false_negative_margin": "0.1", "spread_out_weight": "1"},
            r"contrast\.false_negative_margin, contrast\.spread_out_weight: set for .* holds scored pairs",
        ),
    ],
)
def test_settings_that_do_not_fit_scored_pairs(scored: TripletTable, settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_objective(_config(**settings), data=scored, dim=64, device=CPU)


def test_pairs_have_no_hard_negatives_to_weigh(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "p.tsv").write_text("anchor\tpositive\na\tb\n")
    pairs = load_triplets([str(tmp_path / "p.tsv")])
    with pytest.raises(ConfigError, match=r"hard_negative_weight is 2\.0, but data\.train \(my\.tsv\) holds pairs"):
        make_objective(_config(hard_negative_weight="2"), data=pairs, dim=64, device=CPU)
    with pytest.raises(ConfigError, match=r"hard_negatives, but data\.train \(my\.tsv\) holds pairs"):
        make_objective(_config(hardness_mode="hard_negatives"), data=pairs, dim=64, device=CPU)


@pytest.fixture
def texts(tmp_path: Path, cache: Path) -> TripletTable:
    (tmp_path / "texts.txt").write_text("".join(f"w{row} sleeps on w{row + 3}\n" for row in range(20)))
    return load_triplets([str(tmp_path / "texts.txt")])


def test_texts_alone_have_the_gradients_of_documents(
    llama: Embedder, texts: TripletTable, teacher: str, tmp_path: Path
) -> None:
    """The loss is the mean over texts, whatever the pieces; with a prompt for queries they get the other one."""
    llama.settings = replace(llama.settings, query_prompt="the cat {text}")
    llama.add_adapter(AdapterSection())
    config = _config(teacher=teacher, embedding_weight="1", temperature="0.05")
    objective = make_objective(config, data=texts, dim=64, device=CPU)
    objective.projection.data.normal_(generator=torch.Generator().manual_seed(1))
    batch = texts.rows(ROWS)
    packed = pack_batch(llama, batch=batch, objective=objective)
    expected = torch.from_numpy(llama.encode(batch.anchors, side="document"))
    torch.testing.assert_close(llama.embed(packed)[packed.distinct_of_text], expected, rtol=0, atol=1e-5)
    taught = objective.teacher.embed(batch.anchors, are_queries=[False] * 6)
    projected = expected @ objective.projection.T
    far = 1 - torch.nn.functional.cosine_similarity(projected, taught)
    assert objective.loss_of(batch)(expected).item() == pytest.approx(far.mean().item(), rel=1e-6)
    whole = _gradients(llama, objective, texts, max_tokens=10_000)
    for gradient, other in zip(_gradients(llama, objective, texts, max_tokens=10), whole, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"distill_weight": "0.5"}, {"embedding_weight": "0.9"}, {"loss": "cosent"}])
def test_texts_alone_are_learned_from_by_vectors_alone(
    texts: TripletTable, teacher: str, settings: dict[str, str]
) -> None:
    settings = {**settings, **({"teacher": teacher} if {"distill_weight", "embedding_weight"} & set(settings) else {})}
    with pytest.raises(ConfigError, match=r"my\.tsv\) holds texts, one a row.*\n.*embedding_weight to 1"):
        make_objective(_config(**settings), data=texts, dim=64, device=CPU)
