"""Gradients of a batch in chunks equal those of the whole batch, dropout included."""

from collections.abc import Callable

import pytest
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.segments import PackedTexts
from embedsmith.settings.choices import Pooling
from embedsmith.settings.config import AdapterSection
from embedsmith.training.budget import TokenBudget
from embedsmith.training.gradcache import PIECE_TOKENS, contrastive_step
from embedsmith.training.loss import info_nce
from tests.tiny import TEXTS

BATCH = [*TEXTS[:2], *TEXTS[2:4], *TEXTS[5:7]]  # two triplets


def _loss(embeddings: torch.Tensor) -> torch.Tensor:
    anchor, positive, negative = embeddings.chunk(3)
    return info_nce(anchor, positive, negative, temperature=0.1)


def _gradients(
    folder: str,
    *,
    max_tokens: int,
    pooling: Pooling = Pooling.LAST,
    dropout: float = 0.0,
    fused: bool = True,
    most: Callable[[int], int] | None = None,
) -> tuple[float, list[torch.Tensor]]:
    embedder = Embedder.load(folder, precision="fp32", max_length=64, pooling=pooling, fused=fused)
    torch.manual_seed(3)
    embedder.add_adapter(AdapterSection(lora_dropout=dropout))
    weights = [weight for weight in embedder.backbone.model.parameters() if weight.requires_grad]
    with torch.no_grad():
        for weight in weights:
            weight.normal_(std=0.2)
    loss, num_tokens = contrastive_step(
        embedder.pack(BATCH),
        embedder=embedder,
        loss_of=_loss,
        budget=TokenBudget(max_tokens),
        backward=torch.Tensor.backward,
        most=most,
    )
    assert num_tokens == sum(len(tokens) for tokens in embedder.tokenizer(BATCH))
    return loss.item(), [weight.grad for weight in weights]


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("max_tokens", [1, 12, 30])
def test_pieces_give_the_gradients_of_the_whole(
    model_folders: dict[str, str], max_tokens: int, pooling: Pooling, dropout: float, fused: bool
) -> None:
    """The masks are those of the whole batch, so dropout changes nothing about that."""
    settings = {"pooling": pooling, "dropout": dropout, "fused": fused}
    whole_loss, whole = _gradients(model_folders["llama"], max_tokens=10_000, **settings)
    loss, gradients = _gradients(model_folders["llama"], max_tokens=max_tokens, **settings)
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    for gradient, expected in zip(gradients, whole, strict=True):
        # Sums in another order: an element that is small beside the others has their error, not its own.
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_the_bound_changes_no_bit(model_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of one size: whether they keep their graph or are computed again, the numbers are the same."""
    monkeypatch.setitem(PIECE_TOKENS, "cpu", 12)
    results = [
        _gradients(model_folders["llama"], max_tokens=max_tokens, dropout=0.3) for max_tokens in (12, 30, 10_000)
    ]
    for loss, gradients in results[1:]:
        assert loss == results[0][0]
        assert all(torch.equal(a, b) for a, b in zip(gradients, results[0][1], strict=True))


@pytest.mark.parametrize(("max_tokens", "num_forwards"), [(12, 10), (30, 8), (10_000, 5)])
def test_only_what_lies_beyond_the_bound_is_computed_twice(
    model_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, max_tokens: int, num_forwards: int
) -> None:
    monkeypatch.setitem(PIECE_TOKENS, "cpu", 12)  # pieces of 7, 6, 9, 9 and 20 tokens, the last a single text
    forwards: list[int] = []
    hidden_states = Embedder.hidden_states

    def counted(self: Embedder, packed: PackedTexts, *, ends_only: bool = False, num_exact: int = 0) -> torch.Tensor:
        forwards.append(packed.num_tokens)
        return hidden_states(self, packed, ends_only=ends_only, num_exact=num_exact)

    monkeypatch.setattr(Embedder, "hidden_states", counted)
    _gradients(model_folders["llama"], max_tokens=max_tokens)
    assert len(forwards) == num_forwards


@pytest.mark.parametrize("max_tokens", [12, 10_000])
def test_more_pieces_of_another_process_change_nothing(model_folders: dict[str, str], max_tokens: int) -> None:
    """What is computed so as to run as often as another process does, counts for nothing."""
    whole_loss, whole = _gradients(model_folders["llama"], max_tokens=max_tokens, dropout=0.3)
    loss, gradients = _gradients(
        model_folders["llama"], max_tokens=max_tokens, dropout=0.3, most=lambda number: number + 1
    )
    assert loss == pytest.approx(whole_loss, rel=1e-6)
    for gradient, expected in zip(gradients, whole, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_the_random_state_moves_on(model_folders: dict[str, str]) -> None:
    """A step in pieces leaves the generator where one forward leaves it, and not where it began."""
    after = []
    for max_tokens in (12, 10_000):
        _gradients(model_folders["llama"], max_tokens=max_tokens, dropout=0.3)
        after.append(torch.randint(0, 2**62, ()).item())
    torch.manual_seed(3)
    assert after[0] == after[1] != torch.randint(0, 2**62, ()).item()
