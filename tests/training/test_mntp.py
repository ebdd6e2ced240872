"""Masked next-token prediction: the loss against plain loops and transformers, what may be hidden, pieces == whole."""

import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM

from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.head import Head, load_head
from embedsmith.settings.config import AdapterSection
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import ConfigError
from embedsmith.training.budget import TokenBudget
from embedsmith.training.distributed import Processes
from embedsmith.training.mntp import MaskedPrediction, make_masked_prediction, mask_tokens, mntp_loss, predict_masked
from tests.tiny import FAMILIES, TEXTS, save_model

ALONE = Processes(Accelerator(cpu=True))


def _objective(embedder: Embedder, **changes: object) -> MaskedPrediction:
    settings = {"mask_id": 5, "mask_rate": 0.5, "fixed_ids": (1, 2), **changes}
    return MaskedPrediction(load_head(embedder.backbone), **settings)


def test_the_loss_equals_plain_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(7, 4, generator=generator, requires_grad=True)
    head = Head(torch.randn(9, 4, generator=generator), torch.randn(9, generator=generator), scaling=2.0)
    ids = torch.tensor([3, 1, 8, 2, 2, 0, 7])
    hidden = torch.tensor([False, True, False, True, False, True, True])
    expected = 0.0
    for place in (1, 3, 5, 6):
        state = states[place - 1].tolist()
        logits = [
            (sum(w * x for w, x in zip(row.tolist(), state, strict=True)) + float(bias)) / 2
            for row, bias in zip(head.weight, head.bias, strict=True)
        ]
        expected += math.log(sum(map(math.exp, logits))) - logits[ids[place]]
    loss = mntp_loss(states, ids, hidden, head=head)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    used = [0, 2, 4, 5]
    assert states.grad[used].abs().min() > 0
    assert states.grad[[1, 3, 6]].abs().max() == 0
    assert mntp_loss(states, ids, torch.zeros(7, dtype=torch.bool), head=head).item() == 0


def test_many_hidden_tokens_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    states = torch.randn(40, 4, requires_grad=True)
    head, ids = Head(torch.randn(9, 4)), torch.randint(9, (40,))
    hidden = torch.arange(40) % 3 == 1
    results = []
    for rows in (256, 5):
        monkeypatch.setattr("embedsmith.training.mntp._LOGIT_ROWS", rows)
        states.grad = None
        loss = mntp_loss(states, ids, hidden, head=head)
        loss.backward()
        results.append((loss.item(), states.grad))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1])


@pytest.mark.parametrize("family", ["llama", "granite", "phi", "gemma"])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_transformers_own(family: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {**FAMILIES[family], "tie_word_embeddings": tied}
    changes |= {"logits_scaling": 3.0} if family == "granite" else {}
    monkeypatch.setitem(FAMILIES, family, changes)
    folder = save_model(family, tmp_path / family)
    embedder = Embedder.load(str(folder), precision="fp32", max_length=64)
    packed = embedder.pack(TEXTS[:1])
    with torch.no_grad():
        logits = load_head(embedder.backbone).logits(embedder.hidden_states(packed))
        reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(packed.input_ids).logits[0]
    torch.testing.assert_close(logits, reference, rtol=1e-4, atol=1e-4)


def test_what_may_be_hidden(llama: Embedder) -> None:
    packed = llama.pack([TEXTS[0], TEXTS[1], "the"])
    objective = _objective(llama, mask_rate=1.0)
    torch.manual_seed(0)
    ids, hidden = mask_tokens(packed, objective=objective)
    may_hide = (packed.position_ids[0] > 0) & (packed.input_ids[0] != 2)
    assert torch.equal(hidden, may_hide)
    assert torch.equal(ids[~hidden], packed.input_ids[0][~hidden])


def test_hidden_tokens_fare_as_published(llama: Embedder) -> None:
    texts = [f"w{n} w{n + 1} w{n + 2} w{n + 3} w{n + 4} w{n + 5}" for n in range(190)]
    packed = llama.pack(texts)
    torch.manual_seed(0)
    ids, hidden = mask_tokens(packed, objective=_objective(llama, mask_rate=0.2, mask_id=7))
    before = packed.input_ids[0]
    may_hide = (packed.position_ids[0] > 0) & (before != 2)
    assert hidden.sum() / may_hide.sum() == pytest.approx(0.2, abs=0.04)
    assert (ids[hidden] == 7).float().mean() == pytest.approx(0.8, abs=0.08)
    assert (ids[hidden] == before[hidden]).float().mean() == pytest.approx(0.1, abs=0.06)
    torch.manual_seed(0)
    assert torch.equal(mask_tokens(packed, objective=_objective(llama, mask_rate=0.2, mask_id=7))[0], ids)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_pieces_give_the_gradients_of_the_whole(model_folders: dict[str, str], fused: bool) -> None:
    results = []
    for max_tokens in (10_000, 12):
        embedder = Embedder.load(
            model_folders["llama"], precision="fp32", max_length=64, bidirectional_layers="all", fused=fused
        )
        torch.manual_seed(0)
        embedder.add_adapter(AdapterSection(lora_dropout=0))
        weights = [weight for weight in embedder.backbone.model.parameters() if weight.requires_grad]
        for weight in weights:
            weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(3)
        loss, _ = predict_masked(
            embedder.pack(TEXTS),
            embedder=embedder,
            objective=_objective(embedder),
            budget=TokenBudget(max_tokens),
            processes=ALONE,
        )
        results.append((loss.item(), torch.cat([weight.grad.flatten() for weight in weights])))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert (results[0][1] - results[1][1]).norm() < 1e-4 * results[0][1].norm()
    assert results[0][1].norm() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "model.bidirectional_layers is 0"),
        ({"bidirectional_layers": "all", "mask_token": "no such"}, "does not know as one token"),
        ({"bidirectional_layers": "all", "matryoshka_dims": "[8]"}, "training.matryoshka_dims does nothing"),
        ({"bidirectional_layers": "all", "spread_out_weight": "1"}, "contrast.spread_out_weight does nothing"),
        ({"bidirectional_layers": "all", "teacher": "t", "guide": "true"}, "teacher.teacher does nothing"),
    ],
)
def test_what_does_not_fit_is_refused(llama: Embedder, settings: dict[str, str], message: str) -> None:
    config = load_config(overrides={"output_dir": "x", "loss": "mntp", "mask_token": "cat", **settings})
    with pytest.raises(ConfigError, match=message):
        make_masked_prediction(config, backbone=llama.backbone)


def test_the_mask_token_is_the_tokenizer_s(llama: Embedder) -> None:
    overrides = {"output_dir": "x", "loss": "mntp", "mask_token": "cat", "bidirectional_layers": "1"}
    objective = make_masked_prediction(load_config(overrides=overrides), backbone=llama.backbone)
    assert objective.mask_id == llama.tokenizer(["cat"])[0][1]
    assert set(objective.fixed_ids) == {1, 2}
