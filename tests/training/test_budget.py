"""A step in which memory runs out is repeated with half the bound, and has the gradients it would have had."""

import logging
from collections.abc import Iterator

import pytest
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.segments import PackedTexts
from embedsmith.settings.config import AdapterSection
from embedsmith.training import budget as budgets
from embedsmith.training.budget import TokenBudget
from embedsmith.training.gradcache import PIECE_TOKENS, contrastive_step
from embedsmith.training.loss import info_nce
from tests.tiny import TEXTS

BATCH = [*TEXTS[:2], *TEXTS[2:4], *TEXTS[5:7]]  # two triplets, in pieces of 7, 6, 9, 9 and 20 tokens


def _loss(embeddings: torch.Tensor) -> torch.Tensor:
    anchor, positive, negative = embeddings.chunk(3)
    return info_nce(anchor, positive, negative, temperature=0.1)


@pytest.fixture
def student(llama: Embedder, monkeypatch: pytest.MonkeyPatch) -> Embedder:
    monkeypatch.setitem(PIECE_TOKENS, "cpu", 12)
    monkeypatch.setattr(budgets, "_LEAST_TOKENS", 1)
    llama.add_adapter(AdapterSection(lora_dropout=0.3))
    with torch.no_grad():
        for weight in _weights(llama):
            weight.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    return llama


def _weights(embedder: Embedder) -> list[torch.nn.Parameter]:
    return [weight for weight in embedder.backbone.model.parameters() if weight.requires_grad]


def _step(embedder: Embedder, budget: TokenBudget, *, before: float | None = None) -> list[torch.Tensor]:
    torch.manual_seed(3)
    for weight in _weights(embedder):
        weight.grad = None if before is None else torch.full_like(weight, before)
    contrastive_step(
        embedder.pack(BATCH), embedder=embedder, loss_of=_loss, budget=budget, backward=torch.Tensor.backward
    )
    return [weight.grad for weight in _weights(embedder)]


def _runs_out_at(events: set[int], monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[int]:
    """Count forwards and backwards of pieces, and raise at some; yields nothing but the counter."""
    seen = iter(range(1000))
    embed = Embedder.embed

    def count(*_: object) -> None:
        if next(seen) in events:
            raise error

    def watched(self: Embedder, packed: PackedTexts) -> torch.Tensor:
        count()
        embeddings = embed(self, packed)
        if embeddings.requires_grad:
            embeddings.register_hook(count)
        return embeddings

    monkeypatch.setattr(Embedder, "embed", watched)
    return seen


@pytest.mark.parametrize("before", [None, 0.5], ids=["alone", "added up"])
def test_wherever_memory_runs_out_the_gradients_are_the_same(
    student: Embedder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, before: float | None
) -> None:
    whole = _step(student, TokenBudget(10_000), before=before)
    for event in range(10):  # five forwards, then five backwards
        with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
            caplog.clear()
            seen = _runs_out_at({event}, patched, torch.OutOfMemoryError("CUDA out of memory"))
            budget = TokenBudget(10_000)
            gradients = _step(student, budget, before=before)
        assert all(torch.equal(ours, expected) for ours, expected in zip(gradients, whole, strict=True)), event
        assert next(seen) > 11  # it did run out, and some was computed anew
        assert budget.max_tokens == 25  # half of the batch, not of a bound that was none
        assert [record.message for record in caplog.records] == [
            "Memory ran out in a step: from now on 25 tokens at one time keep what backward needs, not 51, and what "
            "lies beyond is computed twice. Results are the same, steps take longer."
        ]


def test_it_may_run_out_again(student: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _step(student, TokenBudget(10_000))
    _runs_out_at({2, 9, 14}, monkeypatch, RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    budget = TokenBudget(10_000)
    gradients = _step(student, budget)
    assert budget.max_tokens == 51 // 2 // 2 // 2
    for ours, expected in zip(gradients, whole, strict=True):  # in smaller pieces by now: sums in another order
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("CUDA out of memory")])
def test_other_errors_are_nobody_s_to_mend(
    student: Embedder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    _runs_out_at({0}, monkeypatch, error)
    with pytest.raises(type(error), match=str(error)):
        _step(student, TokenBudget(10_000))


def test_it_ends_where_halving_no_longer_helps(student: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    _runs_out_at(set(range(1000)), monkeypatch, MemoryError("no memory"))
    with pytest.raises(MemoryError, match="no memory"):
        _step(student, TokenBudget(10_000))


def test_room_is_left_where_others_have_taken_it(caplog: pytest.LogCaptureFixture) -> None:
    budget = TokenBudget(100_000)
    step = {"bytes_per_token": 10, "least": 3_000}
    budget.leave_room(20_000, available=200_000, **step)
    assert budget.max_tokens == 100_000
    budget.leave_room(20_000, available=60_000, **step)
    assert budget.max_tokens == 5_000
    budget.leave_room(20_000, available=0, **step)
    assert budget.max_tokens == 2_500  # no further: a piece of its own is needed anyway
    budget.leave_room(20_000, available=10**9, **step)
    assert budget.max_tokens == 2_500
    assert "Other processes have taken the memory that a step needs: from now on 10,000 tokens" in caplog.text
