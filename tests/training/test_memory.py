import logging

import pytest
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import AdapterSection
from embedsmith.training import memory
from embedsmith.training.gradcache import PIECE_TOKENS
from tests.meta_models import SHAPES, meta_embedder
from tests.tiny import TEXTS

CUDA = torch.device("cuda")


def _adapted(folder: str, *, fused: bool = True, lora_dropout: float = 0.0) -> Embedder:
    embedder = Embedder.load(folder, precision="fp32", max_length=64, fused=fused)
    embedder.add_adapter(AdapterSection(target_modules=["q_proj", "o_proj"], lora_dropout=lora_dropout))
    return embedder


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_half_of_the_free_memory_is_used(
    model_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, fused: bool
) -> None:
    embedder = _adapted(model_folders["llama"], fused=fused)
    per_token, later = memory.kept_bytes_per_token(embedder), memory.optimizer_bytes(embedder)
    monkeypatch.setattr(memory, "_at_first", lambda _: memory._Memory(10_000 * per_token + later, 0))
    assert memory.tokens_that_fit(embedder) == 5_000
    monkeypatch.setattr(memory, "_at_first", lambda _: memory._Memory(10 * per_token, 0))
    assert memory.tokens_that_fit(embedder) == PIECE_TOKENS["cpu"]


def test_bytes_of_a_token_are_those_a_forward_keeps(model_folders: dict[str, str]) -> None:
    embedder = _adapted(model_folders["llama"])
    packed = embedder.pack(TEXTS)
    hidden = embedder.hidden_states(packed)
    kept = 0
    for saved in hidden.grad_fn.run.saved:
        tensors = [saved.norm.normed, saved.mlp_norm.normed, *saved.buffers, saved.attended, saved.inner]
        kept += sum(tensor.nbytes for tensor in tensors)
    assert memory.kept_bytes_per_token(embedder) == pytest.approx(kept / packed.num_tokens, rel=0.1)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_bytes_of_a_token_of_blocks_not_fused(method: str) -> None:
    """Counted by hand for SmolLM2 in float32; rotary and grouped heads add a little that is not counted here."""
    layers, hidden, inner, queries, keys, rank = 30, 576, 1536, 576, 192, 8
    heads = 2 * queries + 2 * keys  # queries, keys, values, and what comes out
    if method == "lora":  # both norms' inputs; mask, masked input and projection of q and v; gate twice, up
        values = 2 * hidden + 2 * (2 * hidden + rank) + heads + 3 * inner
    else:  # each norm's input and its value with and without weight; what `o` reads; what `down` reads too
        values = 2 * 3 * hidden + heads + queries + 4 * inner
    embedder = meta_embedder("SmolLM2-135M", fused=False, dtype=torch.float32, method=method)
    assert 1.0 <= memory.kept_bytes_per_token(embedder) / (4 * layers * values) <= 1.1


def test_counting_them_leaves_the_random_state(model_folders: dict[str, str]) -> None:
    embedder = _adapted(model_folders["llama"], fused=False, lora_dropout=0.3)
    before = torch.get_rng_state()
    memory.kept_bytes_per_token(embedder)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("card_gb", [8, 16, 24, 80])
@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_what_is_kept_fits_every_card(name: str, card_gb: int, fused: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The weights lie there already; half of the rest is left for what a piece computes with."""
    embedder = meta_embedder(name, fused=fused)
    weights = sum(weight.nbytes for weight in embedder.backbone.model.parameters())
    free = card_gb * 10**9 - weights
    per_token = memory.kept_bytes_per_token(embedder)
    with caplog.at_level(logging.INFO):
        num_tokens = memory.tokens_for(free, bytes_per_token=per_token, device=CUDA)
    assert num_tokens * per_token <= free / 2 or num_tokens == 512
    assert num_tokens * 2 * per_token > free / 2 or num_tokens > PIECE_TOKENS["cuda"]  # and no less than need be
    assert (num_tokens < PIECE_TOKENS["cuda"]) == ("in pieces of" in caplog.text)
    if (name, card_gb, fused) == ("Gemma-2B", 24, True):
        assert num_tokens == 4096
    if (name, card_gb) == ("SmolLM2-135M", 24):
        assert num_tokens >= PIECE_TOKENS["cuda"] if fused else num_tokens == 8192


def test_a_little_more_free_memory_makes_no_other_pieces() -> None:
    free = 10**10
    sizes = {memory.tokens_for(int(free * f), bytes_per_token=10**6, device=CUDA) for f in (0.9, 1, 1.1, 1.4)}
    assert sizes == {4096}
    assert memory.tokens_for(-5, bytes_per_token=10**6, device=CUDA) == 512


def test_gradients_and_optimizer_of_all_weights_are_counted() -> None:
    full = meta_embedder("SmolLM2-135M", fused=False, dtype=torch.float32, method="full")
    assert memory.optimizer_bytes(full) == pytest.approx(12 * 134.5e6, rel=0.01)
    assert memory.optimizer_bytes(meta_embedder("SmolLM2-135M")) < 50e6
