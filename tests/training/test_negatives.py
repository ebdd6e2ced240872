"""Rows with any number of hard negatives: plain loops, pieces, packing, batches and processes all give one result."""

import json
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.nn.functional import normalize

from embedsmith.data.rows import Triplets
from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Loss
from embedsmith.settings.config import AdapterSection, RunConfig
from embedsmith.settings.recipe import load_config
from embedsmith.training.batching import contrastive_batches
from embedsmith.training.budget import TokenBudget
from embedsmith.training.distributed import Processes
from embedsmith.training.loss import info_nce
from embedsmith.training.mntp import make_masked_prediction
from embedsmith.training.objective import Objective, make_objective
from embedsmith.training.step import pack_batch, take_step
from tests.tiny import save_teacher, write_ragged_triplets

CPU = torch.device("cpu")
ROWS = np.arange(6)
COUNTS = [3, 0, 1, 4, 0, 2]
"""Hard negatives of the first rows."""
GTE = "[anchor_to_candidate, positive_to_anchor, anchor_to_anchor, positive_to_candidate]"
OPTIONS: dict[str, dict[str, str]] = {
    "plain": {},
    "weight": {"hard_negative_weight": "0.3"},
    "none of its own": {"hard_negative_weight": "0"},
    "without": {"use_hard_negatives": "false"},
    "widths": {"matryoshka_dims": "[8, 31]"},
    "guide": {"guide": "true", "margin": "0.1"},
    "distill": {"distill_weight": "0.7", "distill_temperature": "0.2"},
    "directions": {"directions": GTE},
    "symmetric": {"directions": "[anchor_to_candidate, positive_to_anchor]", "partition_mode": "per_direction"},
    "margin": {"false_negative_margin": "-0.05", "directions": GTE},
    "penalty": {"hardness_mode": "in_batch_negatives", "hardness_strength": "9"},
    "importance": {"hardness_mode": "hard_negatives", "hardness_form": "importance"},
    "importance, none of its own": {
        "hardness_mode": "all_negatives",
        "hardness_form": "importance",
        "hard_negative_weight": "0",
    },
    "spread out": {"spread_out_weight": "3"},
    "all": {
        "guide": "true",
        "distill_weight": "0.5",
        "hard_negative_weight": "2",
        "matryoshka_dims": "[16]",
        "directions": GTE,
        "false_negative_margin": "0.05",
        "hardness_mode": "all_negatives",
        "hardness_form": "importance",
        "spread_out_weight": "2",
        "spread_out_moments": "[2]",
    },
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_teacher(tmp_path_factory.mktemp("teacher")))


@pytest.fixture
def data(tmp_path: Path, cache: Path) -> TripletTable:
    return load_triplets([str(write_ragged_triplets(tmp_path / "t.jsonl", counts=COUNTS * 5))])


def _config(**overrides: str) -> RunConfig:
    return load_config(overrides={"output_dir": "x", "data.train": "my.tsv", "temperature": "0.1", **overrides})


def _unit(rows: int, width: int = 8) -> torch.Tensor:
    return normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)), dim=-1)


def _dot(first: Sequence[float], second: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(first, second, strict=True))


