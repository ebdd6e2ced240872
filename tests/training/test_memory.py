from pathlib import Path

import pytest
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import AdapterSection
from embedsmith.training import memory
from embedsmith.training.gradcache import PIECE_TOKENS
from tests.tiny import TEXTS


def _adapted(folder: str, *, fused: bool = True) -> Embedder:
    embedder = Embedder.load(folder, precision="fp32", max_length=64, fused=fused)
    embedder.add_adapter(AdapterSection(target_modules=["q_proj", "o_proj"]))
    return embedder


def test_half_of_the_free_memory_is_used(model_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = _adapted(model_folders["llama"])
    per_token = embedder.decoder.saved_bytes_per_token
    monkeypatch.setattr(memory, "_free_at_first", lambda _: 10_000 * per_token)
    assert memory.tokens_that_fit(embedder) == 5_000
    monkeypatch.setattr(memory, "_free_at_first", lambda _: 10 * per_token)
    assert memory.tokens_that_fit(embedder) == PIECE_TOKENS["cpu"]
    assert memory.tokens_that_fit(_adapted(model_folders["llama"], fused=False)) == PIECE_TOKENS["cpu"]


def test_bytes_of_a_token_are_those_a_forward_keeps(model_folders: dict[str, str]) -> None:
    embedder = _adapted(model_folders["llama"])
    packed = embedder.pack(TEXTS)
    hidden = embedder.hidden_states(packed)
    kept = 0
    for saved in hidden.grad_fn.run.saved:
        tensors = [saved.norm.normed, saved.mlp_norm.normed, *saved.buffers, saved.attended, saved.inner]
        kept += sum(tensor.nbytes for tensor in tensors)
    assert embedder.decoder.saved_bytes_per_token == pytest.approx(kept / packed.num_tokens, rel=0.1)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    without = memory.free_bytes(torch.device("cpu"))
    assert without > 1_000_000
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 150000\n")
    assert memory.free_bytes(torch.device("cpu")) == 450_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(torch.device("cpu")) > 1_000_000
