"""Gradients of a batch in chunks equal those of the whole batch, dropout included."""

import pytest
import torch
from tiny import TEXTS

from embedsmith.config import AdapterSection, Pooling
from embedsmith.model.embedder import Embedder
from embedsmith.training.gradcache import contrastive_step
from embedsmith.training.loss import info_nce

BATCH = [*TEXTS[:2], *TEXTS[2:4], *TEXTS[5:7]]  # two triplets


def _loss(embeddings: torch.Tensor) -> torch.Tensor:
    anchor, positive, negative = embeddings.chunk(3)
    return info_nce(anchor, positive, negative, temperature=0.1)


def _gradients(folder: str, *, max_tokens: int, pooling: Pooling, dropout: float = 0.0) -> tuple[float, list]:
    embedder = Embedder.load(folder, precision="fp32", max_length=64, pooling=pooling)
    torch.manual_seed(3)
    embedder.add_adapter(AdapterSection(lora_dropout=dropout))
    weights = [weight for weight in embedder.backbone.model.parameters() if weight.requires_grad]
    with torch.no_grad():
        for weight in weights:
            weight.normal_(std=0.2)
    loss, num_tokens = contrastive_step(
        embedder, texts=BATCH, loss_of=_loss, max_tokens=max_tokens, backward=torch.Tensor.backward
    )
    assert num_tokens == sum(len(tokens) for tokens in embedder.tokenizer(BATCH))
    return loss.item(), [weight.grad for weight in weights]


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("max_tokens", [1, 12, 30])
def test_chunks_give_the_gradients_of_the_whole(
    model_folders: dict[str, str], max_tokens: int, pooling: Pooling
) -> None:
    folder = model_folders["llama"]
    whole_loss, whole = _gradients(folder, max_tokens=10_000, pooling=pooling)
    loss, gradients = _gradients(folder, max_tokens=max_tokens, pooling=pooling)
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    for gradient, expected in zip(gradients, whole, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_dropout_is_repeated_exactly(model_folders: dict[str, str]) -> None:
    """Finite differences of the loss with the same dropout, against the chunked gradient."""
    embedder = Embedder.load(model_folders["llama"], precision="fp32", max_length=64, fused=False)
    torch.manual_seed(3)
    embedder.add_adapter(AdapterSection(lora_dropout=0.3))
    embedder.backbone.model.double()
    weight = next(w for name, w in embedder.backbone.model.named_parameters() if "lora_B" in name)
    with torch.no_grad():
        for name, other in embedder.backbone.model.named_parameters():
            if "lora_B" in name:
                other.normal_(std=0.2)

    def loss_at() -> float:
        torch.manual_seed(11)
        loss, _ = contrastive_step(embedder, texts=BATCH, loss_of=_loss, max_tokens=12, backward=torch.Tensor.backward)
        return loss.item()

    loss_at()
    gradient = weight.grad[0, 0].item()
    step = 1e-3
    weight.data[0, 0] += step
    above = loss_at()
    weight.data[0, 0] -= 2 * step
    below = loss_at()
    assert gradient == pytest.approx((above - below) / (2 * step), rel=0.02)


def test_the_random_state_moves_on(model_folders: dict[str, str]) -> None:
    """After a step in chunks, the next dropout mask is a new one."""
    states = []
    for max_tokens in (12, 10_000):
        _gradients(model_folders["llama"], max_tokens=max_tokens, pooling=Pooling.LAST, dropout=0.3)
        before = torch.get_rng_state()
        _gradients(model_folders["llama"], max_tokens=max_tokens, pooling=Pooling.LAST, dropout=0.3)
        states.append(torch.equal(before, torch.get_rng_state()))
    assert states == [True, True]  # the same seed and the same draws: a fixed number of them