def _unit_list(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(_dot(vector, vector))
    return [value / length for value in vector]


def _loss_by_loops(
    embeddings: list[list[float]], taught: list[list[float]] | None, config: RunConfig, widths: Sequence[int]
) -> float:
    """The whole objective with nothing but floats: texts in the order anchors, positives, negatives of each row."""
    settings, guidance, contrast = config.training, config.teacher, config.contrast
    num_rows = len(COUNTS)
    owners = [row for row, count in enumerate(COUNTS) for _ in range(count)] if settings.use_hard_negatives else []
    owners = [*range(num_rows), *range(num_rows), *owners]
    anchors, candidates = range(num_rows), range(num_rows, len(owners))
    total = 0.0
    for width in widths:
        cut = [_unit_list(vector[:width]) for vector in embeddings]
        for row in anchors:
            positive = num_rows + row
            pairs = {
                "anchor_to_candidate": [(row, text) for text in candidates],
                "positive_to_anchor": [(positive, text) for text in anchors],
                "anchor_to_anchor": [(row, text) for text in anchors if text != row],
                "positive_to_candidate": [(positive, text) for text in candidates if owners[text] != row],
            }
            right = _dot(cut[row], cut[positive])

            def is_out(left: int, other: int, row: int = row, right: float = right, cut: list = cut) -> bool:
                margin = contrast.false_negative_margin
                is_guided = guidance.guide and _dot(taught[left], taught[other]) > (
                    _dot(taught[row], taught[num_rows + row]) - guidance.margin
                )
                return is_guided or (margin is not None and _dot(cut[left], cut[other]) > right + margin)

            seen = {text: _dot(cut[row], cut[text]) for text in candidates if text != positive}
            seen = {
                text: cosine
                for text, cosine in seen.items()
                if not is_out(row, text) and (settings.hard_negative_weight or owners[text] != row)
            }
            hardness = _hardness_by_loops(seen, row, owners, config)
            sums = []
            for direction in contrast.directions:
                denominator = 0.0
                for left, other in pairs[direction]:
                    weight = 1.0
                    if {left, other} != {row, positive}:
                        weight = 0.0 if is_out(left, other) else 1.0
                        if direction == "anchor_to_candidate":
                            weight *= settings.hard_negative_weight if owners[other] == row else 1
                            weight *= hardness.get(other, 1)
                    denominator += weight * math.exp(_dot(cut[left], cut[other]) / settings.temperature)
                sums.append(denominator)
            sums = [sum(sums)] if contrast.partition_mode == "joint" else sums
            loss = sum(math.log(value) - right / settings.temperature for value in sums) / len(sums)
            if guidance.distill_weight:
                student = [_dot(cut[row], cut[text]) for text in candidates]
                guide = [_dot(taught[row], taught[text]) for text in candidates]
                theirs, ours = (
                    [math.exp(value / guidance.distill_temperature) for value in values] for values in (guide, student)
                )
                lesson = sum(
                    p / sum(theirs) * math.log((p / sum(theirs)) / (q / sum(ours)))
                    for p, q in zip(theirs, ours, strict=True)
                )
                loss = (1 - guidance.distill_weight) * loss + guidance.distill_weight * lesson
            total += loss / num_rows / len(widths)
        for role in (cut[:num_rows], cut[num_rows : 2 * num_rows]):
            cosines = [_dot(u, v) for i, u in enumerate(role) for j, v in enumerate(role) if i != j]
            mean, square = (sum(value**power for value in cosines) / len(cosines) for power in (1, 2))
            parts = {1: mean**2, 2: max(0, square - 1 / width)}
            apart = sum(parts[moment] for moment in contrast.spread_out_moments)
            total += contrast.spread_out_weight * apart / len(widths)
    return total


def _hardness_by_loops(cosines: dict[int, float], row: int, owners: list[int], config: RunConfig) -> dict[int, float]:
    """Negatives of an anchor by number -> what those weigh that weigh by their closeness."""
    contrast = config.contrast
    wanted = {"hard_negatives": [True], "in_batch_negatives": [False], "all_negatives": [True, False]}
    chosen = {
        text: math.exp(contrast.hardness_strength * cosine)
        for text, cosine in cosines.items()
        if (owners[text] == row) in wanted.get(contrast.hardness_mode, [])
    }
    if contrast.hardness_form == "penalty" or not chosen:
        return chosen
    mean = sum(chosen.values()) / len(chosen)
    return {text: weight / mean for text, weight in chosen.items()}


@pytest.mark.parametrize("option", OPTIONS)
def test_the_objective_equals_plain_loops(data: TripletTable, teacher: str, option: str) -> None:
    settings = dict(OPTIONS[option])
    if "guide" in settings or "distill_weight" in settings:
        settings["teacher"] = teacher
    config = _config(**settings)
    objective = make_objective(config, data=data, dim=64, device=CPU)
    batch = data.rows(ROWS)
    texts = [text for group in objective.text_groups(batch) for text in group]
    assert len(texts) == (12 if option == "without" else 22)
    taught = None
    if objective.teacher:
        taught = objective.teacher.embed(texts, are_queries=[index < 6 for index in range(len(texts))]).tolist()
    embeddings = _unit(len(texts), 64)
    expected = _loss_by_loops(embeddings.tolist(), taught, config, objective.widths)
    assert objective.loss_of(batch)(embeddings).item() == pytest.approx(expected, rel=1e-5)
    if option != "plain":
        plain = _loss_by_loops(_unit(22, 64).tolist(), None, _config(), (64,))
        assert expected != pytest.approx(plain, rel=1e-3)


def test_one_negative_a_row_is_what_it_was() -> None:
    """Told to which row each belongs, or left to stand beside its anchor."""
    anchor, positive, negative = _unit(18).chunk(3)
    for weight in (0.0, 0.5, 1.0):
        losses = [
            info_nce(anchor, positive, negative, temperature=0.1, hard_negative_weight=weight, negative_rows=rows)
            for rows in (None, torch.arange(6))
        ]
        assert losses[0] == losses[1]
    moved = info_nce(
        anchor, positive, negative, temperature=0.1, hard_negative_weight=0.5, negative_rows=torch.arange(6).flip(0)
    )
    plain = info_nce(anchor, positive, negative, temperature=0.1, hard_negative_weight=0.5)
    assert moved != pytest.approx(plain.item(), rel=1e-4)


def test_negatives_and_their_rows_must_fit() -> None:
    with pytest.raises(ValueError, match=r"negatives of 3 rows cannot have the shape \(4, 8\)"):
        info_nce(_unit(6), _unit(6), _unit(4), temperature=1, negative_rows=torch.arange(3))


def _gradients(embedder: Embedder, objective: Objective, batch: Triplets, max_tokens: int) -> list[torch.Tensor]:
    weights = [weight for weight in embedder.backbone.model.parameters() if weight.requires_grad]
    for weight in weights:
        weight.grad = None
    torch.manual_seed(3)
    alone = Processes(Accelerator(cpu=True))
    take_step(embedder, batch=batch, objective=objective, budget=TokenBudget(max_tokens), processes=alone)
    return [weight.grad for weight in weights if weight.grad is not None]


def test_a_teacher_sees_the_negatives_of_symmetric_rows_as_queries() -> None:
    seen: dict[str, bool] = {}

    class Asked:
        dim = 8

        def embed(self, texts: Sequence[str], *, are_queries: Sequence[bool]) -> torch.Tensor:
            seen.update(zip(texts, are_queries, strict=True))
            return _unit(len(texts))

    batch = Triplets(
        anchors=["a0", "a1", "a2"],
        positives=["p0", "p1", "p2"],
        negatives=[["n0", "m0"], [], ["n2"]],
        instructions=[None] * 3,
        are_symmetric=[False, True, True],
    )
    config = _config(teacher="t", distill_weight="1")
    objective = Objective(Loss.INFO_NCE, config.training, config.teacher, widths=(8,), teacher=Asked())
    loss = objective.loss_of(batch)(_unit(9))
    assert loss.isfinite()
    assert sorted(text for text, is_query in seen.items() if not is_query) == ["m0", "n0", "p0"]
    assert len(seen) == 9


@pytest.mark.parametrize("option", ["plain", "all"])
def test_pieces_give_the_gradients_of_one_forward(
    llama: Embedder, data: TripletTable, teacher: str, option: str
) -> None:
    settings = {**OPTIONS[option], **({"teacher": teacher} if option == "all" else {})}
    llama.add_adapter(AdapterSection(lora_dropout=0.3))
    with torch.no_grad():
        for name, weight in llama.backbone.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    objective, batch = make_objective(_config(**settings), data=data, dim=64, device=CPU), data.rows(ROWS)
    whole = _gradients(llama, objective, batch, 10_000)
    assert any(gradient.abs().max() > 1e-4 for gradient in whole)
    for max_tokens in (1, 40):
        for gradient, expected in zip(_gradients(llama, objective, batch, max_tokens), whole, strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_equal_texts_are_computed_once_and_every_text_stands_under_its_prompt(model_folders: dict[str, str]) -> None:
    embedder = Embedder.load(
        model_folders["llama"],
        max_length=64,
        query_prompt="{instruction} {text}",
        prompt="the {text}",
        instruction="w1",
    )
    batch = Triplets(
        anchors=["a cat", "rain falls", "chess"],
        positives=["an animal", "wind", "park"],
        negatives=[["roof", "sea", "roof"], [], ["men", "roof"]],
        instructions=[None, "w2", "w3"],
        are_symmetric=[False, False, True],
    )
    config = _config()
    objective = Objective(Loss.INFO_NCE, config.training, config.teacher, widths=(64,))
    packed = pack_batch(embedder, batch=batch, objective=objective)
    expected = [
        *["w1 a cat", "w2 rain falls", "w3 chess", "the an animal", "the wind", "w3 park"],
        *["the roof", "the sea", "the roof", "w3 men", "w3 roof"],
    ]
    num_apart = sum(len(ids) for ids in embedder.tokenizer(list(dict.fromkeys(expected))))
    # Two texts begin with "<s> w3" beside the one of "w1" and of "w2" each, five with "<s> the".
    assert packed.num_tokens == num_apart - 2 * (3 - 1) - 2 * (5 - 1)
    ids = packed.input_ids[0][packed.segments.text_rows].split(list(packed.segments.text_lengths))
    for segment, text in zip(packed.segment_of_text.tolist(), expected, strict=True):
        assert ids[segment].tolist() == embedder.tokenizer([text])[0].tolist()


def test_rows_that_share_any_text_never_meet(tmp_path: Path, cache: Path) -> None:
    rows = [{"anchor": f"a{k}", "positive": f"p{k}", "neg": [f"n{k}-{m}" for m in range(k % 4)]} for k in range(40)]
    rows[3]["neg"][2] = rows[8]["positive"]  # a negative here is a positive there
    rows[7]["neg"][1] = rows[39]["neg"][2]
    rows[11]["neg"][0] = rows[20]["anchor"] + " "
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = load_triplets([str(path)])
    met = set()
    for batch in islice(contrastive_batches(table.text_ids, batch_size=8, seed=0), 200):
        met |= {(int(a), int(b)) for a in batch for b in batch if a < b}
    assert not met & {(3, 8), (7, 39), (11, 20)}
    assert len(met) > 700  # of 780: nothing else is kept apart


@pytest.mark.parametrize("counts", [[3, 0, 1, 4, 0, 2], [0, 0, 0, 1, 2, 3], [1, 1, 1, 1, 1, 1]])
def test_embeddings_of_processes_come_in_the_order_of_one(counts: list[int]) -> None:
    """Every process's view of three, with an exchange in memory in place of the network."""
    negatives = [[f"n{row}-{number}" for number in range(count)] for row, count in enumerate(counts)]
    batch = Triplets.plain([f"a{row}" for row in range(6)], [f"p{row}" for row in range(6)], negatives)
    whole = [text for group in batch.groups() for text in group]
    vector_of = {text: _unit(len(whole))[index] for index, text in enumerate(whole)}
    expected = torch.stack([vector_of[text] for text in whole])

    class Three:
        num_processes = 3

        def __init__(self, index: int) -> None:
            self.process_index = index

        def gather(self, own: torch.Tensor) -> torch.Tensor:
            assert own.shape[1:] == (most, 8)
            return torch.stack([torch.cat([part, part.new_ones(most - len(part), 8)]) for part in parts])

    shares = Processes(Three(0)).shares(batch)
    sizes = [[len(group) for group in share.groups()] for share in shares]
    most = max(map(sum, sizes))
    parts = [torch.stack([vector_of[text] for group in share.groups() for text in group]) for share in shares]
    weights = torch.arange(len(whole) * 8.0).view(-1, 8)
    gradients = []
    for index in range(3):
        own = parts[index].clone().requires_grad_()
        gathered = Processes(Three(index)).gather(own, sizes=sizes)
        torch.testing.assert_close(gathered.detach(), expected, rtol=0, atol=0)
        (gathered * weights).sum().backward()
        assert own.grad is not None
        gradients += [*zip([text for group in shares[index].groups() for text in group], own.grad, strict=True)]
    found = dict(gradients)
    for text, weight in zip(whole, weights, strict=True):
        torch.testing.assert_close(found[text], weight, rtol=0, atol=0)


def test_masked_prediction_takes_every_text(llama: Embedder, data: TripletTable) -> None:
    config = _config(loss="mntp", bidirectional_layers="all", mask_token="w1")
    objective = make_masked_prediction(config, backbone=llama.backbone)
    batch = data.rows(ROWS)
    packed = pack_batch(llama, batch=batch, objective=objective)
    distinct = {text for texts in batch.texts for text in texts}
    assert len(packed.segments.lengths) == len({tuple(ids.tolist()) for ids in llama.tokenizer(list(distinct))})
    assert len(packed.segment_of_text) == 12 + sum(COUNTS)
